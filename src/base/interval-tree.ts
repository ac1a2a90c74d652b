/**
 * Ranges that may overlap, and the question which of them touch a given range: O(log n) for each answer.
 *
 * Linux: lib/interval_tree.c. Serves interval notifiers (mm/mmu_notifier.c) and the reverse map of anonymous memory
 * (mm/interval_tree.c). Ranges are [start, end), where Linux's include their last byte.
 */
import { BalancedTree, type TreeNode } from './balanced-tree.js';
import { assert } from './errors.js';

/** An inserted range [start, end): the handle to remove it by. */
export interface Interval<T> {
  readonly start: number;
  readonly end: number;
  readonly value: T;
}

interface IntervalNode<T> extends Interval<T>, TreeNode<IntervalNode<T>> {
  /** Order among ranges with the same start. */
  readonly sequence: number;
  /** Highest end of the subtree. */
  maxEnd: number;
  attached: boolean;
}

export class IntervalTree<T> extends BalancedTree<IntervalNode<T>> {
  #sequence = 0;

  insert(start: number, end: number, value: T): Interval<T> {
    assert(start < end, () => `not a range: [${start}, ${end})`);
    const sequence = this.#sequence++;
    const node: IntervalNode<T> = {
      start,
      end,
      value,
      sequence,
      maxEnd: end,
      attached: true,
      left: null,
      right: null,
      height: 1,
    };
    this.attach(node);
    return node;
  }

  /** Precondition: `interval` came from this tree's `insert` and was not removed since. */
  remove(interval: Interval<T>): void {
    const node = interval as IntervalNode<T>;
    assert(node.attached, () => `interval [${node.start}, ${node.end}) removed twice`);
    node.attached = false;
    this.detach(node);
  }

  /** The first range, by start and then by age, that overlaps [start, end). */
  first(start: number, end: number): Interval<T> | undefined {
    return firstFrom(this.root, null, start, end) ?? undefined;
  }

  /** The one that follows `interval` among the ranges that overlap [start, end). `interval` may have been removed. */
  next(interval: Interval<T>, start: number, end: number): Interval<T> | undefined {
    return firstFrom(this.root, interval as IntervalNode<T>, start, end) ?? undefined;
  }

  /** Ranges that overlap [start, end), by start and then by age. The tree may change between two steps. */
  *overlapping(start: number, end: number): Generator<Interval<T>, void, void> {
    for (let found = this.first(start, end); found !== undefined; found = this.next(found, start, end)) yield found;
  }

  protected override precedes(a: IntervalNode<T>, b: IntervalNode<T>): boolean {
    return comesBefore(a, b);
  }

  protected override summarise(node: IntervalNode<T>): void {
    const { left, right } = node;
    node.maxEnd = node.end;
    if (left !== null && left.maxEnd > node.maxEnd) node.maxEnd = left.maxEnd;
    if (right !== null && right.maxEnd > node.maxEnd) node.maxEnd = right.maxEnd;
  }
}

function comesBefore<T>(a: IntervalNode<T>, b: IntervalNode<T>): boolean {
  return a.start !== b.start ? a.start < b.start : a.sequence < b.sequence;
}

/** First node in order, behind `after` if there is one, that overlaps [start, end). */
function firstFrom<T>(
  node: IntervalNode<T> | null,
  after: IntervalNode<T> | null,
  start: number,
  end: number,
): IntervalNode<T> | null {
  while (node !== null && node.maxEnd > start) {
    if (after === null || comesBefore(after, node)) {
      const below = firstFrom(node.left, after, start, end);
      if (below !== null) return below;
      if (node.start >= end) return null;
      if (node.end > start) return node;
    }
    node = node.right;
  }
  return null;
}
