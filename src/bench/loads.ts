/** Loads of a device's lanes from its own memory: with a translation in the TLB, and without. */
import { PAGE_SIZE } from '../abi/address.js';
import type { Addressing } from '../machine/types.js';
import { atomicLoads, PLAIN_LOAD } from './bases.js';
import type { Benchmark, Rig } from './benchmark.js';
import { nsPerAsync } from './clock.js';
import { bootForBench, migrateAll, requireEqual } from './rig.js';

const LANES = 128;
const PROGRAM = new URL('../bench/programs/load-loop.js', import.meta.url);

interface Loads {
  /** Words that a lane loads one after the other, `stride` bytes apart, again and again from the first. */
  readonly words: number;
  readonly stride: number;
  readonly count: number;
  /** Of all loads, how many miss the TLB at the least and at the most. */
  readonly misses: readonly [number, number];
}

async function loadRig(addressing: Addressing, { words, stride, count, misses }: Loads): Promise<Rig> {
  const { machine } = await bootForBench(addressing, { ram: '256MiB', deviceMemory: '64MiB' });
  const process = await machine.process();
  const source = await process.mmap({ length: words * stride });
  const sums = await process.mmap({ length: LANES * 4 });
  const values = Int32Array.from({ length: (words * stride) / 4 }, (_, i) => i * 7);
  await process.writeArray('i32', source.start, values);
  let expected = 0;
  for (let i = 0; i < count; i++) expected = (expected + values[((i % words) * stride) / 4]!) | 0;
  const mirror = await process.mirror(0);
  await migrateAll(mirror, source, 'device');
  const end = source.start + source.length;
  const args = { start: source.start, end, stride, times: count / words, sums: sums.start };
  return {
    async round() {
      // The page of the sums goes to the device first: it would be a fault for each lane, which would run twice.
      await mirror.launch(PROGRAM, { lanes: LANES, args: { ...args, times: 0 } });
      const before = (await machine.stats()).devices[0]!.tlbMisses;
      const ns = await nsPerAsync(LANES * count, () => mirror.launch(PROGRAM, { lanes: LANES, args }));
      const missed = ((await machine.stats()).devices[0]!.tlbMisses - before) / (LANES * count);
      if (missed < misses[0] || missed > misses[1])
        requireEqual('loads that missed the TLB', missed, misses.join(' to '));
      const found = await process.readArray('i32', sums.start, LANES);
      for (const sum of found) requireEqual('sum of the words loaded', sum, expected);
      return [ns];
    },
    dispose: () => machine.dispose(),
  };
}

export const tlbHits: Benchmark = {
  name: 'device loads that hit the TLB',
  unit: 'ns a load',
  base: PLAIN_LOAD,
  addressed: false,
  subjects: [{ name: 'device load, TLB hit', goal: { must: 8, aim: 4 } }],
  // 8 pages, far fewer than the TLB has entries.
  prepare: (addressing) => loadRig(addressing, { words: 8 * 1024, stride: 4, count: 2 ** 16, misses: [0, 0.01] }),
};

export const tlbMisses: Benchmark = {
  name: 'device loads that miss the TLB',
  unit: 'ns a load',
  base: atomicLoads(4),
  addressed: false,
  subjects: [{ name: 'device load, TLB miss', goal: { must: 4, aim: 2.5 } }],
  // A word of each of 8,192 pages in turn: each is pushed out of the TLB before its turn comes again.
  prepare: (addressing) =>
    loadRig(addressing, { words: 8192, stride: PAGE_SIZE, count: 2 ** 13, misses: [0.99, 1.01] }),
};
