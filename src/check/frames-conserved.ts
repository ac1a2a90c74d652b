/**
 * Holds: free frames and used ones are all frames; the allocator's counter is what its free blocks hold; as many frames
 * are page tables as the address spaces have tables.
 *
 * Does not see: whether a used frame is used for something (page-accounting does). Never suspended: what a fault holds before it
 * maps it counts as used.
 */
import type { Checker } from '../machine/state.js';
import { freeBlockPages, ramPages, ramUse } from './ram.js';

export const framesConserved: Checker = {
  invariant: 'frames-conserved',
  statement: 'every frame of RAM is free, a page table, reserved, in use or out of use for ever',
  always: true,
  look({ kernel }) {
    const problems: string[] = [];
    let all = 0;
    let free = 0;
    let inTables = 0;
    let lost = 0;
    for (const page of ramPages(kernel)) {
      const use = ramUse(kernel, page);
      const frames = use === 'free' ? freeBlockPages(kernel, page) : 1;
      all += frames;
      if (use === 'free') free += frames;
      else if (use === 'table') inTables++;
      else if (use === 'lost') lost++;
    }
    if (lost > 0) problems.push(`${lost} frames are neither free nor in use`);
    if (free !== kernel.buddy.freePagesCount) {
      problems.push(`${kernel.buddy.freePagesCount} frames are counted as free, the free blocks hold ${free}`);
    }
    if (all !== kernel.totalRamPages)
      problems.push(`there are ${all} frames, at boot there were ${kernel.totalRamPages}`);
    let tables = 0;
    for (const mm of kernel.mms) tables += mm.tables;
    if (inTables !== tables) problems.push(`${inTables} frames are page tables, the processes have ${tables}`);
    return problems;
  },
};
