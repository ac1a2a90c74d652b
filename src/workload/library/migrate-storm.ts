/**
 * Migration storm: all devices and the CPU want the same pages at the same time, so that a page is asked for, unmapped,
 * copied and taken away again while others are about to use it. The words of each page:
 *
 *   0, 64, 128 .. 960   everybody's: each device adds 1 to each of them, atomically, in every round
 *   1                   the CPU's own: read, add 1, write, in every round
 *
 * An addition that is lost or done twice anywhere shows in the final counts.
 */
import { PAGE_SIZE } from '../../abi/address.js';
import { compare, type SharedArray, upload } from '../arrays.js';
import { together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

const ROUNDS = 4;
const WORDS_PER_PAGE = 1024;
/** Words from one of everybody's to the next. */
const SPACING = 64;
const CPU_WORD = 1;

export const migrateStormWorkload: Workload = {
  name: 'migrate-storm',
  summary: 'all devices and the CPU pull the same pages from each other',
  defaultSize: 32,
  sizes: { min: 1, max: 1 << 14, meaning: 'pages' },
  footprint: ({ size }) => size * PAGE_SIZE,
  run,
};

/** The words of `pages` pages after the storm. */
export function migrateStormReference(pages: number, devices: number): Int32Array {
  return new Int32Array(pages * WORDS_PER_PAGE).map((_, i) => {
    const word = i % WORDS_PER_PAGE;
    if (word % SPACING === 0) return devices * ROUNDS;
    return word === CPU_WORD ? ROUNDS : 0;
  });
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const words = await upload(env, 'i32', new Int32Array(env.size * WORDS_PER_PAGE));
  const args = {
    target: words.at(0),
    count: (env.size * WORDS_PER_PAGE) / SPACING,
    stride: SPACING * 4,
    by: 1,
  };
  const deviceRounds = env.mirrors.map(async (mirror) => {
    for (let round = 0; round < ROUNDS; round++) {
      await mirror.launch('atomic-increment', { lanes: env.size, groupSize: 8, args });
    }
  });
  await together([...deviceRounds, cpuRounds(words, env.size)]);

  const comparison = compare('word', migrateStormReference(env.size, env.devices), await words.readHome());
  return { ...comparison, expectFaults: 1, expectMigrations: env.size };
}

async function cpuRounds(words: SharedArray<'i32'>, pages: number): Promise<void> {
  for (let round = 0; round < ROUNDS; round++) {
    for (let page = 0; page < pages; page++) {
      const own = page * WORDS_PER_PAGE + CPU_WORD;
      const values = await words.read(own, 1);
      await words.write(
        values.map((value) => value + 1),
        own,
      );
    }
  }
}
