/**
 * Ping-pong: devices and the CPU take turns in adding to the same pages, and every value is looked at in every round. The
 * CPU's turn faults the pages back one at a time, as a program that knows nothing of devices would. The devices' shares go
 * round, so that each page visits every device.
 */
import { BYTES_PER_ELEMENT, compare, compareAll, upload } from '../arrays.js';
import { randomWords } from '../inputs.js';
import { lanesFor, shareOut, together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

const ROUNDS = 8;
const WORDS_PER_PAGE = 1024;
const DEVICE_ADDS = 3;
const CPU_ADDS = 5;

export const pingPongWorkload: Workload = {
  name: 'ping-pong',
  summary: `CPU and devices increment the same pages in turn, ${ROUNDS} rounds`,
  defaultSize: 128,
  sizes: { min: 1, max: 1 << 16, meaning: 'pages' },
  footprint: ({ size }) => size * WORDS_PER_PAGE * BYTES_PER_ELEMENT.i32,
  run,
};

/** What the words hold after the devices' turn of a round, counted from 0. */
export function pingPongReference(start: Int32Array, round: number): Int32Array {
  return start.map((value) => value + (round + 1) * DEVICE_ADDS + round * CPU_ADDS);
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const start = randomWords(env.random, new Int32Array(env.size * WORDS_PER_PAGE));
  const words = await upload(env, 'i32', start);
  const shares = shareOut(env, env.size);

  const comparisons = [];
  for (let round = 0; round < ROUNDS; round++) {
    await together(
      shares.map(({ first, count }, turn) => {
        const { mirror } = shares[(turn + round) % shares.length]!;
        const args = {
          target: words.at(first * WORDS_PER_PAGE),
          count: count * WORDS_PER_PAGE,
          stride: 4,
          by: DEVICE_ADDS,
        };
        return mirror.launch('increment', { lanes: lanesFor(args.count), args });
      }),
    );
    const values = await words.read();
    comparisons.push(compare(`round ${round}`, pingPongReference(start, round), values));
    await words.write(values.map((value) => value + CPU_ADDS));
  }

  return { ...compareAll(comparisons), expectFaults: ROUNDS, expectMigrations: ROUNDS };
}
