/**
 * Holds: at rest nothing is half done. No migration entry, no page that is locked, isolated or under writeback, no page
 * table lock, no mmap_lock, no invalidation, no record in a ring, no fence that was not signalled.
 *
 * Does not see: locks inside of drivers. Suspended while anything is in flight; the rings of a lost device are not looked at.
 */
import { fenceReached, QUEUE_HEADER, RINGS, type RingLayout } from '../abi/queue.js';
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import type { Page } from '../base/brand.js';
import type { Checker, MachineDevice, SharedFindings } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import { pageFlags } from '../mm/page.js';
import { load32 } from '../sync/word.js';
import { cpuEntries, placeText } from './page-tables.js';
import { ramPages, ramUse } from './ram.js';
import { nextFlagged } from './scan.js';

const BUSY_FLAGS = {
  PG_locked: PAGE_FLAGS.PG_locked,
  PG_isolated: PAGE_FLAGS.PG_isolated,
  PG_writeback: PAGE_FLAGS.PG_writeback,
};
const BUSY_MASK = Object.values(BUSY_FLAGS).reduce((mask, flag) => mask | flag, 0);
/** The page table lock of a table's page (mm/pgtable.ts). */
const TABLE_LOCK = STRUCT_PAGE.word.private;

/** Fence of each ring whose records the device acknowledges. */
const FENCES: readonly (readonly [ring: RingLayout, word: number])[] = [
  [RINGS.copies, QUEUE_HEADER.word.copyFence],
  [RINGS.invalidations, QUEUE_HEADER.word.invalidateFence],
  [RINGS.commands, QUEUE_HEADER.word.commandFence],
];

function* pageLeftovers(kernel: Kernel, page: Page, name: string): Generator<string, void, void> {
  const flags = pageFlags(kernel.memmap.words, page);
  if ((flags & BUSY_MASK) === 0) return;
  const names = Object.entries(BUSY_FLAGS).filter(([, flag]) => flags & flag);
  yield `${name} has ${names.map(([flag]) => flag).join(', ')}`;
}

function* processLeftovers(kernel: Kernel, shared?: SharedFindings): Generator<string, void, void> {
  for (const mm of kernel.mms) {
    if (mm.mmapLock.locked) yield `process ${mm.pid}: mmap_lock is held`;
    if (mm.notifiers.activeRanges !== 0)
      yield `process ${mm.pid}: ${mm.notifiers.activeRanges} invalidations are not over`;
    for (const { address, kind } of cpuEntries(kernel, mm, shared)) {
      if (kind.startsWith('migration')) yield `${placeText(mm, address)}: a migration entry (${kind})`;
    }
  }
}

/** The last record that was put into each ring has been taken out, and its fence signalled. */
function* queueLeftovers({ spec, link }: MachineDevice): Generator<string, void, void> {
  const words = new Int32Array(link.memories.queue);
  for (const { name, headWord, tailWord } of Object.values(RINGS)) {
    const records = (load32(words, tailWord) - load32(words, headWord)) | 0;
    if (records !== 0) yield `${spec.name}: ${records} records are left in the ring of ${name}`;
  }
  for (const [{ name, tailWord, recordsWord, capacity, recordWords }, fenceWord] of FENCES) {
    const tail = load32(words, tailWord);
    if (tail === 0) continue;
    const sequence = load32(words, recordsWord + ((tail - 1) & (capacity - 1)) * recordWords);
    const fence = load32(words, fenceWord);
    if (!fenceReached(fence, sequence)) yield `${spec.name}: fence of ${name} stands at ${fence}, ${sequence} was sent`;
  }
}

export const noLeftovers: Checker = {
  invariant: 'no-leftovers',
  statement: 'at rest no migration entry, lock, isolated page, ring record or unsignalled fence is left',
  *look({ kernel, devices, executor }, shared) {
    for (const { task, what } of executor.waits()) yield `task ${task} still waits for ${what}`;
    yield* processLeftovers(kernel, shared);
    for (const page of ramPages(kernel)) {
      yield* pageLeftovers(kernel, page, `RAM page ${page}`);
      const locked = kernel.memmap.words[(page << STRUCT_PAGE_WORD_SHIFT) + TABLE_LOCK] !== 0;
      if (locked && ramUse(kernel, page) === 'table') yield `RAM page ${page}: the page table lock is held`;
    }
    for (const pgmap of kernel.pagemaps) {
      const end = pgmap.pages + pgmap.nrPages;
      for (let page = pgmap.pages; page < end; page++) {
        page = nextFlagged(kernel.memmap.words, page, end, BUSY_MASK);
        if (page < end) yield* pageLeftovers(kernel, page, `page ${page - pgmap.pages} of pagemap ${pgmap.id}`);
      }
    }
    for (const device of devices) if (!device.link.lost) yield* queueLeftovers(device);
  },
};
