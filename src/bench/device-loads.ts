/** Device loads that hit the TLB, in one worker, against plain typed-array loads of the same words on the main thread. */
import { PfnlessError } from '../base/errors.js';
import { boot } from '../check/boot.js';
import { type BenchResult, median, medianAbsoluteDeviation, timeMs } from './measure.js';

/** Words in the buffer: 8 pages, far fewer than the TLB has entries. */
const WORDS = 8 * 1024;
const LANES = 128;
const LOADS_A_LANE = 2 ** 17;
const LOADS = LANES * LOADS_A_LANE;
const WARM_UP = 2;
const SAMPLES = 15;
const BASE = 'plain-load';

export async function deviceLoads(): Promise<BenchResult[]> {
  const machine = await boot({
    name: 'bench',
    executor: 'threads',
    checks: false,
    memory: { ram: '256MiB' },
    devices: [{ name: 'gpu0', memory: '16MiB' }],
  });
  try {
    const process = await machine.process();
    const source = await process.mmap({ length: WORDS * 4 });
    const sums = await process.mmap({ length: LANES * 4 });
    const values = Int32Array.from({ length: WORDS }, (_, i) => i * 7);
    await process.writeArray('i32', source.start, values);
    const plain = new Int32Array(new SharedArrayBuffer(WORDS * 4));
    plain.set(values);
    const mirror = await process.mirror(0);
    await mirror.migrate(source, 'device');
    const program = new URL('./programs/load-loop.js', import.meta.url);
    const args = { source: source.start, words: WORDS, count: LOADS_A_LANE, sums: sums.start };
    const times = { base: [] as number[], loads: [] as number[] };
    for (let round = -WARM_UP; round < SAMPLES; round++) {
      let expected = 0;
      const baseMs = await timeMs(() => {
        for (let lane = 0; lane < LANES; lane++) expected = plainLoop(plain);
      });
      const loadMs = await timeMs(() => mirror.launch(program, { lanes: LANES, args }));
      const found = await process.readArray('i32', sums.start, LANES);
      if (found.some((sum) => sum !== expected)) {
        throw new PfnlessError('ERR_PFNLESS_PROGRAM', 'The device loaded the wrong words.');
      }
      if (round < 0) continue;
      times.base.push(baseMs / LOADS);
      times.loads.push(loadMs / LOADS);
    }
    const rate = times.loads.map((ms) => 1 / (ms * 1000));
    return [
      {
        name: 'device-load-tlb-hit',
        value: median(rate),
        unit: 'million loads/s',
        ratioTo: BASE,
        ratio: median(times.loads) / median(times.base),
        median: median(rate),
        mad: medianAbsoluteDeviation(rate),
        samples: rate.length,
      },
    ];
  } finally {
    await machine.dispose();
  }
}

/** The same loop over a plain typed array, once as long as one lane's. */
function plainLoop(words: Int32Array): number {
  let sum = 0;
  for (let i = 0; i < LOADS_A_LANE; i++) sum = (sum + words[i & (WORDS - 1)]!) | 0;
  return sum;
}
