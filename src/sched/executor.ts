/** Who drives the kernel's tasks and, inline, the devices. */
import type { Sleeps } from '../sync/task.js';
import type { PreemptPoint } from './choice.js';
import type { WaitReport } from './tasks.js';

/** Something beside tasks that can make progress: an inline device. */
export interface Actor {
  readonly name: string;
  /** Could `step` do something now? */
  readonly runnable: boolean;
  /** Do one step; returns whether it made progress. */
  step(): boolean;
}

export interface Executor {
  readonly kind: 'inline' | 'threads';
  /**
   * Run a kernel task to its end. Rejects with what the task throws.
   * @throws PfnlessError ERR_PFNLESS_DEADLOCK (inline) when nobody can go on; the reason of `stop` after it
   */
  run<T>(name: string, task: Sleeps<T>): Promise<T>;
  /**
   * Run a task that serves others for ever (fault service): it neither keeps the machine busy nor counts for deadlock.
   * What it throws is the end of the machine: everything else rejects with it.
   */
  background(name: string, task: Sleeps<never>): void;
  /** Inline only: whom to step beside the tasks. */
  addActor(actor: Actor): void;
  /** Does a task or lane that could be preempted here have to let others go first? Threads: only to the event loop. */
  preempt(point: PreemptPoint): boolean;
  /** Resolves when no foreground task is left and nobody makes progress. */
  settle(): Promise<void>;
  /** What each unfinished task waits for, for error messages. */
  waits(): readonly WaitReport[];
  /** The reason of `stop`; `null` before it. */
  readonly stopped: Error | null;
  /** Drop all tasks: their promises, and those of tasks to come, reject with `reason`. */
  stop(reason: Error): void;
}
