/** GUPS: every device adds to random words of one table that all share, so its pages are torn between devices. */
import { BYTES_PER_ELEMENT, compare, upload } from '../arrays.js';
import { randomWords } from '../inputs.js';
import { together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

const WORDS_PER_PAGE = 1024;
/** Lanes of each device, and updates of each lane. */
const LANES = 64;
const UPDATES = 32;

export const randomUpdateWorkload: Workload = {
  name: 'random-update',
  summary: 'atomic additions all over a table that devices share (GUPS)',
  defaultSize: 16,
  sizes: { min: 1, max: 1 << 14, meaning: 'pages of the table' },
  footprint: ({ size }) => size * WORDS_PER_PAGE * BYTES_PER_ELEMENT.i32,
  run,
};

/** Make the updates of one lane in `table`. */
export function randomUpdateReference(table: Int32Array, seed: number, updates: number): void {
  let state = BigInt(seed);
  for (let i = 0; i < updates; i++) {
    state = BigInt.asUintN(32, state * 1664525n + 1013904223n);
    table[Number((state >> 8n) % BigInt(table.length))]! += Number(state & 0xffn);
  }
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const expected = randomWords(env.random, new Int32Array(env.size * WORDS_PER_PAGE));
  const table = await upload(env, 'i32', expected);
  const seed = env.random.next();
  await together(
    env.mirrors.map((mirror, device) => {
      const args = { table: table.at(0), words: table.count, updates: UPDATES, seed: seed + device * LANES };
      return mirror.launch('random-update', { lanes: LANES, args });
    }),
  );

  for (let lane = 0; lane < env.devices * LANES; lane++) {
    randomUpdateReference(expected, (seed + lane) % 2 ** 32, UPDATES);
  }
  return { ...compare('table', expected, await table.readHome()), expectFaults: 1, expectMigrations: 1 };
}
