/**
 * The tasks of one machine: generators that yield why they cannot go on (sync/task.ts), and the promises of those who
 * wait for them. Which task runs next is the executor's business.
 *
 * Linux: kernel/sched and wait queues, without queues: a `Wait` is polled, because what ends it is often a word that
 * another thread writes. Not modelled: priorities, signals, several CPUs inside the kernel.
 */
import { assert } from '../base/errors.js';
import { enterTask, type HeldLocks, leaveTask, requireNoLocks } from '../sync/lock-order.js';
import type { Sleeps, Wait } from '../sync/task.js';

/** Who waits for the machine to settle. */
export class Settling {
  readonly #waiters: { resolve: () => void; reject: (reason: unknown) => void }[] = [];

  get wanted(): boolean {
    return this.#waiters.length > 0;
  }

  wait(): Promise<void> {
    return new Promise((resolve, reject) => this.#waiters.push({ resolve, reject }));
  }

  done(): void {
    for (const { resolve } of this.#waiters.splice(0)) resolve();
  }

  fail(reason: unknown): void {
    for (const { reject } of this.#waiters.splice(0)) reject(reason);
  }
}

/** A task that was spawned and has not ended. Fields belong to `TaskList`. */
export interface Task {
  readonly name: string;
  /** Somebody waits for its result: it keeps the machine busy, and stuck for ever it is a deadlock. */
  readonly foreground: boolean;
  readonly generator: Generator<Wait, unknown, void>;
  /** What it yielded last; `null` before it ran for the first time. */
  wait: Wait | null;
  /** The executor's: number of its last turn. */
  turn: number;
  readonly locks: HeldLocks;
  readonly resolve: (value: unknown) => void;
  readonly reject: (reason: unknown) => void;
}

export interface WaitReport {
  readonly task: string;
  readonly what: string;
}

/** Who waits for what, in one line; empty when nobody does. */
export const waitsText = (waits: readonly WaitReport[]): string =>
  waits.map(({ task, what }) => `${task} waits for ${what}`).join('; ');

export class TaskList {
  readonly #tasks: Task[] = [];
  #foreground = 0;
  /** Of them, those whose wait is for something outside of the machine. */
  #outside = 0;

  /** In the order of their last turn: who waited longest comes first. */
  get all(): readonly Task[] {
    return this.#tasks;
  }

  get foreground(): number {
    return this.#foreground;
  }

  /** Is there a foreground task that does not wait for the machine's user, or need not any more? */
  get busy(): boolean {
    return this.#foreground > this.#outside || (this.#outside > 0 && this.#tasks.some(hasBeenLetGo));
  }

  /** Add a foreground task. The promise settles as the task ends. @param turn number of the turn that is over: it waits since then */
  spawn<T>(name: string, generator: Sleeps<T>, turn = 0): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#foreground++;
      this.#tasks.push({
        name,
        foreground: true,
        generator,
        wait: null,
        turn,
        locks: [],
        resolve: resolve as (value: unknown) => void,
        reject,
      });
    });
  }

  /** Add a task that nobody waits for. @param onError gets what it throws */
  spawnBackground(name: string, generator: Sleeps<never>, onError: (reason: unknown) => void): void {
    const background = { foreground: false, wait: null, turn: 0, locks: [], resolve: () => {} };
    this.#tasks.push({ ...background, name, generator, reject: onError });
  }

  isReady(task: Task): boolean {
    return task.wait === null || task.wait.ready();
  }

  /** Does a task wait for what will come soon? */
  get waitsSoon(): boolean {
    return this.#tasks.some(({ wait }) => wait?.soon);
  }

  anyReady(): boolean {
    return this.#tasks.some((task) => this.isReady(task));
  }

  /** Run a ready task up to its next wait, then put it behind all others. Returns whether it has ended. */
  resume(task: Task): boolean {
    const at = this.#tasks.indexOf(task);
    assert(at >= 0, `task ${task.name} has ended`);
    this.#tasks.splice(at, 1);
    if (isOutside(task)) this.#outside--;
    const before = enterTask(task.locks);
    try {
      const step = task.generator.next();
      if (!step.done) {
        task.wait = step.value;
        this.#tasks.push(task);
        if (isOutside(task)) this.#outside++;
        return false;
      }
      requireNoLocks(task.locks, task.name);
      task.resolve(step.value);
    } catch (reason) {
      task.reject(reason);
    } finally {
      leaveTask(before);
    }
    if (task.foreground) this.#foreground--;
    return true;
  }

  /** What each foreground task waits for, those apart that are at rest until the machine's user does something. */
  waits(): readonly WaitReport[] {
    return this.#tasks
      .filter((task) => task.foreground && (!isOutside(task) || hasBeenLetGo(task)))
      .map((task) => ({ task: task.name, what: task.wait?.what ?? 'its first turn' }));
  }

  /** Drop the foreground tasks: their promises reject. They are not unwound; what they hold stays held. */
  rejectForeground(reason: unknown): void {
    const dropped = this.#tasks.filter((task) => task.foreground);
    this.#tasks.splice(0, this.#tasks.length, ...this.#tasks.filter((task) => !task.foreground));
    this.#foreground = 0;
    this.#outside = 0;
    for (const task of dropped) task.reject(reason);
  }

  /** Drop all tasks. */
  clear(reason: unknown): void {
    this.rejectForeground(reason);
    this.#tasks.length = 0;
  }
}

const isOutside = ({ foreground, wait }: Task): boolean => foreground && wait?.outside === true;
const hasBeenLetGo = (task: Task): boolean => isOutside(task) && task.wait!.ready();
