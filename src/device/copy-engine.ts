/**
 * The copy engine: moves runs of pages between memories, in slices, so that an invalidation never waits for a long run.
 *
 * It holds its own reference on every struct page of a run from before the first byte until after the last, as a DMA mapping
 * would keep pages from being freed. The fence of a run is published after the references are dropped, so that whoever
 * waits for it finds the counts as they were. Counterpart: nouveau_dmem's and amdgpu's SDMA copies.
 */
import { PAGE_SIZE } from '../abi/address.js';
import {
  COPY_FAIL,
  COPY_LATE_SHIFT,
  COPY_PACKET,
  COPY_QUIET,
  COPY_ZERO,
  sourceMemory,
  targetMemory,
} from '../abi/packet.js';
import { QUEUE_HEADER, RINGS } from '../abi/queue.js';
import type { Page } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { pageRefAddRun } from '../sync/page-ref.js';
import { RingConsumer } from '../sync/ring.js';
import { store32 } from '../sync/word.js';
import { type ReachableMemory, WINDOW_PAGES, windowOffset } from './memory.js';

/** Pages copied before the engine looks at its other rings again: 1 MiB, some 50 microseconds. */
const SLICE_PAGES = 256;

const { word: WORD } = COPY_PACKET;

export class CopyEngine {
  copiedPages = 0;
  readonly #ring: RingConsumer;
  readonly #memory: ReachableMemory;
  readonly #memmap: Int32Array;
  /** Pages of the oldest packet that are copied already. */
  #progress = 0;
  /** Times that the oldest packet was passed over (fault injection). */
  #passed = 0;

  constructor(queue: SharedArrayBuffer, memory: ReachableMemory, memmap: SharedArrayBuffer) {
    this.#ring = new RingConsumer(queue, RINGS.copies);
    this.#memory = memory;
    this.#memmap = new Int32Array(memmap);
  }

  get pending(): boolean {
    return this.#ring.pending() > 0;
  }

  /** Is the oldest packet late (fault injection)? Then other work goes first, this time. Precondition: `pending`. */
  passOver(): boolean {
    const late = this.#ring.words[this.#ring.peek() + WORD.memories]! >>> COPY_LATE_SHIFT;
    if (late === 0 || this.#passed >= late) return false;
    this.#passed++;
    return true;
  }

  /**
   * Copy at most one slice of the oldest run. Precondition: `pending`.
   * @returns true when that published a fence for which somebody may wait
   */
  step(): boolean {
    const { words } = this.#ring;
    const at = this.#ring.peek();
    const pages = words[at + WORD.pages]! >>> 0;
    if ((words[at + WORD.memories]! & COPY_FAIL) !== 0 || !this.#reachable(at, pages)) return this.#finish(at, true);
    if (this.#progress === 0) this.#hold(at, pages, 1);
    const done = this.#copy(at, this.#progress, Math.min(pages - this.#progress, SLICE_PAGES));
    this.#progress += done;
    this.copiedPages += done;
    if (this.#progress < pages) return false;
    this.#hold(at, pages, -1);
    return this.#finish(at, false);
  }

  /** A reset: all packets that wait have failed, the one under way as well. */
  abort(): void {
    const { words } = this.#ring;
    while (this.pending) {
      const at = this.#ring.peek();
      if (this.#progress > 0) this.#hold(at, words[at + WORD.pages]! >>> 0, -1);
      this.#finish(at, true);
    }
  }

  /** Returns whether to tell the host. */
  #finish(at: number, failed: boolean): boolean {
    const { words } = this.#ring;
    const sequence = words[at + WORD.sequence]!;
    const quiet = (words[at + WORD.memories]! & COPY_QUIET) !== 0;
    this.#progress = 0;
    this.#passed = 0;
    this.#ring.release();
    if (failed) store32(words, QUEUE_HEADER.word.copyError, sequence);
    store32(words, QUEUE_HEADER.word.copyFence, sequence);
    return !quiet || !this.pending;
  }

  /** Is there a link to both memories, and do they have the frames? */
  #reachable(at: number, pages: number): boolean {
    const { words } = this.#ring;
    const memories = words[at + WORD.memories]!;
    const inside = (memory: number, frame: number): boolean => (frame >>> 0) + pages <= this.#memory.pages(memory);
    return (
      inside(targetMemory(memories), words[at + WORD.targetFrame]!) &&
      ((memories & COPY_ZERO) !== 0 || inside(sourceMemory(memories), words[at + WORD.sourceFrame]!))
    );
  }

  /** Copy up to `count` pages of a run, not further than the windows reach. @returns pages copied */
  #copy(at: number, from: number, count: number): number {
    const { words } = this.#ring;
    const memories = words[at + WORD.memories]!;
    const targetFrame = (words[at + WORD.targetFrame]! >>> 0) + from;
    const target = this.#memory.window(targetMemory(memories), targetFrame)!;
    const targetAt = windowOffset(targetFrame);
    const room = Math.min(count, WINDOW_PAGES - (targetFrame % WINDOW_PAGES));
    if ((memories & COPY_ZERO) !== 0) {
      // As doubles: filling shared memory byte by byte takes five times as long.
      target.f64.fill(0, targetAt / 8, (targetAt + room * PAGE_SIZE) / 8);
      return room;
    }
    const sourceFrame = (words[at + WORD.sourceFrame]! >>> 0) + from;
    const source = this.#memory.window(sourceMemory(memories), sourceFrame)!.u8;
    const sourceAt = windowOffset(sourceFrame);
    const pages = Math.min(room, WINDOW_PAGES - (sourceFrame % WINDOW_PAGES));
    target.u8.set(source.subarray(sourceAt, sourceAt + pages * PAGE_SIZE), targetAt);
    return pages;
  }

  /** Add `delta` to the references of the struct pages of a run, where it names any. */
  #hold(at: number, pages: number, delta: 1 | -1): void {
    const { words } = this.#ring;
    for (const first of [words[at + WORD.sourcePage]! >>> 0, words[at + WORD.targetPage]! >>> 0]) {
      if (first === 0) continue;
      const others = pageRefAddRun(this.#memmap, first as Page, pages, delta);
      assert(others > 0, () => `copy engine: a struct page of ${first}..${first + pages - 1} is free under its copy`);
    }
  }
}
