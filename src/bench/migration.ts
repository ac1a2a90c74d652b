/** Migration in bulk: 64 MiB to a device in a thread and back, in pages and in huge pages. */
import { PAGE_SIZE } from '../abi/address.js';
import type { Addressing } from '../machine/types.js';
import { HUGE_COPY, PAGE_COPY } from './bases.js';
import type { Benchmark, Rig } from './benchmark.js';
import { nsPerAsync } from './clock.js';
import { type BenchMachine, bootForBench, fillRange, migrateAll, requireEqual, verifyRange } from './rig.js';

const BYTES = 64 * 2 ** 20;
const PAGES = BYTES / PAGE_SIZE;

/** There and back: two samples. */
async function bulkRig(addressing: Addressing, hugePages: BenchMachine['hugePages']): Promise<Rig> {
  const { machine } = await bootForBench(addressing, {
    ram: '1GiB',
    deviceMemory: '128MiB',
    ...(hugePages && { hugePages }),
  });
  const process = await machine.process();
  // Huge pages are aligned, wherever the kernel puts the mapping.
  const mapped = await process.mmap({ length: BYTES + 2 * 2 ** 20 });
  const range = { start: roundUp(mapped.start), length: BYTES } as typeof mapped;
  const mirror = await process.mirror(0);
  await fillRange(process, range);
  const { ahp } = await process.smaps(range);
  requireEqual('kB of huge pages', ahp, hugePages === 'always' ? BYTES / 1024 : 0);
  return {
    round: async () => [
      await nsPerAsync(PAGES, () => migrateAll(mirror, range, 'device')),
      await nsPerAsync(PAGES, () => migrateAll(mirror, range, 'system')),
    ],
    // What a round moves wrongly stays wrong in those that follow: one look at the end sees it, and no round has to read.
    verify: () => verifyRange(process, range),
    dispose: () => machine.dispose(),
  };
}

const roundUp = (address: number): number => Math.ceil(address / 2 ** 21) * 2 ** 21;

export const bulkMigration: Benchmark = {
  name: '64 MiB in pages',
  unit: 'ns a page',
  base: PAGE_COPY,
  addressed: true,
  subjects: [
    { name: 'migrate to device', goal: { must: 2.5, aim: 1.6 }, kernelInstructions: 7000 },
    { name: 'migrate to RAM', goal: { must: 2.5, aim: 1.6 }, kernelInstructions: 4100 },
  ],
  prepare: (addressing) => bulkRig(addressing, 'never'),
};

export const hugeMigration: Benchmark = {
  name: '64 MiB in huge pages',
  unit: 'ns a page',
  base: HUGE_COPY,
  addressed: true,
  subjects: [
    { name: 'migrate huge to device', goal: { must: 1.15, aim: 1.05 }, kernelInstructions: 3750 },
    { name: 'migrate huge to RAM', goal: { must: 1.15, aim: 1.05 }, kernelInstructions: 1110 },
  ],
  prepare: (addressing) => bulkRig(addressing, 'always'),
};
