/** The state that a trace records after each operation, as the emulator has it: /proc views and snapshots through observers. */
import { PAGE_SIZE } from '../abi/address.js';
import { pteDirty, pteNone, ptePfn, ptePresent, pteSpecial } from '../abi/pte.js';
import { softleafFromPte, swpType } from '../abi/softleaf.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page, Pte, VirtAddr } from '../base/brand.js';
import type { DriverMirror } from '../drivers/driver.js';
import type { MachineState } from '../machine/state.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { pageMapcount, pageTestFlag } from '../mm/page.js';
import { leafTable, NO_TABLE, pteIndex } from '../mm/pgtable.js';
import { vmaLookup } from '../mm/vma.js';
import type { Sleeps } from '../sync/task.js';
import { readPte } from '../sync/word.js';
import type { ObservedState } from './compare.js';

/** One process under observation: its address space, and a mirror of it on each device which only takes snapshots. */
export interface Observed {
  readonly mm: MmStruct;
  readonly observers: readonly DriverMirror[];
}

export interface Arena {
  readonly base: VirtAddr;
  readonly pages: number;
}

/** Look at the whole arena without changing anything. */
export function* observeState(
  { kernel }: MachineState,
  { mm, observers }: Observed,
  arena: Arena,
): Sleeps<ObservedState> {
  const end = (arena.base + arena.pages * PAGE_SIZE) as VirtAddr;
  const snapshots: (Uint8Array | string)[] = [];
  for (const observer of observers.slice(0, 2)) snapshots.push(yield* observer.snapshot(arena.base, end));
  const [s0 = 'ENODEV', s1 = 'ENODEV'] = snapshots;
  const { words } = kernel.memmap;
  const pm = new Int32Array(arena.pages);
  const mc = new Int32Array(arena.pages);
  const sums = { rss: 0, anon: 0, swap: 0, ahp: 0, prd: 0, prc: 0, shd: 0, shc: 0 };
  for (let i = 0; i < arena.pages; i++) {
    const addr = (arena.base + i * PAGE_SIZE) as VirtAddr;
    const vma = vmaLookup(mm, addr);
    const table = leafTable(kernel, mm, addr);
    const pte = table === NO_TABLE ? (0n as Pte) : readPte(kernel.ram.words, table + pteIndex(addr));
    mc[i] = vma === undefined ? -1 : pteNone(pte) ? 0 : 1;
    if (pteNone(pte)) continue;
    let page: Page;
    if (ptePresent(pte)) {
      pm[i] = 1;
      if (pteSpecial(pte)) continue;
      page = kernel.memmap.pfnToPage(ptePfn(pte));
      if (pageMapcount(words, page) === 1) pm[i] |= 8;
    } else {
      const entry = softleafFromPte(pte);
      pm[i] = 2 | (swpType(entry) << 8);
      page = kernel.addressing.softleafToPage(entry);
    }
    const dirty = pteDirty(pte) || pageTestFlag(words, page, PAGE_FLAGS.PG_dirty);
    const shared = pageMapcount(words, page) > 1;
    sums.rss += 4;
    sums.anon += 4;
    sums[shared ? (dirty ? 'shd' : 'shc') : dirty ? 'prd' : 'prc'] += 4;
  }
  return { pm, mc, s0, s1, sums };
}
