/**
 * The memory behind a struct page that has a physical address: RAM, or the memory of a coherent device, which its pagemap
 * knows. Linux: include/linux/highmem.h kmap_local_page(), copy_highpage(); which memory answers an address is the machine's.
 *
 * A device private page has neither: its bytes are the driver's business, and to ask for them here is a mistake that throws.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { MEMORY_RAM, type MemoryId } from '../abi/device-pte.js';
import type { Page } from '../base/brand.js';
import { assert } from '../base/errors.js';
import type { CoherentMemory, DevPagemap } from './dev-pagemap.js';
import type { Kernel } from './kernel.js';
import { pagePgmapId } from './page.js';

/** `kmap_local_page()`: `length` bytes of a page from `offset` on. */
export function kmapLocalPage(kernel: Kernel, page: Page, offset = 0, length = PAGE_SIZE - offset): Uint8Array {
  const { ram } = kernel;
  const frame = kernel.memmap.ramFrame(page);
  if (frame < ram.frames) return ram.bytes(frame, offset, length);
  const { pages, memory } = coherentPagemap(kernel, page);
  return new Uint8Array(memory.bytes, (page - pages) * PAGE_SIZE + offset, length);
}

/** `copy_highpage()`. */
export function copyHighpage(kernel: Kernel, to: Page, from: Page): void {
  const { ram } = kernel;
  const source = kernel.memmap.ramFrame(from);
  const target = kernel.memmap.ramFrame(to);
  if (source < ram.frames && target < ram.frames) ram.copyFrame(source, target);
  else kmapLocalPage(kernel, to).set(kmapLocalPage(kernel, from));
}

/** Which memory answers at the page's physical address, by the number that devices know it by. */
export const pageMemory = (kernel: Kernel, page: Page): MemoryId =>
  kernel.memmap.ramFrame(page) < kernel.ram.frames ? MEMORY_RAM : coherentPagemap(kernel, page).memory.id;

/** The page's frame in that memory. */
export function pageFrame(kernel: Kernel, page: Page): number {
  const frame = kernel.memmap.ramFrame(page);
  return frame < kernel.ram.frames ? frame : page - coherentPagemap(kernel, page).pages;
}

function coherentPagemap(kernel: Kernel, page: Page): DevPagemap & { readonly memory: CoherentMemory } {
  const pgmap = kernel.pagemaps.get(pagePgmapId(kernel.memmap.words, page));
  assert(pgmap?.memory != null, () => `page ${page} is in no memory that has physical addresses`);
  return pgmap as DevPagemap & { readonly memory: CoherentMemory };
}
