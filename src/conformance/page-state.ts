/** One page of one process in words, for the report of a divergence: VMA, entry decoded, struct page, what devices map. */

import { PAGE_SIZE } from '../abi/address.js';
import { DEVICE_PTE_VALID, DEVICE_PTE_WRITE, devicePteMemory, memoryName } from '../abi/device-pte.js';
import {
  PTE_ACCESSED,
  PTE_DIRTY,
  pteHardwarePresent,
  pteNone,
  ptePfn,
  ptePresent,
  pteSpecial,
  pteWrite,
} from '../abi/pte.js';
import { SWP_EXCLUSIVE, SWP_SOFT_DIRTY, softleafFromPte, softleafNumber } from '../abi/softleaf.js';
import { PAGE_FLAGS, STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import type { Page, Pte, VirtAddr } from '../base/brand.js';
import { walk } from '../device/page-table.js';
import type { MachineState } from '../machine/state.js';
import { findHugePmd } from '../mm/huge-pmd.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { pageAnonVmaId, pageFlags, pageMapcount } from '../mm/page.js';
import { leafTable, NO_TABLE, pteIndex } from '../mm/pgtable.js';
import { leafKind } from '../mm/softleaf.js';
import { VM_READ, VM_SHARED, VM_WRITE, vmaLookup } from '../mm/vma.js';
import { pageRefCount } from '../sync/page-ref.js';
import { load32, readPte } from '../sync/word.js';

/** Lines about the page at `addr` of `mm`. Looks only. */
export function describePage(state: MachineState, mm: MmStruct, addr: VirtAddr): string[] {
  const { kernel } = state;
  const vma = vmaLookup(mm, addr);
  if (vma === undefined) return ['no VMA'];
  const flags = [
    (vma.flags & VM_READ) !== 0 ? 'r' : '-',
    (vma.flags & VM_WRITE) !== 0 ? 'w' : '-',
    (vma.flags & VM_SHARED) !== 0 ? 's' : 'p',
  ].join('');
  const table = leafTable(kernel, mm, addr);
  const huge = table === NO_TABLE;
  const at = huge ? findHugePmd(kernel, mm, addr) : table + pteIndex(addr);
  const pte = at === NO_TABLE ? (0n as Pte) : readPte(kernel.ram.words, at);
  const level = huge && at !== NO_TABLE ? 'huge entry' : 'entry';
  const lines = [`VMA ${flags}, ${(vma.end - vma.start) / PAGE_SIZE} pages`, `${level} ${describePte(kernel, pte)}`];
  const first = pageOf(kernel, pte);
  const page = first !== null && huge ? ((first + pteIndex(addr)) as Page) : first;
  if (page !== null) lines.push(describeStructPage(kernel, page));
  for (const device of state.devices) {
    const tables = new Int32Array(device.link.memories.pageTables);
    for (const context of device.driver.inspect?.().contexts ?? []) {
      if (context.mm !== mm) continue;
      const at = walk(tables, context.root, addr);
      const word = at === 0 ? 0 : load32(tables, at);
      if ((word & DEVICE_PTE_VALID) === 0) continue;
      const access = (word & DEVICE_PTE_WRITE) !== 0 ? 'writable' : 'read-only';
      lines.push(`${device.spec.name} maps it ${access}, in ${memoryName(devicePteMemory(word))}`);
    }
  }
  return lines;
}

function describePte(kernel: Kernel, pte: Pte): string {
  if (pteNone(pte)) return 'none';
  const hex = `0x${pte.toString(16)}`;
  if (ptePresent(pte)) {
    const flags = [
      pteHardwarePresent(pte) ? 'present' : 'protnone',
      pteWrite(pte) ? 'write' : 'read',
      ...((pte & PTE_ACCESSED) !== 0n ? ['accessed'] : []),
      ...((pte & PTE_DIRTY) !== 0n ? ['dirty'] : []),
      ...(pteSpecial(pte) ? ['zero page'] : []),
    ];
    return `${hex}: PFN 0x${ptePfn(pte).toString(16)} (${flags.join(' ')})`;
  }
  const entry = softleafFromPte(pte);
  const bits = [
    ...((pte & SWP_EXCLUSIVE) !== 0n ? [' exclusive'] : []),
    ...((pte & SWP_SOFT_DIRTY) !== 0n ? [' soft-dirty'] : []),
  ];
  return `${hex}: ${leafKind(kernel, entry)}${bits.join('')}, number 0x${softleafNumber(entry).toString(16)}`;
}

function pageOf(kernel: Kernel, pte: Pte): Page | null {
  if (pteNone(pte)) return null;
  if (ptePresent(pte)) return pteSpecial(pte) ? null : kernel.memmap.pfnToPage(ptePfn(pte));
  const kind = leafKind(kernel, softleafFromPte(pte));
  if (kind === 'none' || kind === 'swap' || kind === 'marker' || kind === 'hwpoison') return null;
  return kernel.addressing.softleafToPage(softleafFromPte(pte));
}

function describeStructPage(kernel: Kernel, page: Page): string {
  const { words } = kernel.memmap;
  const flags = pageFlags(words, page);
  const names = Object.entries(PAGE_FLAGS).flatMap(([name, mask]) => ((flags & mask) !== 0 ? [name] : []));
  const pins = words[(page << STRUCT_PAGE_WORD_SHIFT) + STRUCT_PAGE.word.pincount];
  const counts = `refcount ${pageRefCount(words, page)}, mapcount ${pageMapcount(words, page)}, pins ${pins}`;
  return `page ${page}: ${counts}, anon_vma ${pageAnonVmaId(words, page)}, ${names.join(' ') || 'no flags'}`;
}
