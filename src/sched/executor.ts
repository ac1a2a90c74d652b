/** Who drives the kernel's tasks and, inline, the devices. */
import type { Sleeps } from '../sync/task.js';

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
  /** Run a kernel task to its end. Rejects with what the task throws. */
  run<T>(name: string, task: Sleeps<T>): Promise<T>;
  /** Run a task that serves others for ever (fault service): it neither keeps the machine busy nor counts for deadlock. */
  background(name: string, task: Sleeps<never>): void;
  addActor(actor: Actor): void;
  /** Resolves when no foreground task is left and nobody makes progress. */
  settle(): Promise<void>;
  /** What each unfinished task waits for, for error messages. */
  waits(): readonly { readonly task: string; readonly what: string }[];
  /** Drop all tasks: their promises reject with `reason`. */
  stop(reason: Error): void;
}
