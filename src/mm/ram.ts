/** The contents of RAM: one SharedArrayBuffer, and the views through which page tables and data are read and written. */
import { PAGE_SIZE, PTRS_PER_TABLE } from '../abi/address.js';
import type { FrameIndex } from '../base/brand.js';

/**
 * Freed frames hold this in checked runs, eight bytes that say `poisoned`: what no program fills a page with by accident, and an
 * ordinary double, which compares faster than a bigint.
 */
const POISON = new Float64Array(Uint8Array.from('poisoned', (letter) => letter.charCodeAt(0)).buffer)[0]!;

export class Ram {
  readonly buffer: SharedArrayBuffer;
  /** Frames that there are. */
  readonly frames: number;
  /** The memory as 64-bit words: a page table in frame f has its entries at f * 512. */
  readonly words: BigUint64Array;
  /** The words as 32-bit halves, the low half of word w at 2 * w (abi/pte-halves.ts). */
  readonly halves: Int32Array;
  /** The same words where only their bits count: to fill, to compare, and to find those that are not zero. */
  readonly floats: Float64Array;

  /** @param frames frames of 4 KiB, holes of the physical map inside sections included (they are never touched) */
  constructor(frames: number) {
    this.buffer = new SharedArrayBuffer(frames * PAGE_SIZE);
    this.frames = frames;
    this.words = new BigUint64Array(this.buffer);
    this.halves = new Int32Array(this.buffer);
    this.floats = new Float64Array(this.buffer);
  }

  /** Bytes of one frame. There is no view of all bytes: an engine's arrays end at 2^32 elements, RAM may not. */
  bytes(frame: FrameIndex, offset = 0, length = PAGE_SIZE - offset): Uint8Array {
    return new Uint8Array(this.buffer, frame * PAGE_SIZE + offset, length);
  }

  zeroFrame(frame: FrameIndex): void {
    const at = frame * PTRS_PER_TABLE;
    this.floats.fill(0, at, at + PTRS_PER_TABLE);
  }

  copyFrame(from: FrameIndex, to: FrameIndex): void {
    this.floats.copyWithin(to * PTRS_PER_TABLE, from * PTRS_PER_TABLE, (from + 1) * PTRS_PER_TABLE);
  }

  poisonFrame(frame: FrameIndex): void {
    const at = frame * PTRS_PER_TABLE;
    this.floats.fill(POISON, at, at + PTRS_PER_TABLE);
  }

  /** Does the frame hold nothing but zeroes? (As integers: minus zero is not zero.) */
  isZero(frame: FrameIndex): boolean {
    const { halves } = this;
    const end = 2 * (frame + 1) * PTRS_PER_TABLE;
    for (let at = 2 * frame * PTRS_PER_TABLE; at < end; at++) if (halves[at] !== 0) return false;
    return true;
  }

  /** Has nobody written the frame since `poisonFrame`? */
  isPoisoned(frame: FrameIndex): boolean {
    const floats = this.floats;
    const end = (frame + 1) * PTRS_PER_TABLE;
    for (let at = frame * PTRS_PER_TABLE; at < end; at++) if (floats[at] !== POISON) return false;
    return true;
  }
}
