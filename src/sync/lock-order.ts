/**
 * The order of sleeping locks, and the watch over it: a task takes locks of later classes while it holds earlier ones, never the
 * other way round, never one that it holds already, and ends with none. A wrong order is reported where it is taken, whether or not
 * somebody else is in the way at that moment: most deadlocks of this kind need a schedule that no test ever meets (Linux: lockdep).
 *
 * Not watched: page locks, which are tried or waited for with nothing held (an explored machine names who waits for what), and
 * page table locks, under which nobody sleeps (mm/pgtable.ts).
 */
import { assert } from '../base/errors.js';

/** From the outermost to the innermost. */
const LOCK_ORDER = ['memory failure', 'file', 'mmap_lock', 'chunks'] as const;
export type LockClass = (typeof LOCK_ORDER)[number];

export interface WatchedLock {
  readonly name: string;
  readonly lockClass: LockClass;
}

/** What a task holds, in the order in which it was taken. Every task has one. */
export type HeldLocks = WatchedLock[];

/** Locks of the task that runs on this thread (Linux: `current`); `null` outside of all tasks, where nothing is watched. */
let current: HeldLocks | null = null;

/** A task goes on. @returns what `leaveTask` wants */
export function enterTask(held: HeldLocks): HeldLocks | null {
  const before = current;
  current = held;
  return before;
}

export function leaveTask(before: HeldLocks | null): void {
  current = before;
}

export function lockTaken(lock: WatchedLock): void {
  if (current === null) return;
  for (const held of current) {
    assert(held !== lock, () => `lock order: ${lock.name} is taken by a task that holds it`);
    // Two address spaces are locked by fork alone, the parent's first.
    const isInOrder = LOCK_ORDER.indexOf(held.lockClass) <= LOCK_ORDER.indexOf(lock.lockClass);
    assert(isInOrder, () => `lock order: ${lock.name} is taken under ${held.name}`);
  }
  current.push(lock);
}

export function lockDropped(lock: WatchedLock): void {
  if (current === null) return;
  const at = current.lastIndexOf(lock);
  assert(at >= 0, () => `lock order: ${lock.name} is dropped by a task that does not hold it`);
  current.splice(at, 1);
}

/** A task has ended. */
export function requireNoLocks(held: HeldLocks, task: string): void {
  assert(held.length === 0, () => `lock order: ${task} has ended and holds ${held.map(({ name }) => name).join(', ')}`);
}
