/** Bulk migration of 64 MiB in 4 KiB pages, to a device in a worker and back, against a plain page copy of as many bytes. */
import { PfnlessError } from '../base/errors.js';
import { boot } from '../check/boot.js';
import type { Mirror, Process, VirtRange } from '../machine/types.js';
import { type BenchResult, median, medianAbsoluteDeviation, timeMs } from './measure.js';
import { PageCopyBase } from './page-copy.js';

const BYTES = 64 * 2 ** 20;
/** Word i holds i times this: every page differs from every other. */
const PATTERN = 0x9e3779b1;
const WARM_UP = 3;
const SAMPLES = 15;
const BASE = 'page-copy-64MiB';

export async function bulkMigration(addressing: 'legacy' | 'offset'): Promise<BenchResult[]> {
  const machine = await boot({
    name: 'bench',
    addressing,
    executor: 'threads',
    checks: false,
    memory: { ram: '1GiB' },
    devices: [{ name: 'gpu0', memory: '128MiB', chunk: '128MiB' }],
  });
  try {
    const process = await machine.process();
    const range = await process.mmap({ length: BYTES });
    const mirror = await process.mirror(0);
    const base = new PageCopyBase(BYTES);
    await process.writeArray('i32', range.start, pattern());
    const times = { base: [] as number[], toDevice: [] as number[], toRam: [] as number[] };
    for (let round = -WARM_UP; round < SAMPLES; round++) {
      const baseMs = await timeMs(() => base.run());
      const toDevice = await timeMs(() => move(mirror, range, 'device'));
      const toRam = await timeMs(() => move(mirror, range, 'system'));
      if (round < 0) continue;
      times.base.push(baseMs);
      times.toDevice.push(toDevice);
      times.toRam.push(toRam);
    }
    // What a round moves wrongly stays wrong in those that follow: one look at the end sees it, and no round has to read.
    await verify(process, range);
    return [
      result(`${BASE} (${addressing} run)`, times.base, null),
      result(`migrate-to-device-64MiB (${addressing})`, times.toDevice, times.base),
      result(`migrate-to-ram-64MiB (${addressing})`, times.toRam, times.base),
    ];
  } finally {
    await machine.dispose();
  }
}

function result(name: string, times: readonly number[], base: readonly number[] | null): BenchResult {
  const value = median(times);
  return {
    name,
    value,
    unit: 'ms',
    ratioTo: base === null ? null : BASE,
    ratio: base === null ? null : value / median(base),
    median: value,
    mad: medianAbsoluteDeviation(times),
    samples: times.length,
  };
}

function pattern(): Int32Array {
  const data = new Int32Array(BYTES / 4);
  for (let i = 0; i < data.length; i++) data[i] = Math.imul(i, PATTERN);
  return data;
}

/** All pages, or the figure would mean nothing. */
async function move(mirror: Mirror, range: VirtRange, to: 'device' | 'system'): Promise<void> {
  const { migrated, requested } = await mirror.migrate(range, to);
  if (migrated !== requested) {
    throw new PfnlessError('ERR_PFNLESS_ERRNO', `Only ${migrated} of ${requested} pages moved to the ${to}.`);
  }
}

async function verify(process: Process, range: VirtRange): Promise<void> {
  const found = await process.readArray('i32', range.start, BYTES / 4);
  for (let i = 0; i < found.length; i++) {
    if (found[i] === Math.imul(i, PATTERN)) continue;
    throw new PfnlessError('ERR_PFNLESS_ERRNO', `The migration moved the wrong bytes (word ${i}).`);
  }
}
