/** References on a process's pages, as a device that accesses them directly holds them: what `Process.pin` returns. */
import { PAGE_SIZE } from '../abi/address.js';
import type { Page } from '../base/brand.js';
import { putUserPages, unpinUserPages } from '../mm/gup.js';
import { kmapLocalPage } from '../mm/highmem.js';
import { Lifetime } from './lifetime.js';
import type { MachineState } from './state.js';
import type { Pin } from './types.js';

export interface PinParts {
  readonly machine: MachineState;
  readonly pages: readonly Page[];
  /** FOLL_PIN, or a plain reference. */
  readonly pinned: boolean;
  /** What to say when it is too late for a call. */
  readonly over: string;
  /** Called when the pages are let go. */
  onReleased(pin: PagePin): void;
}

export class PagePin implements Pin {
  readonly pages: number;
  readonly #parts: PinParts;
  readonly #life: Lifetime;

  constructor(parts: PinParts) {
    this.pages = parts.pages.length;
    this.#parts = parts;
    this.#life = new Lifetime(parts.over);
    if (!parts.pinned) this.#count(1);
  }

  read(): Promise<Uint8Array> {
    return this.#life.call(async () => {
      const { kernel } = this.#parts.machine;
      const bytes = new Uint8Array(this.pages * PAGE_SIZE);
      for (const [index, page] of this.#parts.pages.entries()) {
        bytes.set(kmapLocalPage(kernel, page), index * PAGE_SIZE);
      }
      return bytes;
    });
  }

  release(): Promise<void> {
    return this.#life.end(async () => {
      const { machine, pages, pinned, onReleased } = this.#parts;
      if (pinned) unpinUserPages(machine.kernel, pages);
      else putUserPages(machine.kernel, pages);
      if (!pinned) this.#count(-1);
      onReleased(this);
    });
  }

  /** Tell the checkers who it is that holds the pages. */
  #count(delta: number): void {
    const { heldPages } = this.#parts.machine;
    for (const page of this.#parts.pages) {
      const count = (heldPages.get(page) ?? 0) + delta;
      if (count === 0) heldPages.delete(page);
      else heldPages.set(page, count);
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release();
  }
}
