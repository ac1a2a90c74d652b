/**
 * Which frames of a device's memory are free, single ones and whole blocks of 2 MiB.
 *
 * Single frames come from blocks that are broken already, ascending, so that neighbours make long runs for the copy engine; a
 * block of which nothing is used any more is whole again.
 */
import { HPAGE_PMD_NR } from '../abi/address.js';

export const BLOCK_PAGES = HPAGE_PMD_NR;

const NONE = -1;

export class FrameAllocator {
  /** 1 for a free frame. */
  readonly #free: Uint8Array;
  /** By block: free frames. */
  readonly #freeIn: Int32Array;
  /** Blocks of which every frame is free, and of which some are, oldest first; but for the open one. */
  readonly #whole = new Set<number>();
  readonly #broken = new Set<number>();
  /** Block that single frames are taken from, until it has none left, and where in it the search goes on. */
  #open = NONE;
  #cursor = 0;

  constructor(frames: number) {
    const blocks = Math.ceil(frames / BLOCK_PAGES);
    this.#free = new Uint8Array(frames);
    this.#freeIn = new Int32Array(blocks);
  }

  /** Hand frames to the allocator. Precondition: `first` begins a block. */
  add(first: number, frames: number): void {
    this.#free.fill(1, first, first + frames);
    for (let at = first; at < first + frames; at += BLOCK_PAGES) {
      const block = at / BLOCK_PAGES;
      this.#freeIn[block] = Math.min(BLOCK_PAGES, first + frames - at);
      // The memory may end in the middle of a block.
      if (this.#isWhole(block)) this.#whole.add(block);
      else this.#broken.add(block);
    }
  }

  /** Forget all frames. */
  clear(): void {
    this.#free.fill(0);
    this.#freeIn.fill(0);
    this.#whole.clear();
    this.#broken.clear();
    this.#open = NONE;
    this.#cursor = 0;
  }

  /** A free frame, or -1. */
  take(): number {
    if (this.#open === NONE || this.#freeIn[this.#open] === 0) {
      // A broken one if there is any: whole ones are for folios of 2 MiB.
      this.#open = this.#pop(this.#broken.size > 0 ? this.#broken : this.#whole);
      this.#cursor = this.#open * BLOCK_PAGES;
      if (this.#open === NONE) return NONE;
    }
    const end = (this.#open + 1) * BLOCK_PAGES;
    // Mostly the next one: the search is a call.
    let frame = this.#free[this.#cursor] === 1 ? this.#cursor : this.#free.indexOf(1, this.#cursor);
    if (frame < 0 || frame >= end) frame = this.#free.indexOf(1, this.#open * BLOCK_PAGES);
    this.#cursor = frame + 1;
    this.#free[frame] = 0;
    this.#freeIn[this.#open]--;
    return frame;
  }

  /** First frame of a free block of 2 MiB, or -1. */
  takeBlock(): number {
    let block = this.#pop(this.#whole);
    if (block === NONE) {
      // The block that single frames are taken from may have become whole meanwhile.
      if (this.#open === NONE || !this.#isWhole(this.#open)) return NONE;
      block = this.#open;
      this.#open = NONE;
    }
    this.#freeIn[block] = 0;
    this.#free.fill(0, block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES);
    return block * BLOCK_PAGES;
  }

  /** Precondition: the frames are in use, and in one block. */
  give(first: number, frames: number): void {
    const block = Math.floor(first / BLOCK_PAGES);
    if (frames === 1) this.#free[first] = 1;
    else this.#free.fill(1, first, first + frames);
    const was = this.#freeIn[block];
    this.#freeIn[block] = was + frames;
    if (block === this.#open) return;
    if (this.#isWhole(block)) {
      this.#broken.delete(block);
      this.#whole.add(block);
    } else if (was === 0) {
      this.#broken.add(block);
    }
  }

  #pop(blocks: Set<number>): number {
    for (const block of blocks) {
      blocks.delete(block);
      return block;
    }
    return NONE;
  }

  #isWhole(block: number): boolean {
    return this.#freeIn[block] === BLOCK_PAGES;
  }
}
