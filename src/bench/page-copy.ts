/** The base of everything that moves pages: a plain copy between two SharedArrayBuffers, 4 KiB at a time. */
import { PAGE_SIZE } from '../abi/address.js';

export class PageCopyBase {
  readonly #from: Uint8Array;
  readonly #to: Uint8Array;

  constructor(bytes: number) {
    this.#from = new Uint8Array(new SharedArrayBuffer(bytes)).fill(1);
    this.#to = new Uint8Array(new SharedArrayBuffer(bytes)).fill(2);
  }

  run(): void {
    const from = this.#from;
    const to = this.#to;
    for (let at = 0; at < from.length; at += PAGE_SIZE) to.set(from.subarray(at, at + PAGE_SIZE), at);
  }
}
