/**
 * The nodes of one range tree. Each has spans in ascending order; the bounds of all of them lie in arrays that the nodes share,
 * as a search through nodes that were objects would miss the cache several times in each.
 *
 * Linux: struct maple_node of include/linux/maple_tree.h (pivots, gaps, slots). A node is a number and owns the WIDTH places
 * from `node * WIDTH` on. In a leaf a span is a range. Above the leaves it is what a lower node holds: where that begins, where
 * it ends, and its largest hole. Behind the spans of a node there is a free place, its bounds Infinity, at which searches stop.
 * Memory is kept for as many nodes as there were at a time.
 */
import { assert } from './errors.js';

/** Even. With more places, searches in a node take longer than levels save; with fewer, the other way round. */
const WIDTH = 24;

export class RangeNodes<T> {
  starts = new Float64Array(0);
  ends = new Float64Array(0);
  /** Largest hole inside of each span. */
  holes = new Float64Array(0);
  /** A value in a leaf, above it the number of a node. */
  readonly #slots: (T | number | undefined)[] = [];
  /** Spans of each node. */
  readonly #lengths: number[] = [];
  /** Nodes that may be allocated again. */
  readonly #free: number[] = [];

  /** A node without spans. */
  allocate(): number {
    const node = this.#free.pop() ?? this.#lengths.push(0) - 1;
    if ((node + 1) * WIDTH > this.starts.length) this.#grow();
    return node;
  }

  /** Precondition: `node` has no spans, and no span stands for it. */
  free(node: number): void {
    assert(this.#lengths[node] === 0, () => `node ${node} is given back with ${this.#lengths[node]} spans`);
    this.#free.push(node);
  }

  length(node: number): number {
    return this.#lengths[node]!;
  }

  /** Place of the first span. */
  first(node: number): number {
    return node * WIDTH;
  }

  /** Place of the last span that starts at `point` or below; when none does, of the first one. Precondition: `point` is finite. */
  lastStartingUpTo(node: number, point: number): number {
    const { starts } = this;
    let place = node * WIDTH;
    while (starts[place + 1]! <= point) place++;
    return place;
  }

  /** Place of the first span that ends after `point`; when none does, a free one. Precondition: `point` is finite. */
  firstEndingAfter(node: number, point: number): number {
    const { ends } = this;
    let place = node * WIDTH;
    while (ends[place]! <= point) place++;
    return place;
  }

  /** Precondition: the place is not in a leaf. */
  child(place: number): number {
    return this.#slots[place] as number;
  }

  /** Precondition: the place is in a leaf. */
  value(place: number): T {
    return this.#slots[place] as T;
  }

  /** Afterwards the node may be full: see `split`. */
  insert(node: number, place: number, start: number, end: number, slot: T | number): void {
    const length = this.#lengths[node]!++;
    this.#move(place, place + 1, node * WIDTH + length - place);
    this.#set(place, start, end, 0, slot);
  }

  insertChild(node: number, place: number, child: number): void {
    this.insert(node, place, 0, 0, child);
    this.refresh(place);
  }

  remove(node: number, place: number): void {
    const length = --this.#lengths[node]!;
    this.#move(place + 1, place, node * WIDTH + length - place);
    this.#clear(node * WIDTH + length);
  }

  /** The node that the span stands for has changed. Precondition: it has spans. */
  refresh(place: number): void {
    const { starts, ends, holes } = this;
    const child = this.child(place);
    const first = child * WIDTH;
    const last = first + this.#lengths[child]! - 1;
    let hole = holes[first]!;
    for (let at = first + 1; at <= last; at++) hole = Math.max(hole, starts[at]! - ends[at - 1]!, holes[at]!);
    this.#set(place, starts[first]!, ends[last]!, hole, child);
  }

  /** Give the upper half away if no place is free. @returns the node that has it, otherwise `null` */
  split(node: number): number | null {
    if (this.#lengths[node]! < WIDTH) return null;
    const upper = this.allocate();
    this.#transfer(node, WIDTH / 2, upper);
    return upper;
  }

  /** Give `lower` the spans of its neighbour, and that back, if they fill half a node. @returns whether they did */
  join(lower: number, upper: number): boolean {
    if (this.#lengths[lower]! + this.#lengths[upper]! > WIDTH / 2) return false;
    this.#transfer(upper, 0, lower);
    this.free(upper);
    return true;
  }

  /** Append all spans of `from`, but for the first `kept`, to those of `to`. */
  #transfer(from: number, kept: number, to: number): void {
    const count = this.#lengths[from]! - kept;
    const first = from * WIDTH + kept;
    this.#move(first, to * WIDTH + this.#lengths[to]!, count);
    for (let place = first; place < first + count; place++) this.#clear(place);
    this.#lengths[from]! -= count;
    this.#lengths[to]! += count;
  }

  /** Copy `count` spans to places that may overlap theirs. */
  #move(from: number, to: number, count: number): void {
    if (to < from) for (let i = 0; i < count; i++) this.#copy(from + i, to + i);
    else for (let i = count - 1; i >= 0; i--) this.#copy(from + i, to + i);
  }

  #copy(from: number, to: number): void {
    this.#set(to, this.starts[from]!, this.ends[from]!, this.holes[from]!, this.#slots[from]);
  }

  #clear(place: number): void {
    this.#set(place, Infinity, Infinity, 0, undefined);
  }

  #set(place: number, start: number, end: number, hole: number, slot: T | number | undefined): void {
    this.starts[place] = start;
    this.ends[place] = end;
    this.holes[place] = hole;
    this.#slots[place] = slot;
  }

  /** Room for twice as many nodes. */
  #grow(): void {
    const places = Math.max(WIDTH, this.starts.length * 2);
    this.starts = lengthened(this.starts, places, Infinity);
    this.ends = lengthened(this.ends, places, Infinity);
    this.holes = lengthened(this.holes, places, 0);
    while (this.#slots.length < places) this.#slots.push(undefined);
  }
}

function lengthened(array: Float64Array, length: number, fill: number): Float64Array<ArrayBuffer> {
  const longer = new Float64Array(length).fill(fill, array.length);
  longer.set(array);
  return longer;
}
