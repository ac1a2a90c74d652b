/**
 * Programs of single loads and stores as data: a list of records in memory, each an operation on one 32-bit word, into which the
 * answer is written. Devices run such a list from the process's own memory, host CPUs from a block that they share with the kernel.
 */
import { defineRecord, field } from './layout.js';

export const WORD_OP = defineRecord('word operation', 32, {
  address: field(0, 'f64', 'virtual address of the word, a multiple of 4'),
  kind: field(8, 'i32', 'WORD_LOAD, WORD_STORE or WORD_ADD'),
  value: field(12, 'i32', 'what to store or to add'),
  found: field(16, 'i32', 'the word before the operation; of a store 0'),
  outcome: field(20, 'i32', 'WORD_PENDING, WORD_DONE, or why it could not be done'),
});

export const WORD_LOAD = 0;
export const WORD_STORE = 1;
/** Add atomically. */
export const WORD_ADD = 2;

export const WORD_PENDING = 0;
export const WORD_DONE = 1;
/** The access would have ended a real process. */
export const WORD_SIGSEGV = 2;
export const WORD_SIGBUS = 3;
/** No RAM for the page. */
export const WORD_NOMEM = 4;
/** The page tables led to a physical address where nothing is (found: its PFN): a mistake of the kernel's. */
export const WORD_MACHINE_CHECK = 5;
