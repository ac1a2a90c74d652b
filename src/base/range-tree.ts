/**
 * Ranges that do not overlap, found by a point or by the free space between them, each in O(log n).
 *
 * Linux: lib/maple_tree.c (mtree_load, mas_find, mas_prev, mtree_alloc_range): a B-tree here as there. Serves VMAs, the device
 * private address space, the children of the iomem root and the slots of the memmap. Bounds are integers from 0 to 2^53; a range
 * is [start, end). No RCU: the kernel model runs on one thread.
 */
import { assert } from './errors.js';
import { RangeNodes } from './range-nodes.js';

/** A stored range [start, end), as it was when it was asked for. */
export interface Range<T> {
  readonly start: number;
  readonly end: number;
  readonly value: T;
}

/** No such place. Places are never negative. */
const NOWHERE = -1;

export class RangeTree<T> {
  readonly #nodes = new RangeNodes<T>();
  #root = this.#nodes.allocate();
  /** Levels above the leaves. */
  #height = 0;
  #size = 0;

  /** Ranges in the tree. */
  get size(): number {
    return this.#size;
  }

  /** Add [start, end). @returns false, and changes nothing, when it overlaps a range that is there */
  insert(start: number, end: number, value: T): boolean {
    assert(start >= 0 && start < end, () => `not a range: [${start}, ${end})`);
    if (this.overlaps(start, end)) return false;
    this.#add(start, end, value);
    return true;
  }

  /** Remove the range which starts at exactly `start`. @returns its value, `undefined` when there is none */
  remove(start: number): T | undefined {
    const nodes = this.#nodes;
    const place = this.#lastStartingUpTo(start);
    if (nodes.starts[place] !== start) return undefined;
    const value = nodes.value(place);
    this.#without(this.#root, this.#height, start);
    while (this.#height > 0 && nodes.length(this.#root) === 1) this.#lower();
    this.#size--;
    return value;
  }

  /** The value of the range that contains `point`. */
  find(point: number): T | undefined {
    const place = this.#lastStartingUpTo(point);
    const { starts, ends } = this.#nodes;
    return starts[place]! <= point && point < ends[place]! ? this.#nodes.value(place) : undefined;
  }

  /** The range that contains `point`, or the next one above it (`find_vma`). */
  firstEndingAfter(point: number): Range<T> | undefined {
    const nodes = this.#nodes;
    let place = nodes.firstEndingAfter(this.#root, point);
    if (nodes.ends[place] === Infinity) return undefined;
    for (let level = this.#height; level > 0; level--) place = nodes.firstEndingAfter(nodes.child(place), point);
    return this.#at(place);
  }

  /** The last range that starts below `point`; it may contain `point`. */
  previous(point: number): Range<T> | undefined {
    const place = this.#lastStartingUpTo(point - 1);
    return this.#nodes.starts[place]! < point ? this.#at(place) : undefined;
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
    const start = lowest(this.#nodes, this.#root, min, max, size, align);
    return start === NOWHERE ? undefined : start;
  }

  /** Highest start, a multiple of `align`, of `size` free units inside [min, max). Cost as `lowestGap`. */
  highestGap(size: number, min: number, max: number, align = 1): number | undefined {
    assert(size > 0 && min >= 0 && align > 0, () => `no gap of size ${size} from ${min} aligned to ${align}`);
    const start = highest(this.#nodes, this.#root, min, max, size, align);
    return start === NOWHERE ? undefined : start;
  }

  /** Take the place that `lowestGap` finds. @returns its start */
  allocateLowest(size: number, min: number, max: number, align: number, value: T): number | undefined {
    const start = this.lowestGap(size, min, max, align);
    if (start !== undefined) this.#add(start, start + size, value);
    return start;
  }

  #at(place: number): Range<T> {
    const { starts, ends } = this.#nodes;
    return { start: starts[place]!, end: ends[place]!, value: this.#nodes.value(place) };
  }

  /** Place of the last range that starts at `point` or below it; when none does, of a place that starts above. */
  #lastStartingUpTo(point: number): number {
    const nodes = this.#nodes;
    let place = nodes.lastStartingUpTo(this.#root, point);
    for (let level = this.#height; level > 0; level--) place = nodes.lastStartingUpTo(nodes.child(place), point);
    return place;
  }

  #add(start: number, end: number, value: T): void {
    const upper = this.#with(this.#root, this.#height, start, end, value);
    if (upper !== null) this.#raise(upper);
    this.#size++;
  }

  /** Put a range below `node`. @returns the node that took the upper half of its spans, if they were too many */
  #with(node: number, level: number, start: number, end: number, value: T): number | null {
    const nodes = this.#nodes;
    const place = nodes.lastStartingUpTo(node, start);
    if (level === 0) nodes.insert(node, nodes.starts[place]! < start ? place + 1 : place, start, end, value);
    else {
      const upper = this.#with(nodes.child(place), level - 1, start, end, value);
      nodes.refresh(place);
      if (upper !== null) nodes.insertChild(node, place + 1, upper);
    }
    return nodes.split(node);
  }

  /** A new root above the present one and its neighbour. */
  #raise(upper: number): void {
    const nodes = this.#nodes;
    const root = nodes.allocate();
    nodes.insertChild(root, nodes.first(root), this.#root);
    nodes.insertChild(root, nodes.first(root) + 1, upper);
    this.#root = root;
    this.#height++;
  }

  /** Take away the range that starts at `start`. Precondition: it is below `node`. */
  #without(node: number, level: number, start: number): void {
    const nodes = this.#nodes;
    const place = nodes.lastStartingUpTo(node, start);
    if (level === 0) {
      nodes.remove(node, place);
      return;
    }
    const child = nodes.child(place);
    this.#without(child, level - 1, start);
    if (nodes.length(child) === 0) {
      nodes.remove(node, place);
      nodes.free(child);
    } else {
      nodes.refresh(place);
      this.#join(node, place);
    }
    if (place > nodes.first(node)) this.#join(node, place - 1);
  }

  /** Make one child of this and the next, if they are small. */
  #join(node: number, place: number): void {
    const nodes = this.#nodes;
    const isLast = nodes.starts[place + 1] === Infinity;
    if (isLast || !nodes.join(nodes.child(place), nodes.child(place + 1))) return;
    nodes.remove(node, place + 1);
    nodes.refresh(place);
  }

  /** The root's only child becomes the root. */
  #lower(): void {
    const nodes = this.#nodes;
    const root = this.#root;
    this.#root = nodes.child(nodes.first(root));
    nodes.remove(root, nodes.first(root));
    nodes.free(root);
    this.#height--;
  }
}

/** Lowest place in the holes below `node` and beside it, inside [low, high). */
function lowest<T>(nodes: RangeNodes<T>, node: number, low: number, high: number, size: number, align: number): number {
  const { starts, ends, holes } = nodes;
  for (let place = nodes.firstEndingAfter(node, low); high - low >= size; place++) {
    const below = lowestIn(low, Math.min(starts[place]!, high), size, align);
    const isFree = ends[place] === Infinity;
    if (below !== NOWHERE || isFree) return below;
    if (holes[place]! >= size) {
      const from = Math.max(starts[place]!, low);
      const inside = lowest(nodes, nodes.child(place), from, Math.min(ends[place]!, high), size, align);
      if (inside !== NOWHERE) return inside;
    }
    low = ends[place]!;
  }
  return NOWHERE;
}

/** Highest place in the holes below `node` and beside it, inside [low, high). */
function highest<T>(
  nodes: RangeNodes<T>,
  node: number,
  low: number,
  high: number,
  size: number,
  align: number,
): number {
  const { starts, ends, holes } = nodes;
  const first = nodes.first(node);
  for (let place = nodes.lastStartingUpTo(node, high); place >= first && high - low >= size; place--) {
    const above = highestIn(Math.max(ends[place]!, low), high, size, align);
    if (above !== NOWHERE) return above;
    if (holes[place]! >= size) {
      const from = Math.max(starts[place]!, low);
      const inside = highest(nodes, nodes.child(place), from, Math.min(ends[place]!, high), size, align);
      if (inside !== NOWHERE) return inside;
    }
    high = Math.min(starts[place]!, high);
  }
  return highestIn(low, high, size, align);
}

function lowestIn(low: number, high: number, size: number, align: number): number {
  if (high - low < size) return NOWHERE;
  const start = roundUp(low, align);
  return high - start >= size ? start : NOWHERE;
}

function highestIn(low: number, high: number, size: number, align: number): number {
  if (high - low < size) return NOWHERE;
  const start = high - size;
  const aligned = start - (start % align);
  return aligned >= low ? aligned : NOWHERE;
}

/** Unlike `ceil(a / b) * b`, exact for all integers up to 2^53. */
function roundUp(value: number, align: number): number {
  const over = value % align;
  return over === 0 ? value : value + (align - over);
}
