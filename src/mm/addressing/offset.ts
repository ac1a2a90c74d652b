/**
 * Device private pages named by offsets in an address space of their own: the proposed series (v6). Offsets and PFNs overlap
 * numerically, so each carrier of a number says of which kind it is, and each reader asks.
 */
import { HMM_PFN_DEVICE_PRIVATE, hmmPfnFlags, hmmPfnNumber } from '../../abi/hmm-pfn.js';
import {
  MIGRATE_PFN_DEVICE_PRIVATE,
  MIGRATE_PFN_VALID,
  migrateOffset,
  migratePfn,
  mpfnClear,
  mpfnNumber,
} from '../../abi/mpfn.js';
import { SERIES_SWAP_TYPES, type SoftLeafKind, type SwapTypes, softleafNumber, swpType } from '../../abi/softleaf.js';
import { type DevicePrivateOffset, NULL_PAGE, type Page, type Pfn } from '../../base/brand.js';
import type { Sites } from '../check-sites.js';
import type { Memmap } from '../memmap.js';
import type { DevicePrivateSpace } from '../memremap.js';
import { isDevicePrivatePage } from '../page.js';
import type { Addressing } from './addressing.js';

export function offsetAddressing(memmap: Memmap, space: DevicePrivateSpace, sites: Sites): Addressing {
  const { typeOf, kindOf } = SERIES_SWAP_TYPES;
  const deviceRead = Number(typeOf['device-private-read']);
  const deviceWrite = Number(typeOf['device-private-write']);
  const migration = {
    read: Number(typeOf['migration-read']),
    'read-exclusive': Number(typeOf['migration-read-exclusive']),
    write: Number(typeOf['migration-write']),
  };
  const deviceMigration = {
    read: Number(typeOf['migration-device-private-read']),
    'read-exclusive': Number(typeOf['migration-device-private-read-exclusive']),
    write: Number(typeOf['migration-device-private-write']),
  };
  /** device_private or migration_device_private: the number is an offset. */
  const carriesOffset = kindOf.map(
    (kind) => kind.includes('device-private') && sites[isNew(kind) ? 'leafToPageMigration' : 'leafToPagePrivate'],
  );
  const words = memmap.words;
  const pageOfPfn = (number: number): Page => memmap.pfnToPage(number as Pfn);
  const pageOfOffset = (number: number): Page => space.offsetToPage(number as DevicePrivateOffset);
  const pageOfEntry = sites.entryToPage ? pageOfOffset : (): Page => NULL_PAGE;

  return {
    name: 'offset',
    swapTypes: sites.softleafType ? SERIES_SWAP_TYPES : WITHOUT_NEW_TYPES,
    pageNumber: (page) => (isDevicePrivatePage(words, page) ? space.pageToOffset(page) : memmap.pageToPfn(page)),
    devicePrivateType: (write) => (write ? deviceWrite : deviceRead),
    migrationType: (page, access) =>
      (isDevicePrivatePage(words, page) && sites.migrationEntryFamily ? deviceMigration : migration)[access],
    plainMigrationType: (access) => migration[access],
    leafToPage: (type, number) => (carriesOffset[type] ? pageOfEntry(number) : pageOfPfn(number)),
    softleafToPage: (entry) =>
      carriesOffset[swpType(entry)] ? pageOfEntry(softleafNumber(entry)) : pageOfPfn(softleafNumber(entry)),
    migratePfnFromPage: (page) => {
      if (!isDevicePrivatePage(words, page)) return migratePfn(memmap.pageToPfn(page));
      const mpfn = migrateOffset(space.pageToOffset(page));
      return sites.mpfnFromPageKind ? mpfn : mpfnClear(mpfn, MIGRATE_PFN_DEVICE_PRIVATE);
    },
    migratePfnToPage: (mpfn) => {
      if ((mpfn & MIGRATE_PFN_VALID) === 0 && sites.mpfnToPageValid) return NULL_PAGE;
      const number = mpfnNumber(mpfn);
      if (number === 0 && !sites.mpfnZeroIsPage) return NULL_PAGE;
      const isOffset = (mpfn & MIGRATE_PFN_DEVICE_PRIVATE) !== 0 && sites.mpfnToPageKind;
      return isOffset ? pageOfOffset(number) : pageOfPfn(number);
    },
    hmmPfnKind: (page) => (isDevicePrivatePage(words, page) ? HMM_PFN_DEVICE_PRIVATE : 0),
    hmmPfnToPage: (pfns, i) => {
      const number = hmmPfnNumber(pfns, i);
      const isOffset = (hmmPfnFlags(pfns, i) & HMM_PFN_DEVICE_PRIVATE) !== 0 && sites.hmmPfnToPageKind;
      return isOffset ? pageOfOffset(number) : pageOfPfn(number);
    },
  };
}

/** Kinds that the series adds. */
const isNew = (kind: SoftLeafKind): boolean => kind.startsWith('migration-device-private');

/** What a kernel makes of entries whose types it does not know. */
const WITHOUT_NEW_TYPES: SwapTypes = {
  ...SERIES_SWAP_TYPES,
  kindOf: SERIES_SWAP_TYPES.kindOf.map((kind) => (isNew(kind) ? 'none' : kind)),
};
