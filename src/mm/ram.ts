/** The contents of RAM: one SharedArrayBuffer, and the views through which page tables and data are read and written. */
import { PAGE_SIZE, PTRS_PER_TABLE } from '../abi/address.js';
import type { FrameIndex } from '../base/brand.js';
import { type PageBytes, viewPages } from '../base/page-bytes.js';

const ZEROES = new Uint8Array(PAGE_SIZE);
/** Freed frames hold this in checked runs: what no program fills a page with by accident. */
const POISON = Uint8Array.from({ length: PAGE_SIZE }, (_, at) => 'poisoned'.charCodeAt(at % 8));

/** Frames that one view shows: 1 GiB. */
const VIEW_FRAMES = 2 ** 18;

export class Ram {
  readonly buffer: SharedArrayBuffer;
  /** Frames that there are. */
  readonly frames: number;
  /** The memory as 64-bit words: a page table in frame f has its entries at f * 512. */
  readonly words: BigUint64Array;
  /** The words as 32-bit halves, the low half of word w at 2 * w (abi/pte-halves.ts). */
  readonly halves: Int32Array;
  /** The same words where only their bits count: to copy, and to find those that are not zero. */
  readonly floats: Float64Array;
  readonly #views: readonly PageBytes[];

  /** @param frames frames of 4 KiB, holes of the physical map inside sections included (they are never touched) */
  constructor(frames: number) {
    this.buffer = new SharedArrayBuffer(frames * PAGE_SIZE);
    this.frames = frames;
    this.words = new BigUint64Array(this.buffer);
    this.halves = new Int32Array(this.buffer);
    this.floats = new Float64Array(this.buffer);
    this.#views = Array.from({ length: Math.ceil(frames / VIEW_FRAMES) }, (_, at) => {
      const first = at * VIEW_FRAMES;
      return viewPages(this.buffer, first * PAGE_SIZE, Math.min(VIEW_FRAMES, frames - first) * PAGE_SIZE);
    });
  }

  /** Bytes of one frame. There is no view of all bytes: an engine's arrays end at 2^32 elements, RAM may not. */
  bytes(frame: FrameIndex, offset = 0, length = PAGE_SIZE - offset): Uint8Array {
    return new Uint8Array(this.buffer, frame * PAGE_SIZE + offset, length);
  }

  zeroFrame(frame: FrameIndex): void {
    this.#put(frame, ZEROES);
  }

  copyFrame(from: FrameIndex, to: FrameIndex): void {
    this.floats.copyWithin(to * PTRS_PER_TABLE, from * PTRS_PER_TABLE, (from + 1) * PTRS_PER_TABLE);
  }

  poisonFrame(frame: FrameIndex): void {
    this.#put(frame, POISON);
  }

  /** Does the frame hold nothing but zeroes? */
  isZero(frame: FrameIndex): boolean {
    return this.#holds(frame, ZEROES);
  }

  /** Has nobody written the frame since `poisonFrame`? */
  isPoisoned(frame: FrameIndex): boolean {
    return this.#holds(frame, POISON);
  }

  #put(frame: FrameIndex, page: Uint8Array): void {
    this.#views[Math.floor(frame / VIEW_FRAMES)]!.put((frame % VIEW_FRAMES) * PAGE_SIZE, page);
  }

  #holds(frame: FrameIndex, page: Uint8Array): boolean {
    return this.#views[Math.floor(frame / VIEW_FRAMES)]!.holds((frame % VIEW_FRAMES) * PAGE_SIZE, page);
  }
}
