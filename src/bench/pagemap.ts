/** Pagemaps that no driver has: struct pages for device memory, as a driver asks for them, under either addressing. */
import { PAGE_SIZE } from '../abi/address.js';
import { NULL_PAGE } from '../base/brand.js';
import type { DevPagemap } from '../mm/dev-pagemap.js';
import type { Kernel } from '../mm/kernel.js';
import {
  memremapDevicePrivatePagemap,
  memremapPages,
  memunmapDevicePrivatePagemap,
  memunmapPages,
} from '../mm/memremap.js';
import { runAtomic } from '../sync/task.js';
import { requireEqual } from './rig.js';

export interface BenchPagemap {
  readonly pgmap: DevPagemap;
  remove(): void;
}

/** @throws InvariantViolation when there is no room */
export function addPagemap(kernel: Kernel, nrPages: number): BenchPagemap {
  const claimed = kernel.seriesApplied ? null : kernel.iomem.requestFreeMemRegion(nrPages * PAGE_SIZE, 'bench');
  const resource = typeof claimed === 'string' ? null : claimed;
  requireEqual('free physical address space', claimed, resource);
  const pgmap: DevPagemap = {
    type: 'MEMORY_DEVICE_PRIVATE',
    owner: kernel,
    ops: { migrateToRam: () => requireEqual('a fault', 'came', 'of nobody') as never, folioFree: () => {} },
    ...{ nrPages, range: resource, pages: NULL_PAGE, id: 0, ref: null },
  };
  const errno = resource === null ? memremapDevicePrivatePagemap(kernel, pgmap) : memremapPages(kernel, pgmap);
  requireEqual('errno of memremap', errno, 0);
  return {
    pgmap,
    remove() {
      runAtomic(resource === null ? memunmapDevicePrivatePagemap(kernel, pgmap) : memunmapPages(kernel, pgmap));
      if (resource !== null) kernel.iomem.releaseMemRegion(resource);
    },
  };
}
