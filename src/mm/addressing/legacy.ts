/** Device private pages named by PFNs of a region reserved in the physical address space: Linux without the series. */
import { hmmPfnNumber, hmmPfnOfPfn } from '../../abi/hmm-pfn.js';
import { MIGRATE_PFN_VALID, migratePfn, mpfnNumber } from '../../abi/mpfn.js';
import { LEGACY_SWAP_TYPES, makeNumberEntry, softleafNumber } from '../../abi/softleaf.js';
import { NULL_PAGE, type Pfn } from '../../base/brand.js';
import type { Memmap } from '../memmap.js';
import type { Addressing } from './addressing.js';

export function legacyAddressing(memmap: Memmap): Addressing {
  const { typeOf } = LEGACY_SWAP_TYPES;
  const deviceRead = typeOf['device-private-read']!;
  const deviceWrite = typeOf['device-private-write']!;
  const migration = {
    read: typeOf['migration-read']!,
    'read-exclusive': typeOf['migration-read-exclusive']!,
    write: typeOf['migration-write']!,
  };
  return {
    name: 'legacy',
    swapTypes: LEGACY_SWAP_TYPES,
    pageNumber: (page) => memmap.pageToPfn(page),
    devicePrivateEntry: (page, write) => makeNumberEntry(write ? deviceWrite : deviceRead, memmap.pageToPfn(page), 0n),
    migrationEntry: (page, access, flags) => makeNumberEntry(migration[access], memmap.pageToPfn(page), flags),
    softleafToPage: (entry) => memmap.pfnToPage(softleafNumber(entry) as Pfn),
    migratePfnFromPage: (page) => migratePfn(memmap.pageToPfn(page)),
    migratePfnToPage: (mpfn) =>
      (mpfn & MIGRATE_PFN_VALID) === 0 ? NULL_PAGE : memmap.pfnToPage(mpfnNumber(mpfn) as Pfn),
    hmmPfnFromPage: (page, flags) => hmmPfnOfPfn(memmap.pageToPfn(page), flags),
    hmmPfnToPage: (pfn) => memmap.pfnToPage(hmmPfnNumber(pfn) as Pfn),
  };
}
