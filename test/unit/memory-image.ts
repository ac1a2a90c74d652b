/** What is in the memory of a process, read from the words of its page tables: nothing is faulted in, moved or marked. */

import { memoryOfDevice } from '#src/abi/device-pte';
import type { FrameIndex, Page, VirtAddr } from '#src/base/brand';
import { cpuEntries } from '#src/check/page-tables';
import type { MachineState } from '#src/machine/state';
import type { Process, VirtRange } from '#src/machine/types';
import { pageFrame } from '#src/mm/highmem';
import { isDevicePrivatePage } from '#src/mm/page';

const PAGE = 4096;

/** The bytes of a page, wherever it is. */
function bytesOf({ kernel, devices }: MachineState, page: Page): Uint8Array {
  if (!isDevicePrivatePage(kernel.memmap.words, page)) return kernel.ram.bytes(pageFrame(kernel, page) as FrameIndex);
  for (const { index, link, driver } of devices) {
    const frame = driver.inspect?.().frameOf(page);
    if (frame !== null && frame !== undefined) {
      return new Uint8Array(link.memories.memories[memoryOfDevice(index)]!, frame * PAGE, PAGE);
    }
  }
  throw new Error(`page ${page} is nobody's`);
}

/** The pages of a range that stand in the page table: their bytes, by index in the range. Only for private devices. */
export function memoryImage(state: MachineState, { pid }: Process, range: VirtRange): Map<number, Uint8Array> {
  const image = new Map<number, Uint8Array>();
  for (const mm of state.kernel.mms) {
    if (mm.pid !== pid) continue;
    for (const { address, content } of cpuEntries(state.kernel, mm)) {
      if (address < range.start || address >= range.start + range.length) continue;
      image.set((address - range.start) / PAGE, bytesOf(state, content));
    }
  }
  return image;
}

export const rangeAt = (base: number, page: number, pages: number): VirtRange => ({
  start: (base + page * PAGE) as VirtAddr,
  length: pages * PAGE,
});
