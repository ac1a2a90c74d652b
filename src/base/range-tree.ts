/**
 * Ranges that do not overlap, found by a point or by the free space between them, each in O(log n).
 *
 * Linux: lib/maple_tree.c (mtree_load, mas_find, mas_prev, mtree_alloc_range). Serves VMAs, the device private address space, the
 * children of the iomem root and the slots of the memmap. Bounds are integers from 0 to 2^53; a range is [start, end).
 * No RCU: the kernel model runs on one thread.
 */
import { BalancedTree, type TreeNode } from './balanced-tree.js';
import { assert } from './errors.js';

/** A stored range [start, end). The same object for as long as the range stays in the tree. */
export interface Range<T> {
  readonly start: number;
  readonly end: number;
  readonly value: T;
}

interface RangeNode<T> extends Range<T>, TreeNode<RangeNode<T>> {
  /** Lowest start and highest end of the subtree. */
  first: number;
  last: number;
  /** Largest hole between two neighbours of the subtree. */
  hole: number;
}

/** No such place. Places are never negative. */
const NOWHERE = -1;

export class RangeTree<T> extends BalancedTree<RangeNode<T>> {
  /** Add [start, end). @returns false, and changes nothing, when it overlaps a range that is there */
  insert(start: number, end: number, value: T): boolean {
    assert(start >= 0 && start < end, () => `not a range: [${start}, ${end})`);
    if (this.overlaps(start, end)) return false;
    this.#add(start, end, value);
    return true;
  }

  /** Remove the range which starts at exactly `start`. @returns its value, `undefined` when there is none */
  remove(start: number): T | undefined {
    const node = this.#lastStartingUpTo(start);
    if (node === null || node.start !== start) return undefined;
    this.detach(node);
    return node.value;
  }

  /** The range that contains `point`. */
  find(point: number): Range<T> | undefined {
    let node = this.root;
    while (node !== null) {
      if (point < node.start) node = node.left;
      else if (point >= node.end) node = node.right;
      else return node;
    }
    return undefined;
  }

  /** The range that contains `point`, or the next one above it (`find_vma`). */
  firstEndingAfter(point: number): Range<T> | undefined {
    let found: RangeNode<T> | undefined;
    let node = this.root;
    while (node !== null) {
      if (point >= node.end) node = node.right;
      else {
        found = node;
        if (point >= node.start) break;
        node = node.left;
      }
    }
    return found;
  }

  /** The last range that starts below `point`; it may contain `point`. */
  previous(point: number): Range<T> | undefined {
    return this.#lastStartingUpTo(point - 1) ?? undefined;
  }

  overlaps(start: number, end: number): boolean {
    const next = this.firstEndingAfter(start);
    return next !== undefined && next.start < end;
  }

  /** All ranges, ascending. The tree may change between two steps. */
  [Symbol.iterator](): Generator<Range<T>, void, void> {
    return this.from(0);
  }

  /** Ranges that end after `point`, ascending. The tree may change between two steps. */
  *from(point: number): Generator<Range<T>, void, void> {
    for (let range = this.firstEndingAfter(point); range !== undefined; range = this.firstEndingAfter(range.end)) {
      yield range;
    }
  }

  /** Ranges that overlap [start, end), ascending, as they are now. */
  overlapping(start: number, end: number): Range<T>[] {
    const found: Range<T>[] = [];
    let range = this.firstEndingAfter(start);
    while (range !== undefined && range.start < end) {
      found.push(range);
      range = this.firstEndingAfter(range.end);
    }
    return found;
  }

  /**
   * Lowest start, a multiple of `align`, of `size` free units inside [min, max).
   * O(log n), and one more step for each hole that is large enough but for its alignment.
   */
  lowestGap(size: number, min: number, max: number, align = 1): number | undefined {
    assert(size > 0 && min >= 0 && align > 0, () => `no gap of size ${size} from ${min} aligned to ${align}`);
    const start = this.#lowest(this.root, min, max, size, align);
    return start === NOWHERE ? undefined : start;
  }

  /** Highest start, a multiple of `align`, of `size` free units inside [min, max). Cost as `lowestGap`. */
  highestGap(size: number, min: number, max: number, align = 1): number | undefined {
    assert(size > 0 && min >= 0 && align > 0, () => `no gap of size ${size} from ${min} aligned to ${align}`);
    const start = this.#highest(this.root, min, max, size, align);
    return start === NOWHERE ? undefined : start;
  }

  /** Take the place that `lowestGap` finds. @returns its start */
  allocateLowest(size: number, min: number, max: number, align: number, value: T): number | undefined {
    const start = this.lowestGap(size, min, max, align);
    if (start !== undefined) this.#add(start, start + size, value);
    return start;
  }

  protected override precedes(a: RangeNode<T>, b: RangeNode<T>): boolean {
    return a.start < b.start;
  }

  protected override summarise(node: RangeNode<T>): void {
    const { left, right } = node;
    node.first = left === null ? node.start : left.first;
    node.last = right === null ? node.end : right.last;
    const below = left === null ? 0 : Math.max(left.hole, node.start - left.last);
    const above = right === null ? 0 : Math.max(right.hole, right.first - node.end);
    node.hole = Math.max(below, above);
  }

  #add(start: number, end: number, value: T): void {
    this.attach({ start, end, value, left: null, right: null, height: 1, first: start, last: end, hole: 0 });
  }

  #lastStartingUpTo(point: number): RangeNode<T> | null {
    let found: RangeNode<T> | null = null;
    let node = this.root;
    while (node !== null) {
      if (node.start > point) node = node.left;
      else {
        found = node;
        node = node.right;
      }
    }
    return found;
  }

  /** Lowest place among the holes of the subtree `node` and the ones beside it, inside [low, high). */
  #lowest(node: RangeNode<T> | null, low: number, high: number, size: number, align: number): number {
    if (node === null) {
      const start = roundUp(low, align);
      return high - start >= size ? start : NOWHERE;
    }
    if (!roomAround(node, low, high, size)) return NOWHERE;
    const below = this.#lowest(node.left, low, Math.min(high, node.start), size, align);
    return below !== NOWHERE ? below : this.#lowest(node.right, Math.max(low, node.end), high, size, align);
  }

  /** Highest place among the holes of the subtree `node` and the ones beside it, inside [low, high). */
  #highest(node: RangeNode<T> | null, low: number, high: number, size: number, align: number): number {
    if (node === null) {
      const start = high - size;
      const aligned = start - (start % align);
      return start >= low && aligned >= low ? aligned : NOWHERE;
    }
    if (!roomAround(node, low, high, size)) return NOWHERE;
    const above = this.#highest(node.right, Math.max(low, node.end), high, size, align);
    return above !== NOWHERE ? above : this.#highest(node.left, low, Math.min(high, node.start), size, align);
  }
}

/** May a hole of `size` be in the subtree or beside it, inside [low, high)? Alignment not considered. */
function roomAround<T>(node: RangeNode<T>, low: number, high: number, size: number): boolean {
  if (high - low < size) return false;
  return node.hole >= size || node.first - low >= size || high - node.last >= size;
}

/** Unlike `ceil(a / b) * b`, exact for all integers up to 2^53. */
function roundUp(value: number, align: number): number {
  const over = value % align;
  return over === 0 ? value : value + (align - over);
}
