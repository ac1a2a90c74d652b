/** Faults that move a page: the CPU's on a page that is on a device, a device's on pages in RAM. */
import { PAGE_SIZE } from '../abi/address.js';
import { FAULT_BATCH_MAX } from '../abi/packet.js';
import type { Addressing, VirtRange } from '../machine/types.js';
import type { Kernel } from '../mm/kernel.js';
import { type MmStruct, mmOfPid } from '../mm/mm-struct.js';
import { copyFromUser } from '../mm/uaccess.js';
import type { Sleeps } from '../sync/task.js';
import { ROUND_TRIP_AND_COPY } from './bases.js';
import type { Benchmark, Rig } from './benchmark.js';
import { nsPerAsync } from './clock.js';
import { bootForBench, fillRange, migrateAll, pageAt, requireEqual, verifyRange } from './rig.js';

const PAGES = 1024;
const BYTES = PAGES * PAGE_SIZE;

/** A CPU thread that loads one byte of each page. */
function* touchEach(kernel: Kernel, mm: MmStruct, range: VirtRange): Sleeps<number> {
  const byte = new Uint8Array(1);
  let pages = 0;
  for (let at = 0; at < range.length; at += PAGE_SIZE) {
    const { fault } = yield* copyFromUser(kernel, mm, pageAt(range, at), byte);
    if (fault === 0) pages++;
  }
  return pages;
}

async function cpuFaultRig(addressing: Addressing): Promise<Rig> {
  const { machine, state } = await bootForBench(addressing, { ram: '256MiB', deviceMemory: '32MiB' });
  const { kernel, executor } = state;
  const process = await machine.process();
  const range = await process.mmap({ length: BYTES });
  const mirror = await process.mirror(0);
  await fillRange(process, range);
  const mm = mmOfPid(kernel, process.pid)!;
  return {
    async round() {
      await migrateAll(mirror, range, 'device');
      const before = (await machine.stats()).migratedToRam;
      let touched = 0;
      const ns = await nsPerAsync(PAGES, async () => {
        touched = await executor.run('touch each page', touchEach(kernel, mm, range));
      });
      requireEqual('pages touched', touched, PAGES);
      requireEqual('pages brought home', (await machine.stats()).migratedToRam - before, PAGES);
      return [ns];
    },
    verify: () => verifyRange(process, range),
    dispose: () => machine.dispose(),
  };
}

export const cpuFaults: Benchmark = {
  name: 'CPU faults on a device page, one by one',
  unit: 'ns a page',
  base: ROUND_TRIP_AND_COPY,
  addressed: true,
  subjects: [{ name: 'CPU fault-back', goal: { must: 3, aim: 2 }, kernelInstructions: 8700 }],
  prepare: cpuFaultRig,
};

/** Pages that one lane touches one after the other: few, as it executes what it has done again after each fault. */
const PAGES_A_LANE = 64;

/**
 * Launches of `lanes` lanes that touch `count` pages, on the whole range. Each is done again when nothing faults any more, and
 * that time taken off: a launch is a control call, whatever it touches.
 */
async function deviceFaultRig(addressing: Addressing, lanes: number, count: number): Promise<Rig> {
  const { machine } = await bootForBench(addressing, { ram: '256MiB', deviceMemory: '32MiB' });
  const process = await machine.process();
  const range = await process.mmap({ length: BYTES });
  const mirror = await process.mirror(0);
  await fillRange(process, range);
  const touchAll = async (): Promise<number> => {
    let faults = 0;
    for (let first = 0; first < PAGES; first += count) {
      const args = { target: pageAt(range, first * PAGE_SIZE), count, stride: PAGE_SIZE };
      faults += (await mirror.launch('touch', { lanes, args })).faults;
    }
    return faults;
  };
  return {
    async round() {
      let faults = 0;
      const faulting = await nsPerAsync(PAGES, async () => {
        faults = await touchAll();
      });
      const resident = await nsPerAsync(PAGES, touchAll);
      if (faults < PAGES) requireEqual('pages that faulted', faults, PAGES);
      await migrateAll(mirror, range, 'system');
      return [faulting - resident];
    },
    verify: () => verifyRange(process, range),
    dispose: () => machine.dispose(),
  };
}

export const deviceFaults: Benchmark = {
  name: 'device faults on a page in RAM, one by one',
  unit: 'ns a page',
  base: ROUND_TRIP_AND_COPY,
  addressed: true,
  subjects: [{ name: 'device fault', goal: { must: 3, aim: 2 } }],
  prepare: (addressing) => deviceFaultRig(addressing, 1, PAGES_A_LANE),
};

export const deviceFaultBatches: Benchmark = {
  name: `device faults on pages in RAM, ${FAULT_BATCH_MAX} at a time`,
  unit: 'ns a page',
  base: ROUND_TRIP_AND_COPY,
  addressed: true,
  subjects: [{ name: `device faults, batches of ${FAULT_BATCH_MAX}`, goal: { must: 1.3, aim: 1.1 } }],
  prepare: (addressing) => deviceFaultRig(addressing, FAULT_BATCH_MAX, FAULT_BATCH_MAX),
};
