/** What a process does with memory that is on a device, beside faults: fork, munmap, and hmm_range_fault over it. */
import { PAGE_SIZE } from '../abi/address.js';
import { HMM_PFN_VALID, hmmPfnFlags, makeHmmPfns } from '../abi/hmm-pfn.js';
import type { VirtAddr } from '../base/brand.js';
import type { Addressing } from '../machine/types.js';
import { type HmmRange, type HmmResult, hmmRangeFault } from '../mm/hmm.js';
import type { Kernel } from '../mm/kernel.js';
import { type MmStruct, mmOfPid } from '../mm/mm-struct.js';
import { mmuIntervalNotifierInsert, mmuIntervalNotifierRemove, mmuIntervalReadBegin } from '../mm/mmu-notifier.js';
import type { Sleeps } from '../sync/task.js';
import { atomicLoads, TWO_ATOMICS } from './bases.js';
import type { Benchmark, Rig } from './benchmark.js';
import { nsPerAsync } from './clock.js';
import { bootForBench, fillRange, migrateAll, requireEqual, verifyRange } from './rig.js';

const BYTES = 64 * 2 ** 20;
const PAGES = BYTES / PAGE_SIZE;

/** Fork copies the page table of 64 MiB on a device, and the child unmaps its copy. */
async function forkRig(addressing: Addressing): Promise<Rig> {
  const { machine } = await bootForBench(addressing, { ram: '512MiB', deviceMemory: '128MiB' });
  const parent = await machine.process();
  const range = await parent.mmap({ length: BYTES });
  const mirror = await parent.mirror(0);
  await fillRange(parent, range);
  await migrateAll(mirror, range, 'device');
  return {
    async round() {
      let child = parent;
      const forking = await nsPerAsync(PAGES, async () => {
        child = await parent.fork();
      });
      requireEqual('kB resident in the child', (await child.smaps(range)).rss, BYTES / 1024);
      const unmapping = await nsPerAsync(PAGES, () => child.munmap(range));
      requireEqual('kB resident in the child', (await child.smaps(range)).rss, 0);
      await child.exit();
      return [forking, unmapping];
    },
    verify: () => verifyRange(parent, range),
    dispose: () => machine.dispose(),
  };
}

export const forkAndUnmap: Benchmark = {
  name: '64 MiB on a device, forked and unmapped',
  unit: 'ns a page',
  base: TWO_ATOMICS,
  addressed: true,
  subjects: [
    { name: 'fork', goal: { must: 6, aim: 4 }, kernelInstructions: 1040 },
    { name: 'munmap', goal: { must: 8, aim: 5 }, kernelInstructions: 1040 },
  ],
  prepare: forkRig,
};

/** One call of hmm_range_fault, as a driver makes it. */
function* lookUp(kernel: Kernel, mm: MmStruct, range: Omit<HmmRange, 'notifierSeq'>): Sleeps<HmmResult> {
  yield* mm.mmapLock.downRead();
  try {
    const notifierSeq = yield* mmuIntervalReadBegin(range.notifier);
    range.hmmPfns.fill(0);
    return yield* hmmRangeFault(kernel, { ...range, notifierSeq });
  } finally {
    mm.mmapLock.upRead();
  }
}

async function lookUpRig(addressing: Addressing): Promise<Rig> {
  const { machine, state } = await bootForBench(addressing, { ram: '512MiB', deviceMemory: '128MiB' });
  const { kernel, executor, devices } = state;
  const process = await machine.process();
  const range = await process.mmap({ length: BYTES });
  const mirror = await process.mirror(0);
  await fillRange(process, range);
  const mm = mmOfPid(kernel, process.pid)!;
  const notifier = mmuIntervalNotifierInsert(mm, range.start, range.start + BYTES, { *invalidate() {} });
  const request = {
    ...{
      notifier,
      start: range.start as VirtAddr,
      end: (range.start + BYTES) as VirtAddr,
      hmmPfns: makeHmmPfns(PAGES),
    },
    ...{ defaultFlags: 0, pfnFlagsMask: 0, devPrivateOwner: devices[0]!.driver.inspect?.().owner ?? null },
  };
  const sample = (times: number) =>
    nsPerAsync(PAGES * times, async () => {
      for (let i = 0; i < times; i++) await executor.run('hmm_range_fault', lookUp(kernel, mm, request));
      for (let i = 0; i < PAGES; i++) {
        if ((hmmPfnFlags(request.hmmPfns, i) & HMM_PFN_VALID) === 0) requireEqual('word', i, 'valid');
      }
    });
  return {
    async round() {
      const inRam = await sample(16);
      await migrateAll(mirror, range, 'device');
      const onDevice = await sample(16);
      await migrateAll(mirror, range, 'system');
      return [inRam, onDevice];
    },
    async dispose() {
      await executor.run('remove notifier', mmuIntervalNotifierRemove(notifier));
      await machine.dispose();
    },
  };
}

export const rangeLookUp: Benchmark = {
  name: 'hmm_range_fault over 64 MiB',
  unit: 'ns a page',
  base: atomicLoads(1),
  addressed: true,
  subjects: [
    { name: 'hmm_range_fault, resident in RAM', goal: { must: 5, aim: 3 } },
    { name: 'hmm_range_fault, resident on the device', goal: { must: 5, aim: 3 } },
  ],
  prepare: lookUpRig,
};
