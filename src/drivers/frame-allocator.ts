/**
 * Which frames of a device's memory are free, single ones and whole blocks of 2 MiB.
 *
 * Single frames come from blocks that are broken already, ascending, so that neighbours make long runs for the copy engine; a
 * block of which nothing is used any more is whole again, and the next one to be taken: the host has its memory, and its caches may.
 */
import { HPAGE_PMD_NR } from '../abi/address.js';

export const BLOCK_PAGES = HPAGE_PMD_NR;

const NONE = -1;

export class FrameAllocator {
  /** 1 for a free frame. */
  readonly #free: Uint8Array;
  /** By block: free frames. */
  readonly #freeIn: Int32Array;
  /** Blocks of which every frame is free, the next one last; but for the open one. */
  readonly #whole: number[] = [];
  /** Blocks of which some frames are, oldest first; but for the open one. */
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
    const blocks = Math.ceil(frames / BLOCK_PAGES);
    for (let block = first / BLOCK_PAGES + blocks - 1; block >= first / BLOCK_PAGES; block--) {
      this.#freeIn[block] = Math.min(BLOCK_PAGES, first + frames - block * BLOCK_PAGES);
      // The memory may end in the middle of a block.
      if (this.#isWhole(block)) this.#whole.push(block);
      else this.#broken.add(block);
    }
  }

  /** Forget all frames. */
  clear(): void {
    this.#free.fill(0);
    this.#freeIn.fill(0);
    this.#whole.length = 0;
    this.#broken.clear();
    this.#open = NONE;
    this.#cursor = 0;
  }

  /** A free frame, or -1. */
  take(): number {
    if (this.#open === NONE || this.#freeIn[this.#open] === 0) {
      // A broken one if there is any: whole ones are for folios of 2 MiB.
      this.#open = this.#oldestBroken() ?? this.#whole.pop() ?? NONE;
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
    let block = this.#whole.pop();
    if (block === undefined) {
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
      this.#whole.push(block);
    } else if (was === 0) {
      this.#broken.add(block);
    }
  }

  #oldestBroken(): number | undefined {
    for (const block of this.#broken) {
      this.#broken.delete(block);
      return block;
    }
    return undefined;
  }

  #isWhole(block: number): boolean {
    return this.#freeIn[block] === BLOCK_PAGES;
  }
}
