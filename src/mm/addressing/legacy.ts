/** Device private pages named by PFNs of a region reserved in the physical address space: Linux without the series. */
import { hmmPfnNumber } from '../../abi/hmm-pfn.js';
import { MIGRATE_PFN_VALID, migratePfn, mpfnNumber } from '../../abi/mpfn.js';
import { LEGACY_SWAP_TYPES, softleafNumber } from '../../abi/softleaf.js';
import { NULL_PAGE, type Pfn } from '../../base/brand.js';
import type { Sites } from '../check-sites.js';
import type { Memmap } from '../memmap.js';
import type { Addressing } from './addressing.js';

export function legacyAddressing(memmap: Memmap, sites: Sites): Addressing {
  const { typeOf } = LEGACY_SWAP_TYPES;
  const deviceRead = Number(typeOf['device-private-read']);
  const deviceWrite = Number(typeOf['device-private-write']);
  const migration = {
    read: Number(typeOf['migration-read']),
    'read-exclusive': Number(typeOf['migration-read-exclusive']),
    write: Number(typeOf['migration-write']),
  };
  return {
    name: 'legacy',
    swapTypes: LEGACY_SWAP_TYPES,
    pageNumber: (page) => memmap.pageToPfn(page),
    devicePrivateType: (write) => (write ? deviceWrite : deviceRead),
    migrationType: (_page, access) => migration[access],
    plainMigrationType: (access) => migration[access],
    leafToPage: (_type, number) => memmap.pfnToPage(number as Pfn),
    softleafToPage: (entry) => memmap.pfnToPage(softleafNumber(entry) as Pfn),
    migratePfnFromPage: (page) => migratePfn(memmap.pageToPfn(page)),
    migratePfnToPage: (mpfn) =>
      (mpfn & MIGRATE_PFN_VALID) === 0 && sites.mpfnToPageValid ? NULL_PAGE : memmap.pfnToPage(mpfnNumber(mpfn) as Pfn),
    hmmPfnKind: () => 0,
    hmmPfnToPage: (pfns, i) => memmap.pfnToPage(hmmPfnNumber(pfns, i) as Pfn),
  };
}
