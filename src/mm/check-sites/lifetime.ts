/** Sites of pagemaps and their struct pages: registration, splits, teardown. */
import { type Family, POSTINGS } from './site.js';

export const LIFETIME_SITES = {
  numaNode: {
    source: 'series #29, 4.1 (v2 -> v3), R3',
    title: 'memremap_device_private_pagemap, NUMA_NO_NODE',
    does: 'no node becomes the node of the calling CPU',
    forgotten: 'struct pages of node -1: accounting of the page reads beyond its tables',
    addressing: 'offset',
    missing: ['v1', 'v2'],
  },
  unmapByKind: {
    source: 'series #30, 4.1 (v3 -> v4), R4',
    title: 'teardown of a private pagemap',
    does: 'memunmap_device_private_pagemap, which knows that no physical range belongs to it',
    forgotten: 'memunmap_pages takes offsets for physical addresses, and the vmemmap of RAM away',
    addressing: 'offset',
    missing: ['v3'],
  },
  releaseOwnRegion: {
    source: 'R4, series 4.1 (v2 -> v3)',
    title: 'teardown of a private pagemap, the physical region',
    does: 'releases no region, as none was reserved',
    forgotten: 'a region is released that somebody else has, or nobody',
    addressing: 'offset',
    missing: ['v2'],
  },
  alignedMemmap: {
    source: 'series 4.2 #10, measured 7.3',
    title: 'memremap_device_private_pagemap, array of struct pages',
    does: 'begins at a multiple of 32 KiB, where heads of compound pages are found by masking the address of a tail',
    forgotten: 'kvzalloc gives any page: of a huge device folio most pages find a head that is none',
    addressing: 'offset',
  },
  pageExtOfPrivate: {
    source: 'measured 7.2',
    title: 'folio_migrate_flags with page_owner, lookup of the page_ext',
    does: 'asks for the page_ext of pages that have a PFN only',
    forgotten: 'the PFN of a private page has no section: NULL is dereferenced at the first migration',
    addressing: 'offset',
  },
  tailPagemap: {
    source: 'R8, series 4.2 #11',
    title: 'split of a device folio',
    does: "a tail has the head's pagemap before anybody asks for its number",
    forgotten: 'the number of the tail is computed from a pagemap that is NULL',
    addressing: 'both',
  },
  folioFreeValidated: {
    source: 'series 4.2 #2',
    title: 'memremap_device_private_pagemap, folio_free',
    does: 'a driver without folio_free is refused, as memremap_pages() did',
    forgotten: 'the first page that is freed only warns, and unmapping waits for ever',
    addressing: 'offset',
    missing: POSTINGS,
    unreached: 'every driver here has the method',
  },
  eraseBeforeFree: {
    source: 'R9, series 4.2 #3',
    title: 'memunmap_device_private_pagemap, order',
    does: 'the range leaves the tree before its struct pages are freed',
    forgotten: 'in between a lookup answers with freed struct pages',
    addressing: 'offset',
    missing: POSTINGS,
    unreached:
      'before that every page has come back, so no entry and no word holds a number of the range: nobody looks it up',
  },
  alignedStart: {
    source: 'series 4.2 #6',
    title: 'memremap_device_private_pagemap, first offset',
    does: 'ranges begin at multiples of 2 MiB',
    forgotten: 'after a pagemap of odd size the numbers of huge pages are no multiples of 512',
    addressing: 'offset',
    missing: POSTINGS,
    unreached:
      'nothing here (nor in Linux, as far as anybody has seen) asks of a number whether it is a multiple of 512',
  },
} as const satisfies Family;
