/**
 * Holds: free frames and used ones are all frames; the allocator's counter is what its free blocks hold; as many frames
 * are page tables as the address spaces have tables.
 *
 * Does not see: whether a used frame is used for something (page-accounting does). Never suspended: what a fault holds before it
 * maps it counts as used.
 */
import type { Checker } from '../machine/state.js';
import { freeBlockPages, type RamUse, ramPages, ramUse } from './ram.js';

export const framesConserved: Checker = {
  invariant: 'frames-conserved',
  statement: 'every frame of RAM is free, a page table, reserved, in use or out of use for ever',
  always: true,
  look({ kernel }) {
    const problems: string[] = [];
    const count: Record<RamUse, number> = { free: 0, table: 0, reserved: 0, used: 0, failed: 0, lost: 0 };
    let all = 0;
    for (const page of ramPages(kernel)) {
      const use = ramUse(kernel, page);
      const frames = use === 'free' ? freeBlockPages(kernel, page) : 1;
      count[use] += frames;
      all += frames;
    }
    if (count.lost > 0) problems.push(`${count.lost} frames are neither free nor in use`);
    if (count.free !== kernel.buddy.freePagesCount) {
      problems.push(`${kernel.buddy.freePagesCount} frames are counted as free, the free blocks hold ${count.free}`);
    }
    if (all !== kernel.totalRamPages)
      problems.push(`there are ${all} frames, at boot there were ${kernel.totalRamPages}`);
    let tables = 0;
    for (const mm of kernel.mms) tables += mm.tables;
    if (count.table !== tables) problems.push(`${count.table} frames are page tables, the processes have ${tables}`);
    return problems;
  },
};
