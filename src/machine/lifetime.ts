/** The life of a machine, a process or a mirror: calls after its end are refused, its end can wait for the calls before. */
import { PfnlessError } from '../base/errors.js';

export class Lifetime {
  readonly #over: string;
  readonly #parent: Lifetime | null;
  readonly #calls = new Set<Promise<unknown>>();
  #ended = false;
  #ending: Promise<void> | null = null;
  #broken: Error | null = null;

  /**
   * @param over what to say after the end, e.g. "process 3 has exited"
   * @param parent whose end is this one's, too
   */
  constructor(over: string, parent: Lifetime | null = null) {
    this.#over = over;
    this.#parent = parent;
  }

  /** Is its end under way, or over? */
  get ended(): boolean {
    return this.#ended;
  }

  /** What a call of the machine came to that leaves it in no order: its locks may be held, and its tasks wait, for ever. */
  get broken(): Error | null {
    return this.#parent === null ? this.#broken : this.#parent.broken;
  }

  /** The machine is broken from now on. Only the first reason counts. */
  breakDown(reason: Error): void {
    if (this.#parent === null) this.#broken ??= reason;
    else this.#parent.breakDown(reason);
  }

  /** The error of a call that comes too late. */
  get overError(): PfnlessError {
    return new PfnlessError('ERR_PFNLESS_DISPOSED', `It is too late for this call: ${this.#over}.`);
  }

  /** @throws PfnlessError ERR_PFNLESS_DISPOSED after the end */
  assertAlive(): void {
    this.#parent?.assertAlive();
    if (this.#ended) throw this.overError;
  }

  /** One call of a user. @throws PfnlessError ERR_PFNLESS_DISPOSED after the end */
  async call<T>(work: () => Promise<T>): Promise<T> {
    this.assertAlive();
    const call = work();
    this.#calls.add(call);
    try {
      return await call;
    } catch (error) {
      if (error instanceof Error && breaksMachine(error)) this.breakDown(error);
      throw error;
    } finally {
      this.#calls.delete(call);
    }
  }

  /** The calls that are in flight have come back, whatever came of them. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#calls);
  }

  /**
   * Refuse calls from now on, and do `last`. Once only: whoever ends it again waits for the same end. In a broken machine it ends as it
   * is: what `last` would wait for may never come, and whose call broke it has been told.
   */
  end(last: () => Promise<void>): Promise<void> {
    this.#ended = true;
    const isLeft = this.#parent !== null && this.broken !== null;
    this.#ending ??= isLeft ? Promise.resolve() : last();
    return this.#ending;
  }
}

/** What a kernel answers is a PfnlessError. Whatever else ends a task, and a deadlock, leaves its locks held. */
const breaksMachine = (error: Error): boolean =>
  !(error instanceof PfnlessError) || error.code === 'ERR_PFNLESS_DEADLOCK';
