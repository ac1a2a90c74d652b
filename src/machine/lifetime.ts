/** The life of a machine, a process or a mirror: calls after its end are refused, its end can wait for the calls before. */
import { PfnlessError } from '../base/errors.js';

export class Lifetime {
  readonly #over: string;
  readonly #parent: Lifetime | null;
  readonly #calls = new Set<Promise<unknown>>();
  #ended = false;
  #ending: Promise<void> | null = null;

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
    } finally {
      this.#calls.delete(call);
    }
  }

  /** The calls that are in flight have come back, whatever came of them. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#calls);
  }

  /** Refuse calls from now on, and do `last`. Once only: whoever ends it again waits for the same end. */
  end(last: () => Promise<void>): Promise<void> {
    this.#ended = true;
    this.#ending ??= last();
    return this.#ending;
  }
}
