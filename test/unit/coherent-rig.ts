/** A process with mirrors on two coherent devices and a private one, and a look into the kernel: inline, both addressings. */
import { expect } from 'vitest';
import type { Errno } from '#src/abi/errno';
import type { VirtAddr } from '#src/base/brand';
import { ALL_CHECKERS } from '#src/check/boot';
import { bootWithState } from '#src/machine/boot';
import type { MachineState } from '#src/machine/state';
import type { Machine, Mirror, Process, VirtRange } from '#src/machine/types';
import type { Sleeps } from '#src/sync/task';

export const PAGE = 4096;
/** Where the first coherent device's memory is, and the second's. */
export const WINDOWS = [2 ** 33, 2 ** 32 + 2 ** 27] as const;
/** Snapshot codes. */
export const LOCAL = 0x40;
export const REMOTE = 0x50;
export const READ = 1;
export const WRITE = 2;

export interface CoherentRig {
  readonly machine: Machine;
  readonly state: MachineState;
  readonly process: Process;
  /** Coherent, coherent, private; faults map pages where they are. */
  readonly mirrors: readonly [Mirror, Mirror, Mirror];
  /** Anonymous memory of some pages, page i filled with i + 1. */
  filled(pages: number): Promise<VirtRange>;
  /** First byte of each page, as the CPU reads it. */
  bytes(range: VirtRange, process?: Process): Promise<number[]>;
  codes(range: VirtRange, mirror: Mirror): Promise<number[]>;
  /** PFN of each page, from /proc/PID/pagemap. */
  pfns(range: VirtRange, process?: Process): Promise<number[]>;
  /** Pages in use on each device. */
  used(): Promise<number[]>;
  run<T>(task: Sleeps<T>): Promise<T>;
}

export const part = ({ start }: VirtRange, first: number, pages: number): VirtRange => ({
  start: (start + first * PAGE) as VirtAddr,
  length: pages * PAGE,
});

export const upTo = (count: number, from = 1): number[] => Array.from({ length: count }, (_, i) => from + i);

/** The code of an errno error, or what came instead. */
export const errnoOf = (outcome: Promise<unknown>): Promise<Errno | unknown> =>
  outcome.then(
    (value) => value,
    (error: { errno?: Errno }) => error.errno ?? error,
  );

/** Run a test on a machine of its own, which must be as new afterwards. */
export async function withCoherent(
  addressing: 'legacy' | 'offset',
  body: (rig: CoherentRig) => Promise<void>,
): Promise<void> {
  const { machine, state } = await bootWithState(
    {
      addressing,
      executor: 'inline',
      memory: { ram: '32MiB' },
      devices: [
        { memory: '2MiB', type: 'coherent', address: WINDOWS[0] },
        { memory: '2MiB', type: 'coherent', address: WINDOWS[1] },
        { memory: '2MiB' },
      ],
    },
    ALL_CHECKERS,
  );
  await using _ = machine;
  const free = (await machine.stats()).freeRamPages;
  const process = await machine.process();
  const mirrors: Mirror[] = [];
  for (let device = 0; device < 3; device++) mirrors.push(await process.mirror(device, { onFault: 'mirror' }));
  await body({
    machine,
    state,
    process,
    mirrors: mirrors as unknown as CoherentRig['mirrors'],
    async filled(pages) {
      const range = await process.mmap({ length: pages * PAGE });
      for (let i = 0; i < pages; i++) await process.write(part(range, i, 1).start, new Uint8Array(PAGE).fill(i + 1));
      return range;
    },
    async bytes(range, reader = process) {
      const found: number[] = [];
      for (let at = 0; at < range.length; at += PAGE) {
        const page = await reader.read((range.start + at) as VirtAddr, PAGE);
        expect(page[PAGE - 1]).toBe(page[0]);
        found.push(page[0]!);
      }
      return found;
    },
    codes: async (range, mirror) => [...(await mirror.snapshot(range))],
    pfns: async (range, of = process) => [...(await of.pagemap(range))].map((word) => Number(word & (2n ** 55n - 1n))),
    used: async () => (await machine.stats()).devices.map(({ usedPages }) => usedPages),
    run: (task) => state.executor.run('test', task),
  });
  expect(await machine.check()).toEqual([]);
  await process.exit();
  expect(await machine.check()).toEqual([]);
  const { devices, freeRamPages } = await machine.stats();
  expect(devices.map(({ usedPages }) => usedPages)).toEqual([0, 0, 0]);
  expect(freeRamPages).toBe(free);
}
