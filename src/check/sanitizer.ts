/**
 * Holds: whatever a page table names is in use, and was given its contents before it was mapped: no entry leads to a page that is
 * free, and none to a frame that still holds the poison of free frames from its first byte to its last.
 *
 * Does not see: frames that are written while they are free (the allocator does, when it hands them out); a part of a frame that
 * nobody initialised (explorations read every byte back); memory of devices, which is not poisoned. Suspended while anything is
 * in flight. Of machines that do not poison it sees only what is free.
 */
import { NULL_PAGE } from '../base/brand.js';
import type { Checker } from '../machine/state.js';
import { folioHead, pageRefCount } from '../sync/page-ref.js';
import { cpuEntries, placeText } from './page-tables.js';

export const sanitizer: Checker = {
  invariant: 'sanitizer',
  statement: 'what page tables name is in use, and no frame was mapped before somebody initialised it',
  *look({ kernel }, shared) {
    const { memmap, ram, checked } = kernel;
    for (const mm of kernel.mms) {
      for (const { address, kind, page } of cpuEntries(kernel, mm, shared)) {
        if (page === NULL_PAGE) continue;
        if (pageRefCount(memmap.words, folioHead(memmap.words, page)) <= 0) {
          yield `${placeText(mm, address)}: page ${page} (${kind}) is mapped here, but free`;
        }
        const frame = memmap.ramFrame(page);
        if (checked && frame >= 0 && frame < ram.frames && ram.isPoisoned(frame)) {
          yield `${placeText(mm, address)}: page ${page} (${kind}) was mapped before anything was written to it`;
        }
      }
    }
  },
};
