/** What it costs to have a machine at all: struct pages, boot. */
import { PAGE_SIZE } from '../abi/address.js';
import { boot } from '../check/boot.js';
import { MACHINE_PRESETS } from '../machine/presets.js';
import type { Addressing } from '../machine/types.js';
import { MEMSET, TWO_THREADS } from './bases.js';
import type { Benchmark, Rig } from './benchmark.js';
import { nsPer, nsPerAsync } from './clock.js';
import { addPagemap, type BenchPagemap } from './pagemap.js';
import { bootForBench } from './rig.js';

const BYTES = 2 ** 30;
const STRUCT_PAGES = BYTES / PAGE_SIZE;

async function structPageRig(addressing: Addressing): Promise<Rig> {
  const { machine, state } = await bootForBench(addressing, { ram: '64MiB', deviceMemory: '2GiB', chunk: '128MiB' });
  return {
    async round() {
      let added: BenchPagemap | null = null;
      const ns = nsPer(STRUCT_PAGES, () => {
        added = addPagemap(state.kernel, STRUCT_PAGES);
      });
      added!.remove();
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
