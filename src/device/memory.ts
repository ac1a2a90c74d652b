/**
 * The memories that a device reaches, as typed views. A memory may have 8 GiB, more than one typed array can cover, so each is
 * cut into windows of 1 GiB; byte offsets inside a window are small integers, which is what makes accesses fast.
 */
import { PAGE_SHIFT, PAGE_SIZE } from '../abi/address.js';
import type { MemoryId } from '../abi/device-pte.js';

const WINDOW_SHIFT = 30;
/** Pages of a window. */
export const WINDOW_PAGES = 2 ** (WINDOW_SHIFT - PAGE_SHIFT);

/** Up to 1 GiB of one memory. */
export class MemoryWindow {
  readonly u8: Uint8Array;
  readonly i32: Int32Array;
  readonly u32: Uint32Array;
  readonly f32: Float32Array;
  readonly f64: Float64Array;

  constructor(buffer: SharedArrayBuffer, offset: number, bytes: number) {
    this.u8 = new Uint8Array(buffer, offset, bytes);
    this.i32 = new Int32Array(buffer, offset, bytes / 4);
    this.u32 = new Uint32Array(buffer, offset, bytes / 4);
    this.f32 = new Float32Array(buffer, offset, bytes / 4);
    this.f64 = new Float64Array(buffer, offset, bytes / 8);
  }
}

/** Stands where no memory is. */
export const NO_WINDOW = new MemoryWindow(new SharedArrayBuffer(8), 0, 8);

/** Byte offset of a frame in its window: below 2^30. */
export const windowOffset = (frame: number): number => (frame % WINDOW_PAGES) << PAGE_SHIFT;

/** All the memories that a device reaches: RAM, its own, and its peers'. */
export class ReachableMemory {
  readonly #windows: readonly (readonly MemoryWindow[])[];
  readonly #pages: readonly number[];

  /** @param memories by memory id; `undefined` where there is no link. Each holds whole pages. */
  constructor(memories: readonly (SharedArrayBuffer | undefined)[]) {
    this.#windows = memories.map((buffer) => (buffer === undefined ? [] : cut(buffer)));
    this.#pages = memories.map((buffer) => (buffer === undefined ? 0 : Math.floor(buffer.byteLength / PAGE_SIZE)));
  }

  /** Pages of a memory, 0 where there is no link. */
  pages(memory: MemoryId): number {
    return this.#pages[memory] ?? 0;
  }

  /** The window that holds a frame. `undefined` when the frame cannot be reached. */
  window(memory: MemoryId, frame: number): MemoryWindow | undefined {
    return frame < this.pages(memory) ? this.#windows[memory]![Math.floor(frame / WINDOW_PAGES)] : undefined;
  }
}

function cut(buffer: SharedArrayBuffer): readonly MemoryWindow[] {
  const bytes = Math.floor(buffer.byteLength / PAGE_SIZE) * PAGE_SIZE;
  const windows: MemoryWindow[] = [];
  for (let offset = 0; offset < bytes; offset += 2 ** WINDOW_SHIFT) {
    windows.push(new MemoryWindow(buffer, offset, Math.min(2 ** WINDOW_SHIFT, bytes - offset)));
  }
  return windows;
}
