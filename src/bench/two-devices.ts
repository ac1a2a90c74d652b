/** Two devices that migrate ranges of their own at the same time, against one that does it alone. */
import { PAGE_SIZE } from '../abi/address.js';
import type { Addressing } from '../machine/types.js';
import type { Benchmark, Rig } from './benchmark.js';
import { nsPerAsync } from './clock.js';
import { bootForBench, fillRange, migrateAll, verifyRange } from './rig.js';

const BYTES = 32 * 2 ** 20;

async function twoDeviceRig(addressing: Addressing): Promise<Rig> {
  const { machine } = await bootForBench(addressing, { ram: '512MiB', deviceMemory: '64MiB', devices: 2 });
  const open = async (device: number) => {
    const process = await machine.process();
    const range = await process.mmap({ length: BYTES });
    await fillRange(process, range);
    return { process, range, mirror: await process.mirror(device) };
  };
  const [one, other] = [await open(0), await open(1)];
  const thereAndBack = async ({ mirror, range }: typeof one): Promise<void> => {
    await migrateAll(mirror, range, 'device');
    await migrateAll(mirror, range, 'system');
  };
  const pages = (2 * BYTES) / PAGE_SIZE;
  return {
    async round() {
      const alone = await nsPerAsync(pages, () => thereAndBack(one));
      const together = await nsPerAsync(2 * pages, () => Promise.all([thereAndBack(one), thereAndBack(other)]));
      return [alone / together];
    },
    async verify() {
      for (const { process, range } of [one, other]) await verifyRange(process, range);
    },
    dispose: () => machine.dispose(),
  };
}

export const twoDevices: Benchmark = {
  name: '2 devices that migrate disjoint ranges, against 1',
  unit: 'times the pages/s',
  base: null,
  addressed: true,
  subjects: [{ name: '2 devices against 1', goal: { must: 1.5, aim: 1.8 } }],
  prepare: twoDeviceRig,
};
