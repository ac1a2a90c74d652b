/**
 * Single-producer single-consumer ring of fixed records in shared memory. Head and tail are free-running 32-bit counters;
 * the atomic store of the tail publishes the record, the atomic store of the head gives its place back.
 */
import type { RingLayout } from '../abi/queue.js';
import { load32, store32 } from './word.js';

export class RingProducer {
  readonly words: Int32Array;
  /** Views of the same memory for records with floats. */
  readonly floats: Float64Array;
  readonly #layout: RingLayout;
  #tail: number;

  constructor(buffer: SharedArrayBuffer, layout: RingLayout) {
    this.words = new Int32Array(buffer);
    this.floats = new Float64Array(buffer);
    this.#layout = layout;
    this.#tail = load32(this.words, layout.tailWord);
  }

  /** Records that still fit. */
  free(): number {
    return this.#layout.capacity - ((this.#tail - load32(this.words, this.#layout.headWord)) | 0);
  }

  /** Word index of the next record to fill. Precondition: `free() > 0`. Fill it, then `publish()`. */
  reserve(): number {
    const { recordsWord, capacity, recordWords } = this.#layout;
    return recordsWord + (this.#tail & (capacity - 1)) * recordWords;
  }

  publish(): void {
    this.#tail = (this.#tail + 1) | 0;
    store32(this.words, this.#layout.tailWord, this.#tail);
  }
}

export class RingConsumer {
  readonly words: Int32Array;
  readonly floats: Float64Array;
  readonly #layout: RingLayout;
  #head: number;

  constructor(buffer: SharedArrayBuffer, layout: RingLayout) {
    this.words = new Int32Array(buffer);
    this.floats = new Float64Array(buffer);
    this.#layout = layout;
    this.#head = load32(this.words, layout.headWord);
  }

  /** Records that wait. */
  pending(): number {
    return (load32(this.words, this.#layout.tailWord) - this.#head) | 0;
  }

  /** Word index of the oldest record. Precondition: `pending() > 0`. Read it, then `release()`. */
  peek(): number {
    const { recordsWord, capacity, recordWords } = this.#layout;
    return recordsWord + (this.#head & (capacity - 1)) * recordWords;
  }

  release(): void {
    this.#head = (this.#head + 1) | 0;
    store32(this.words, this.#layout.headWord, this.#head);
  }
}
