/** Rows of the ledger: memory of devices, and what drivers do with it. */
import type { LedgerSection } from './ledger-row.js';

export const DEVICE_ROWS: readonly LedgerSection[] = [
  {
    title: 'ZONE_DEVICE',
    rows: [
      [
        'memremap_pages, MEMORY_DEVICE_PRIVATE',
        'struct pages over a range of physical addresses',
        'emulated',
        'test/unit/memremap.test.ts',
      ],
      [
        'memremap_device_private_pagemap (the series)',
        'struct pages over a range of offsets, none of them a PFN',
        'emulated',
        'test/unit/memremap.test.ts',
      ],
      ['memunmap_pages', 'waits for the last page', 'emulated', 'test/unit/mm-migrate-back.test.ts'],
      [
        'request_free_mem_region',
        'top down, below the physical limit; ERANGE when there is no room',
        'emulated',
        'test/unit/layouts.test.ts',
      ],
      [
        'percpu_ref of a pagemap',
        'a plain count, and a kill that waits for it',
        'simplified',
        'test/unit/percpu-ref.test.ts',
      ],
      [
        'memremap_pages, MEMORY_DEVICE_COHERENT',
        'present entries with PFNs of a window that the CPU reaches; off the LRU',
        'emulated',
        'test/unit/coherent-memory.test.ts',
      ],
      [
        'special purpose memory (EFI_MEMORY_SP)',
        'windows of coherent devices, chosen or given, in whole sections, printed as Soft Reserved',
        'simplified',
        'test/unit/coherent-windows.test.ts',
      ],
      ['MEMORY_DEVICE_FS_DAX, GENERIC, PCI_P2PDMA', 'none', 'missing'],
      ['altmap, linear map, KASAN shadow', 'none', 'ignored'],
      [
        'struct pages without page structs (pageless)',
        'not an addressing yet',
        'refused',
        'test/cli/bad-input.test.ts',
      ],
    ],
  },
  {
    title: 'migrate_vma',
    rows: [
      [
        'migrate_vma_split_unmapped_folio',
        "huge migration entries come apart in every process that shares the folio; Linux's does so in the VMA of the migration only",
        'simplified',
        'test/unit/huge-shared.test.ts',
      ],
      [
        'migrate_vma_setup',
        'EINVAL, holes, zero pages, selection by owner and kind',
        'emulated',
        'test/unit/mm-migrate.test.ts',
      ],
      [
        'migrate_vma_pages, finalize',
        'pages that cannot move come back as they were',
        'emulated',
        'test/unit/mm-migrate.test.ts',
      ],
      [
        'migrate_device_range',
        'eviction by physical page, wherever it is mapped',
        'emulated',
        'test/unit/mm-migrate-back.test.ts',
      ],
      [
        'MIGRATE_VMA_SELECT_DEVICE_COHERENT',
        'its own driver moves a coherent page, no other',
        'emulated',
        'test/unit/coherent-memory.test.ts',
      ],
      [
        'migrate_device_coherent_folio',
        'one page to RAM without its driver, for long-term pins',
        'emulated',
        'test/unit/coherent-memory.test.ts',
      ],
      [
        'migrate_vma on memory of files',
        'pages of files and of shared memory are collected, and go back; holes are not filled; private copies move',
        'emulated',
        'test/unit/mm-filemap.test.ts',
      ],
      [
        'migrate_pages',
        'only what migrate_vma needs of it: entries in and out',
        'simplified',
        'test/unit/mm-migrate.test.ts',
      ],
    ],
  },
  {
    title: 'Mirrors of address spaces',
    rows: [
      [
        'mmu_interval_notifier',
        'sequence, retry, nesting, removal in the middle',
        'emulated',
        'test/unit/mm-notifier-hmm.test.ts',
      ],
      ['mmu_notifier (not interval), SRCU', 'interval notifiers only', 'missing'],
      ['non-blocking invalidation (oom_reap)', 'every invalidation may wait', 'ignored'],
      [
        'hmm_range_fault',
        'snapshots and requests, by default and by page',
        'emulated',
        'test/unit/mm-notifier-hmm.test.ts',
      ],
      [
        'hmm_range_fault from the middle of an own huge page',
        'tells the middle; `conform` replays what Linux 7.2 does by its source: it tells the beginning',
        'emulated',
        'test/unit/trace-kernel-bugs.test.ts',
      ],
      ['hmm_range_fault_unlocked_timeout', 'no way that gives up mmap_lock', 'missing'],
      ['HMM_RANGE_DEFAULT_TIMEOUT', 'a retry has no end by time, and no signal breaks it', 'ignored'],
      ['hmm_dma_map_pfn, IOVA', 'devices reach RAM by its frame number', 'ignored'],
      ['make_device_exclusive', 'entry, owner, EFAULT, EOPNOTSUPP', 'emulated', 'test/unit/mm-exclusive.test.ts'],
    ],
  },
  {
    title: 'lib/test_hmm.c',
    rows: [
      [
        'HMM_DMIRROR_READ, WRITE',
        'by page, with the count of faults; partial where Linux is',
        'emulated',
        'test/unit/driver-access.test.ts',
      ],
      [
        'HMM_DMIRROR_MIGRATE_TO_DEV, TO_SYS',
        'VMA by VMA; ENOENT where the mirror has no page',
        'emulated',
        'test/selftests/migrate.test.ts',
      ],
      ['HMM_DMIRROR_SNAPSHOT', 'all codes but that of PUDs', 'emulated', 'test/selftests/two-devices.test.ts'],
      [
        'HMM_DMIRROR_EXCLUSIVE, CHECK_EXCLUSIVE',
        'page by page until one cannot be had',
        'emulated',
        'test/unit/driver-exclusive.test.ts',
      ],
      ['HMM_DMIRROR_RELEASE', 'evicts and removes the chunks', 'emulated', 'test/selftests/migrate.test.ts'],
      [
        'HMM_DMIRROR_FLAG_FAIL_ALLOC',
        'the next page, either way; for a huge one small ones serve',
        'emulated',
        'test/selftests/huge.test.ts',
      ],
      [
        'struct drm_pagemap_owner: peers',
        'one owner for a group: pages go from device to device, or are used where they are',
        'simplified',
        'test/unit/peers.test.ts',
      ],
      ['mmap of the device file', 'fresh zeroed pages under VM_MIXEDMAP', 'emulated', 'test/selftests/file.test.ts'],
      [
        'inclusive end of invalidations',
        'the page after the range is dropped, too',
        'emulated',
        'test/unit/driver-access.test.ts',
      ],
      ['last close', 'evicts the device, for every process', 'emulated', 'test/unit/driver-access.test.ts'],
      [
        'dmirror_migrate_to_device, dmirror_migrate_to_system: rounds of 512 pages',
        'the next is collected while one is copied; the mirror has what it would have had, had each ended first',
        'emulated',
        'test/unit/migration-rounds.test.ts',
      ],
      [
        'dmirror_migrate_finalize_and_map, dmirror_atomic_map',
        'only what is still mapped then: Linux keeps entries of pages that were zapped meanwhile',
        'simplified',
        'test/unit/driver-races.test.ts',
      ],
      [
        'devices',
        'up to 16, private and coherent; only between peers a page goes from one to another directly',
        'simplified',
        'test/adversity.test.ts',
      ],
      [
        'three bugs of the recorded kernel and its test driver: an oops, a corruption, a false stop',
        'not reproduced: the driver does what it meant',
        'ignored',
      ],
    ],
  },
  {
    title: 'The device (Linux has none)',
    rows: [
      [
        'replayable faults',
        'batches by a ring in shared memory, parked lanes, replay',
        'emulated',
        'test/unit/device-engine.test.ts',
      ],
      [
        'faults in huge pages',
        'all of it moves, as drivers of GPUs choose it; singly where the device has no room for it',
        'emulated',
        'test/unit/huge-devices.test.ts',
      ],
      [
        'stores of lanes to what may only be read for now',
        'copy on write and soft-dirty first, as the CPU would, then the page moves; the driver itself refuses its own such page',
        'emulated',
        'test/unit/machine-together.test.ts',
      ],
      ['copy engine', 'holds references as a DMA mapping does', 'emulated', 'test/unit/device-copy-engine.test.ts'],
      ['IOMMU, ATS, PASID', 'a device has page tables of its own', 'ignored'],
      [
        'surprise removal',
        'its work fails, data on it is lost (coherent memory goes on answering), the machine goes on',
        'simplified',
        'test/unit/device-death.test.ts',
      ],
      [
        'reset, orderly unplug',
        'a reset fails launches and copies, contexts and memory stay; before an unplug all pages go home, EBUSY where one is held',
        'simplified',
        'test/unit/device-reset.test.ts',
      ],
      [
        'a peer of a device that is lost',
        "forgets what it mapped in that device's memory; the pages are lost to it as to the CPU",
        'simplified',
        'test/unit/device-death.test.ts',
      ],
      [
        'lib/fault-inject.c, fail_nth',
        'named points in kernel, drivers and devices, each with a seed, an nth time or odds',
        'simplified',
        'test/unit/injection.test.ts',
      ],
    ],
  },
];
