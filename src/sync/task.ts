/**
 * May sleep ⇔ generator (ARCHITECTURE decision 4). A kernel function that may sleep is a `Sleeps<T>` and is called with `yield*`;
 * what it yields is the reason why it cannot go on, and whoever drives the task calls `next()` once the reason is gone.
 */

/** Why a task does not run. `ready` must be cheap and free of side effects: it is polled. */
export interface Wait {
  /** For people: "copy fence 12 of device 0", "mmap_lock of mm 3 (write)". */
  readonly what: string;
  ready(): boolean;
  /** What ends it is not in the machine: its user does something. Until then the task is at rest, and holds up nobody. */
  readonly outside?: true;
  /** Another thread is at work on it and on nothing else: better to look for a while than to be woken. */
  readonly soon?: true;
}

export type Sleeps<T> = Generator<Wait, T, void>;

/** A preemption point: the task could go on at once, somebody else may go first. */
export const SCHEDULE_POINT: Wait = Object.freeze({ what: 'schedule point', ready: () => true });

/** Sleep until `ready()` holds. Does not sleep at all if it holds already. */
export function* waitUntil(what: string, ready: () => boolean): Sleeps<void> {
  while (!ready()) yield { what, ready };
}

/** Several things at a time in one task: each has begun before any of them is waited for. */
export function* together(parts: readonly Sleeps<unknown>[]): Sleeps<void> {
  const begun = parts.filter((part) => !part.next().done);
  // One that is resumed too early looks again, and goes on waiting.
  for (const part of begun) yield* part;
}

/** Run a task's generator where nothing in it may sleep. @throws Error if it does */
export function runAtomic<T>(task: Sleeps<T>): T {
  const step = task.next();
  if (!step.done) throw new Error(`would sleep in atomic context: ${step.value.what}`);
  return step.value;
}

/** Sleep until a promise of the control plane settles. @throws what it rejects with */
export function* waitForPromise<T>(what: string, promise: Promise<T>): Sleeps<T> {
  let outcome: { readonly value: T } | { readonly reason: unknown } | null = null;
  promise.then(
    (value) => {
      outcome = { value };
    },
    (reason: unknown) => {
      outcome = { reason };
    },
  );
  yield* waitUntil(what, () => outcome !== null);
  const settled = outcome as unknown as { readonly value: T } | { readonly reason: unknown };
  if ('reason' in settled) throw settled.reason;
  return settled.value;
}
