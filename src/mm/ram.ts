/** The contents of RAM: one SharedArrayBuffer, and the views through which page tables and data are read and written. */
import { PAGE_SIZE, PTRS_PER_TABLE } from '../abi/address.js';
import type { FrameIndex } from '../base/brand.js';

export class Ram {
  readonly buffer: SharedArrayBuffer;
  readonly bytes: Uint8Array;
  /** The same memory as 64-bit words: a page table in frame f has its entries at f * 512. */
  readonly words: BigUint64Array;
  /** The words as 32-bit halves, the low half of word w at 2 * w (abi/pte-halves.ts). */
  readonly halves: Int32Array;

  /** @param frames frames of 4 KiB, holes of the physical map inside sections included (they are never touched) */
  constructor(frames: number) {
    this.buffer = new SharedArrayBuffer(frames * PAGE_SIZE);
    this.bytes = new Uint8Array(this.buffer);
    this.words = new BigUint64Array(this.buffer);
    this.halves = new Int32Array(this.buffer);
  }

  zeroFrame(frame: FrameIndex): void {
    const at = frame * PTRS_PER_TABLE;
    this.words.fill(0n, at, at + PTRS_PER_TABLE);
  }

  copyFrame(from: FrameIndex, to: FrameIndex): void {
    this.bytes.copyWithin(to * PAGE_SIZE, from * PAGE_SIZE, (from + 1) * PAGE_SIZE);
  }
}
