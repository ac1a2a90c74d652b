/**
 * MMU notifiers: how a driver learns that CPU mappings change. Linux: mm/mmu_notifier.c (interval notifiers).
 *
 * A driver's read side:
 *
 *     seq = yield* mmuIntervalReadBegin(notifier)      // waits while an invalidation is under way
 *     ... collect pages, e.g. hmmRangeFault ...
 *     if (mmuIntervalReadRetry(notifier, seq)) again   // under the driver's own lock, which its invalidate() takes too
 *     ... install device mappings ...
 *
 * `invalidate` must call `mmuIntervalSetSeq` and must not return before the device can no longer use the range.
 */
import type { VirtAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { type Interval, IntervalTree } from '../base/interval-tree.js';
import type { Sleeps } from '../sync/task.js';
import type { MmStruct } from './mm-struct.js';

/** Why mappings change (`enum mmu_notifier_event`). */
export type MmuNotifierEvent =
  | 'MMU_NOTIFY_UNMAP'
  | 'MMU_NOTIFY_CLEAR'
  | 'MMU_NOTIFY_PROTECTION_VMA'
  | 'MMU_NOTIFY_PROTECTION_PAGE'
  | 'MMU_NOTIFY_SOFT_DIRTY'
  | 'MMU_NOTIFY_MIGRATE'
  | 'MMU_NOTIFY_EXCLUSIVE'
  | 'MMU_NOTIFY_RELEASE';

/** `struct mmu_notifier_range`: [start, end), and for MIGRATE and EXCLUSIVE the owner who asked. */
export interface MmuNotifierRange {
  readonly mm: MmStruct;
  readonly start: VirtAddr;
  readonly end: VirtAddr;
  readonly event: MmuNotifierEvent;
  readonly owner: object | null;
}

export interface MmuIntervalNotifierOps {
  /** Make the device forget [range.start, range.end). May sleep. */
  invalidate(notifier: MmuIntervalNotifier, range: MmuNotifierRange, curSeq: number): Sleeps<void>;
}

export interface MmuIntervalNotifier {
  readonly mm: MmStruct;
  readonly ops: MmuIntervalNotifierOps;
  /** Set by `mmuIntervalSetSeq`. */
  invalidateSeq: number;
  interval: Interval<MmuIntervalNotifier>;
}

/** `struct mmu_notifier_subscriptions`: the state per mm. */
export class NotifierSubscriptions {
  readonly tree = new IntervalTree<MmuIntervalNotifier>();
  /** Odd while some invalidation of a subscribed range is under way. */
  invalidateSeq = 2;
  /** Invalidations under way, subscribed ranges or not. */
  activeRanges = 0;
  /** Removed while an invalidation was under way: they hear of it to its end, then leave the tree. */
  readonly deferredRemovals: MmuIntervalNotifier[] = [];
}

const isInvalidating = (subscriptions: NotifierSubscriptions): boolean => (subscriptions.invalidateSeq & 1) !== 0;

/** `mmu_interval_notifier_insert()`. */
export function mmuIntervalNotifierInsert(
  mm: MmStruct,
  start: number,
  end: number,
  ops: MmuIntervalNotifierOps,
): MmuIntervalNotifier {
  const subscriptions = mm.notifiers;
  // While an invalidation is under way, even one that concerned nobody so far, the new notifier starts out as part of it, so
  // that a first read waits for its end.
  if (subscriptions.activeRanges > 0) subscriptions.invalidateSeq |= 1;
  const invalidateSeq = isInvalidating(subscriptions) ? subscriptions.invalidateSeq : subscriptions.invalidateSeq - 1;
  const notifier = { mm, ops, invalidateSeq } as MmuIntervalNotifier;
  notifier.interval = subscriptions.tree.insert(start, end, notifier);
  return notifier;
}

/** `mmu_interval_notifier_remove()`: waits for the invalidations under way, so `invalidate` is not running afterwards. */
export function* mmuIntervalNotifierRemove(notifier: MmuIntervalNotifier): Sleeps<void> {
  const subscriptions = notifier.mm.notifiers;
  const seq = subscriptions.invalidateSeq;
  if (!isInvalidating(subscriptions)) {
    subscriptions.tree.remove(notifier.interval);
    return;
  }
  subscriptions.deferredRemovals.push(notifier);
  const ready = (): boolean => subscriptions.invalidateSeq !== seq;
  while (!ready()) yield { what: `end of the invalidation of process ${notifier.mm.pid}`, ready };
}

/** Is an invalidation under way that a read would wait for? */
export const mmuIntervalInvalidating = (notifier: MmuIntervalNotifier): boolean =>
  notifier.invalidateSeq === notifier.mm.notifiers.invalidateSeq;

/** `mmu_interval_read_begin()`. */
export function* mmuIntervalReadBegin(notifier: MmuIntervalNotifier): Sleeps<number> {
  const subscriptions = notifier.mm.notifiers;
  const seq = notifier.invalidateSeq;
  if (seq === subscriptions.invalidateSeq) {
    const ready = (): boolean => subscriptions.invalidateSeq !== seq;
    while (!ready()) yield { what: `end of an invalidation of process ${notifier.mm.pid}`, ready };
  }
  return seq;
}

/** `mmu_interval_read_retry()`: has an invalidation come in between? */
export const mmuIntervalReadRetry = (notifier: MmuIntervalNotifier, seq: number): boolean =>
  notifier.invalidateSeq !== seq;

/** `mmu_interval_set_seq()`: called by `invalidate` under the lock which also guards the retry test. */
export const mmuIntervalSetSeq = (notifier: MmuIntervalNotifier, curSeq: number): void => {
  notifier.invalidateSeq = curSeq;
};

/** `mmu_notifier_invalidate_range_start()`: when it returns, no device uses the range. */
export function* mmuNotifierInvalidateRangeStart(range: MmuNotifierRange): Sleeps<void> {
  const subscriptions = range.mm.notifiers;
  subscriptions.activeRanges++;
  const { start, end } = range;
  let at = subscriptions.tree.first(start, end);
  if (at === undefined) return;
  subscriptions.invalidateSeq |= 1;
  const curSeq = subscriptions.invalidateSeq;
  for (; at !== undefined; at = subscriptions.tree.next(at, start, end)) {
    yield* at.value.ops.invalidate(at.value, range, curSeq);
  }
}

/** `mmu_notifier_invalidate_range_end()`. */
export function mmuNotifierInvalidateRangeEnd(range: MmuNotifierRange): void {
  const subscriptions = range.mm.notifiers;
  assert(subscriptions.activeRanges > 0, 'end of an invalidation that never began');
  subscriptions.activeRanges--;
  if (subscriptions.activeRanges > 0 || !isInvalidating(subscriptions)) return;
  subscriptions.invalidateSeq++;
  if (subscriptions.deferredRemovals.length === 0) return;
  for (const { interval } of subscriptions.deferredRemovals.splice(0)) subscriptions.tree.remove(interval);
}
