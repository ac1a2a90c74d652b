/** What it costs to have a machine at all: struct pages, boot. */
import { PAGE_SIZE } from '../abi/address.js';
import { NULL_PAGE } from '../base/brand.js';
import { boot } from '../check/boot.js';
import { MACHINE_PRESETS } from '../machine/presets.js';
import type { Addressing } from '../machine/types.js';
import type { DevPagemap } from '../mm/dev-pagemap.js';
import type { Kernel } from '../mm/kernel.js';
import {
  memremapDevicePrivatePagemap,
  memremapPages,
  memunmapDevicePrivatePagemap,
  memunmapPages,
} from '../mm/memremap.js';
import { runAtomic } from '../sync/task.js';
import { MEMSET, TWO_THREADS } from './bases.js';
import type { Benchmark, Rig } from './benchmark.js';
import { nsPer, nsPerAsync } from './clock.js';
import { bootForBench, requireEqual } from './rig.js';

const BYTES = 2 ** 30;
const STRUCT_PAGES = BYTES / PAGE_SIZE;

/** Struct pages for 1 GiB of device memory, as a driver asks for them. */
function remap(kernel: Kernel): () => void {
  const resource = kernel.seriesApplied ? null : kernel.iomem.requestFreeMemRegion(BYTES, 'bench');
  if (typeof resource === 'string') requireEqual('free physical address space', resource, 0);
  const pgmap: DevPagemap = {
    type: 'MEMORY_DEVICE_PRIVATE',
    owner: kernel,
    ops: { migrateToRam: () => requireNobody(), folioFree: () => {} },
    nrPages: STRUCT_PAGES,
    range: resource === null || typeof resource === 'string' ? null : resource,
    ...{ pages: NULL_PAGE, id: 0, ref: null },
  };
  const errno = resource === null ? memremapDevicePrivatePagemap(kernel, pgmap) : memremapPages(kernel, pgmap);
  requireEqual('errno of memremap', errno, 0);
  return () => {
    runAtomic(kernel.seriesApplied ? memunmapDevicePrivatePagemap(kernel, pgmap) : memunmapPages(kernel, pgmap));
    if (resource !== null && typeof resource !== 'string') kernel.iomem.releaseMemRegion(resource);
  };
}

function requireNobody(): never {
  return requireEqual('a fault on a page', 'came', 'nobody has it') as never;
}

async function structPageRig(addressing: Addressing): Promise<Rig> {
  const { machine, state } = await bootForBench(addressing, { ram: '64MiB', deviceMemory: '2GiB', chunk: '128MiB' });
  return {
    async round() {
      let unmap = (): void => {};
      const ns = nsPer(STRUCT_PAGES, () => {
        unmap = remap(state.kernel);
      });
      unmap();
      return [ns];
    },
    dispose: () => machine.dispose(),
  };
}

export const structPages: Benchmark = {
  name: 'struct pages of 1 GiB of device memory',
  unit: 'ns a struct page',
  base: MEMSET,
  addressed: true,
  subjects: [{ name: 'memmap initialisation', goal: { must: 3, aim: 2 }, kernelInstructions: 50 }],
  prepare: structPageRig,
};

export const bootAndDispose: Benchmark = {
  name: 'boot of `laptop`, and its end',
  unit: 'ns a boot',
  base: TWO_THREADS,
  addressed: true,
  subjects: [{ name: 'boot and dispose', goal: { must: 2, aim: 1.5 } }],
  prepare: async (addressing) => ({
    round: async () => [
      await nsPerAsync(1, async () => {
        const { laptop } = MACHINE_PRESETS;
        const machine = await boot({ ...laptop.spec, name: 'laptop', addressing, executor: 'threads' });
        await machine.dispose();
      }),
    ],
    dispose: async () => {},
  }),
};
