/**
 * Producer and consumer: blocks of data go through all devices in a row, as in a pipeline. While device 1 works on what it
 * got from device 0, device 0 works on the next block; the CPU fills blocks at the front and takes them at the end.
 *
 *   CPU  ->  device 0  ->  device 1  ->  ..  ->  CPU
 *   block 3  block 2       block 1               block 0
 */
import { PAGE_SIZE } from '../../abi/address.js';
import { allocate, type Comparison, compare, compareAll } from '../arrays.js';
import { randomWords } from '../inputs.js';
import { lanesFor, together } from '../sharing.js';
import type { Workload, WorkloadEnv, WorkloadVerdict } from '../workload.js';

const BLOCKS = 8;
const WORDS_PER_PAGE = PAGE_SIZE / 4;

export const producerConsumerWorkload: Workload = {
  name: 'producer-consumer',
  summary: 'blocks go from the CPU through all devices and back',
  defaultSize: 64,
  sizes: { min: 1, max: 1 << 14, meaning: 'pages of each block' },
  footprint: ({ size }) => BLOCKS * size * PAGE_SIZE,
  run,
};

/** What comes out for a block: device d adds d + 1. */
export function producerConsumerReference(block: Int32Array, devices: number): Int32Array {
  return block.map((value) => value + (devices * (devices + 1)) / 2);
}

async function run(env: WorkloadEnv): Promise<WorkloadVerdict> {
  const count = env.size * WORDS_PER_PAGE;
  const comparisons: Comparison[] = [];
  const produced: Int32Array[] = [];
  const blocks = await allocate(env, 'i32', BLOCKS * count);

  for (let beat = 0; beat < BLOCKS + env.devices; beat++) {
    const stages = env.mirrors.map(async (mirror, device) => {
      const block = beat - 1 - device;
      if (block < 0 || block >= BLOCKS) return;
      const args = { target: blocks.at(block * count), count, stride: 4, by: device + 1 };
      await mirror.launch('increment', { lanes: lanesFor(count), args });
    });
    await together([...stages, produce(beat)]);
    await consume(beat - env.devices);
  }
  return { ...compareAll(comparisons), expectFaults: 1, expectMigrations: BLOCKS * env.size };

  async function produce(block: number): Promise<void> {
    if (block >= BLOCKS) return;
    produced[block] = randomWords(env.random, new Int32Array(count));
    await blocks.write(produced[block]!, block * count);
  }

  async function consume(block: number): Promise<void> {
    if (block < 0) return;
    const expected = producerConsumerReference(produced[block]!, env.devices);
    comparisons.push(compare(`block ${block}, word`, expected, await blocks.read(block * count, count)));
  }
}
