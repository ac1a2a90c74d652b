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
  mpfnNumber,
} from '../../abi/mpfn.js';
import { SERIES_SWAP_TYPES, softleafNumber, swpType } from '../../abi/softleaf.js';
import { type DevicePrivateOffset, NULL_PAGE, type Page, type Pfn } from '../../base/brand.js';
import type { Memmap } from '../memmap.js';
import type { DevicePrivateSpace } from '../memremap.js';
import { isDevicePrivatePage } from '../page.js';
import type { Addressing } from './addressing.js';

export function offsetAddressing(memmap: Memmap, space: DevicePrivateSpace): Addressing {
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
  const carriesOffset = kindOf.map((kind) => kind.includes('device-private'));
  const words = memmap.words;
  const pageOfPfn = (number: number): Page => memmap.pfnToPage(number as Pfn);
  const pageOfOffset = (number: number): Page => space.offsetToPage(number as DevicePrivateOffset);

  return {
    name: 'offset',
    swapTypes: SERIES_SWAP_TYPES,
    pageNumber: (page) => (isDevicePrivatePage(words, page) ? space.pageToOffset(page) : memmap.pageToPfn(page)),
    devicePrivateType: (write) => (write ? deviceWrite : deviceRead),
    migrationType: (page, access) => (isDevicePrivatePage(words, page) ? deviceMigration : migration)[access],
    leafToPage: (type, number) => (carriesOffset[type] ? pageOfOffset(number) : pageOfPfn(number)),
    softleafToPage: (entry) =>
      carriesOffset[swpType(entry)] ? pageOfOffset(softleafNumber(entry)) : pageOfPfn(softleafNumber(entry)),
    migratePfnFromPage: (page) =>
      isDevicePrivatePage(words, page) ? migrateOffset(space.pageToOffset(page)) : migratePfn(memmap.pageToPfn(page)),
    migratePfnToPage: (mpfn) => {
      if ((mpfn & MIGRATE_PFN_VALID) === 0) return NULL_PAGE;
      return (mpfn & MIGRATE_PFN_DEVICE_PRIVATE) !== 0 ? pageOfOffset(mpfnNumber(mpfn)) : pageOfPfn(mpfnNumber(mpfn));
    },
    hmmPfnKind: (page) => (isDevicePrivatePage(words, page) ? HMM_PFN_DEVICE_PRIVATE : 0),
    hmmPfnToPage: (pfns, i) => {
      const number = hmmPfnNumber(pfns, i);
      return (hmmPfnFlags(pfns, i) & HMM_PFN_DEVICE_PRIVATE) !== 0 ? pageOfOffset(number) : pageOfPfn(number);
    },
  };
}
