/** What one round of stress is made of: a machine, its processes and what they should hold, and what went wrong. */
import { PfnlessError } from '../base/errors.js';
import type { SeededInjector } from '../base/injection.js';
import type { Random } from '../base/random.js';
import type { BootedMachine } from '../machine/boot.js';
import { messageWithStack, troubleOf } from '../machine/trouble.js';
import type { Violation, VirtRange } from '../machine/types.js';
import { waitsText } from '../sched/tasks.js';
import type { Subject } from './region.js';

/** Virtual addresses that stress hands out itself, one after the other. */
const FIRST_ADDRESS = 2 ** 40;
const HUGE = 2 ** 21;
/** Longest time that an episode may take, in milliseconds: far more than a busy computer needs for it. */
const EPISODE_MAX_MS = 60_000;

/** Something that must not be; ends the round. */
export class Found extends Error {
  readonly violation: Violation;

  constructor(violation: Violation) {
    super(violation.message);
    this.violation = violation;
  }
}

/** Codes with which a call may end: a kernel that says no, a signal, a device that is gone. */
const HONEST = ['ERR_PFNLESS_ERRNO', 'ERR_PFNLESS_FAULT', 'ERR_PFNLESS_DEVICE_LOST'];

export class World {
  readonly machine: BootedMachine['machine'];
  readonly state: BootedMachine['state'];
  readonly random: Random;
  readonly injector: SeededInjector;
  readonly subjects: Subject[] = [];
  /** Whom each CPU worked for last. */
  readonly lastOn = new Map<number, Subject>();
  /** Loads and stores that were done and judged. */
  operations = 0;
  calls = 0;
  /** Words that have gone with a device. */
  lost = 0;
  #value = 0;
  #address = FIRST_ADDRESS;

  constructor({ machine, state }: BootedMachine, random: Random, injector: SeededInjector) {
    this.machine = machine;
    this.state = state;
    this.random = random;
    this.injector = injector;
  }

  /** Values to store grow, so that an old one can be told from a new one. */
  readonly nextValue = (): number => ++this.#value;

  /** Addresses that were never used before, with a gap behind them. */
  readonly freshAddress = (bytes: number): VirtRange['start'] => {
    const start = this.#address;
    this.#address += Math.ceil(bytes / HUGE + 1) * HUGE;
    return start as VirtRange['start'];
  };

  pick<T>(items: readonly T[]): T {
    return items[this.random.below(items.length)]!;
  }

  /** Indices of devices that live. */
  get living(): number[] {
    return this.state.devices.filter(({ link }) => link.lost === null).map(({ index }) => index);
  }

  /** Is anything injected? Then a page may be out of reach for a moment. */
  get hostile(): boolean {
    return this.injector.enabled > 0;
  }

  /** Did the call succeed? An honest error is an answer. @throws Found for any other */
  async attempt(call: Promise<unknown>): Promise<boolean> {
    try {
      await call;
      return true;
    } catch (error) {
      if (error instanceof PfnlessError && HONEST.includes(error.code)) return false;
      throw foundBy(error);
    }
  }

  /**
   * All of some calls. @throws Found as soon as one ends in no honest way (whoever waits for what it held waits for ever), or when
   * they do not end
   */
  async all<T>(calls: readonly Promise<T>[]): Promise<T[]> {
    let late: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<never>((_, reject) => {
      late = setTimeout(() => reject(new Found({ invariant: 'liveness', message: this.#stuck() })), EPISODE_MAX_MS);
    });
    try {
      return await Promise.race([Promise.all(calls), timeout]);
    } catch (error) {
      throw foundBy(error);
    } finally {
      clearTimeout(late);
    }
  }

  #stuck(): string {
    const waits = waitsText(this.state.executor.waits());
    return `no end after ${EPISODE_MAX_MS / 1000} s: ${waits || 'nobody waits for the kernel'}`;
  }

  /** A quiet moment: nothing is injected while it lasts. */
  async quietly<T>(work: () => Promise<T>): Promise<T> {
    const { armed } = this.injector;
    this.injector.armed = false;
    try {
      return await work();
    } finally {
      this.injector.armed = armed;
    }
  }
}

/** What an error says about the machine. */
export function foundBy(error: unknown): Found {
  if (error instanceof Found) return error;
  // Whether the kernel stumbled or pfnless did makes no difference to who reads it.
  const trouble = troubleOf(error, true);
  if (error instanceof PfnlessError) {
    const invariant = trouble === 'stuck' ? 'liveness' : 'errors';
    return new Found({ invariant, message: `${error.message} (${error.code})` });
  }
  if (trouble === 'broken') return new Found({ invariant: 'kernel', message: (error as Error).message });
  return new Found({ invariant: 'errors', message: messageWithStack(error) });
}
