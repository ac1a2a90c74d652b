/**
 * Whole pages of shared memory: written, and compared, with one and the same page. The core knows no platform (ARCHITECTURE decision 31),
 * but where the host has Node's `Buffer` each is one call of the C library, which takes half and a third of the time that a typed
 * array's own methods take on shared memory.
 */

/** Part of a shared memory. Offsets are in bytes and multiples of 8, as is the length of a `page`. */
export interface PageBytes {
  /** Write `page` at byte `at`. */
  put(at: number, page: Uint8Array): void;
  /** Are the bytes from `at` on those of `page`? */
  holds(at: number, page: Uint8Array): boolean;
}

/** View of `length` bytes of `memory` from `offset` on: at most 2 GiB. */
export type ViewPages = (memory: SharedArrayBuffer, offset: number, length: number) => PageBytes;

class BufferBytes implements PageBytes {
  readonly #bytes: Buffer;

  constructor(memory: SharedArrayBuffer, offset: number, length: number) {
    this.#bytes = Buffer.from(memory, offset, length);
  }

  put(at: number, page: Uint8Array): void {
    this.#bytes.fill(page, at, at + page.length);
  }

  holds(at: number, page: Uint8Array): boolean {
    return this.#bytes.compare(page, 0, page.length, at, at + page.length) === 0;
  }
}

class TypedBytes implements PageBytes {
  readonly #bytes: Uint8Array;
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer, offset: number, length: number) {
    this.#bytes = new Uint8Array(memory, offset, length);
    this.#words = new Int32Array(memory, offset, length / 4);
  }

  put(at: number, page: Uint8Array): void {
    this.#bytes.set(page, at);
  }

  holds(at: number, page: Uint8Array): boolean {
    const words = new Int32Array(page.buffer, page.byteOffset, page.length / 4);
    return words.every((word, index) => this.#words[at / 4 + index] === word);
  }
}

/** With what every host has. */
export const viewTyped: ViewPages = (memory, offset, length) => new TypedBytes(memory, offset, length);

const viewBuffer: ViewPages = (memory, offset, length) => new BufferBytes(memory, offset, length);

/** With the best that this host has. */
export const viewPages: ViewPages = typeof globalThis.Buffer === 'function' ? viewBuffer : viewTyped;
