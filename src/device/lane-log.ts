/**
 * What an abandoned lane had completed: one double for each operation, in order (loads and atomics: the value that came back;
 * stores and barriers: a place only). A running lane writes the one working log of its `Lane`; a parked lane keeps its
 * log in a buffer from this pool.
 */

/** Operations of one lane: its log must hold them all (128 MiB). */
export const LANE_OPERATIONS_MAX = 2 ** 24;

/** Bytes that the pool keeps for later; what is above is left to the garbage collector. */
const POOLED_BYTES_MAX = 2 ** 24;
const SMALLEST = 16;

const log2Ceil = (n: number): number => 32 - Math.clz32(n - 1);

export class LaneLogPool {
  /** Free buffers by log2 of their length. */
  readonly #free: Float64Array[][] = [];
  #pooledBytes = 0;

  /** A buffer of at least `count` entries, with any content. */
  take(count: number): Float64Array {
    const size = log2Ceil(Math.max(count, SMALLEST));
    const buffer = this.#free[size]?.pop();
    if (buffer === undefined) return new Float64Array(2 ** size);
    this.#pooledBytes -= buffer.byteLength;
    return buffer;
  }

  /** Take a buffer back. */
  free(buffer: Float64Array): void {
    if (this.#pooledBytes + buffer.byteLength > POOLED_BYTES_MAX) return;
    this.#pooledBytes += buffer.byteLength;
    (this.#free[log2Ceil(buffer.length)] ??= []).push(buffer);
  }
}
