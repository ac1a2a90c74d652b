/** A process with 16 pages and mirrors on two devices, for tests of the test driver: inline, both addressings. */
import { expect } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { boot } from '#src/check/boot';
import type { DeviceAccess, Machine, Mirror, Process, VirtRange } from '#src/machine/types';

export const PAGE = 4096;
/** Pages of the arena; only the first 12 are mapped at the start. */
export const ARENA = 16;
export const MAPPED = 12;

export class Rig {
  readonly machine: Machine;
  readonly process: Process;
  readonly mirror: Mirror;
  readonly #base: VirtAddr;

  constructor(machine: Machine, process: Process, mirror: Mirror, base: VirtAddr) {
    this.machine = machine;
    this.process = process;
    this.mirror = mirror;
    this.#base = base;
  }

  at(page: number, pages: number): VirtRange {
    return { start: (this.#base + page * PAGE) as VirtAddr, length: pages * PAGE };
  }

  /** CPU: store `value + page` in the first and the last word of each page. */
  async store(page: number, pages: number, value: number, process = this.process): Promise<void> {
    for (let i = page; i < page + pages; i++) {
      const { start } = this.at(i, 1);
      await process.writeArray('f64', start, Float64Array.of(value + i));
      await process.writeArray('f64', (start + PAGE - 8) as VirtAddr, Float64Array.of(value + i));
    }
  }

  async load(page: number, process = this.process): Promise<number> {
    return (await process.readArray('f64', this.at(page, 1).start, 1))[0]!;
  }

  read(page: number, pages: number, mirror = this.mirror): Promise<DeviceAccess> {
    return mirror.readPages(this.at(page, pages));
  }

  write(page: number, pages: number, value: bigint, mirror = this.mirror): Promise<DeviceAccess> {
    return mirror.writePages(
      this.at(page, pages),
      Array.from({ length: pages }, (_, i) => value + BigInt(page + i)),
    );
  }

  migrate(page: number, pages: number, to: 'device' | 'system', mirror = this.mirror) {
    return mirror.migrate(this.at(page, pages), to);
  }

  /** Snapshot codes. */
  async codes(page: number, pages: number, mirror = this.mirror): Promise<number[]> {
    return [...(await mirror.snapshot(this.at(page, pages)))];
  }

  /** Rounds of faults that a read of one page takes: 0 if the mirror has it. */
  async missing(page: number, mirror = this.mirror): Promise<boolean> {
    return (await mirror.peekPages(this.at(page, 1))).errno === 'ENOENT';
  }
}

/** Run a test on a machine of its own; afterwards nothing may be left. */
export async function withRig(addressing: 'legacy' | 'offset', body: (rig: Rig) => Promise<void>): Promise<void> {
  const device = { memory: '8MiB', chunk: '4MiB' };
  await using machine = await boot({
    addressing,
    executor: 'inline',
    memory: { ram: '64MiB' },
    devices: [device, device],
  });
  const process = await machine.process();
  const arena = await process.mmap({ length: ARENA * PAGE });
  const rig = new Rig(machine, process, await process.mirror(0, { onFault: 'mirror' }), arena.start as VirtAddr);
  await process.munmap(rig.at(MAPPED, ARENA - MAPPED));
  await body(rig);
  expect(await machine.check()).toEqual([]);
  await process.exit();
  expect(await machine.check()).toEqual([]);
  expect((await machine.stats()).devices.map(({ usedPages }) => usedPages)).toEqual([0, 0]);
}
