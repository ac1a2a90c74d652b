/**
 * Holds: whatever a page table names is in use: no entry leads to a page that is free.
 *
 * Does not see: frames that are written while they are free (the allocator does, when it hands them out: freed frames are poisoned);
 * frames that were mapped before anybody initialised them (explorations read every byte back, and find the poison: of a program
 * that stores 0xaa everywhere nobody could tell). Suspended while anything is in flight.
 */
import { NULL_PAGE } from '../base/brand.js';
import type { Checker } from '../machine/state.js';
import { folioHead, pageRefCount } from '../sync/page-ref.js';
import { cpuEntries, placeText } from './page-tables.js';

export const sanitizer: Checker = {
  invariant: 'sanitizer',
  statement: 'what page tables name is in use',
  *look({ kernel }, shared) {
    const { words } = kernel.memmap;
    for (const mm of kernel.mms) {
      for (const { address, kind, page } of cpuEntries(kernel, mm, shared)) {
        if (page !== NULL_PAGE && pageRefCount(words, folioHead(words, page)) <= 0) {
          yield `${placeText(mm, address)}: page ${page} (${kind}) is mapped here, but free`;
        }
      }
    }
  },
};
