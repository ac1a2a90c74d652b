/**
 * Pointer chase: every device follows a chain of its own, which is one cycle through all nodes in random order. Each load
 * decides where the next one goes, so pages are asked for one at a time, in no order that could be guessed.
 */
import type { Random } from '../../base/random.js';
import { allocate, BYTES_PER_ELEMENT, compare, compareAll, upload } from '../arrays.js';
import { together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

/** Chains that one device follows at a time. */
const LANES = 64;
const HOPS = 512;

export const pointerChaseWorkload: Workload = {
  name: 'pointer-chase',
  summary: 'follows a random cycle of links, a chain a device',
  defaultSize: 1 << 16,
  sizes: { min: 1, max: 1 << 24, meaning: 'nodes of each chain' },
  footprint: ({ size, deviceMemory }) => deviceMemory.length * (size + 3 * LANES) * BYTES_PER_ELEMENT.u32,
  run,
};

/** Where `hops` links lead from each start, and the sum of the nodes on the way modulo 2^32. */
export function pointerChaseReference(
  links: Uint32Array,
  starts: Uint32Array,
  hops: number,
): { readonly ends: Uint32Array; readonly sums: Uint32Array } {
  const ends = starts.slice();
  const sums = new Uint32Array(starts.length);
  for (let hop = 0; hop < hops; hop++) {
    for (let lane = 0; lane < starts.length; lane++) {
      ends[lane] = links[ends[lane]!]!;
      sums[lane]! += ends[lane]!;
    }
  }
  return { ends, sums };
}

/** A random permutation that is a single cycle. Sattolo's algorithm. */
export function randomCycle(random: Random, nodes: number): Uint32Array<ArrayBuffer> {
  const links = Uint32Array.from({ length: nodes }, (_, i) => i);
  for (let i = nodes - 1; i > 0; i--) {
    const j = random.below(i);
    [links[i], links[j]] = [links[j]!, links[i]!];
  }
  return links;
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const chains = [];
  for (const mirror of env.mirrors) {
    const links = randomCycle(env.random, env.size);
    const starts = new Uint32Array(LANES).map(() => env.random.below(env.size));
    chains.push({
      mirror,
      expected: pointerChaseReference(links, starts, HOPS),
      links: await upload(env, 'u32', links),
      starts: await upload(env, 'u32', starts),
      ends: await allocate(env, 'u32', LANES),
      sums: await allocate(env, 'u32', LANES),
    });
  }

  await together(
    chains.map(({ mirror, links, starts, ends, sums }) => {
      const args = { links: links.at(0), starts: starts.at(0), hops: HOPS, ends: ends.at(0), sums: sums.at(0) };
      return mirror.launch('pointer-chase', { lanes: LANES, args });
    }),
  );

  const comparisons = [];
  for (const { expected, ends, sums } of chains) {
    comparisons.push(compare('ends', expected.ends, await ends.read()));
    comparisons.push(compare('sums', expected.sums, await sums.read()));
  }
  return { ...compareAll(comparisons), expectFaults: 1, expectMigrations: 1 };
}
