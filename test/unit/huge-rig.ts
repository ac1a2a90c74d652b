/** A machine, a process and memory that may be huge, for tests of huge pages: inline, small, checked to its end. */
import { expect } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { ALL_CHECKERS } from '#src/check/boot';
import { bootWithState } from '#src/machine/boot';
import type { MachineSpecInput } from '#src/machine/spec';
import type { MachineState } from '#src/machine/state';
import type { Machine, Mirror, Process, VirtRange } from '#src/machine/types';

export const PAGE = 4096;
/** Pages of a huge page. */
export const HUGE = 512;
const WORDS = PAGE / 8;

export class HugeRig {
  readonly machine: Machine;
  readonly state: MachineState;
  readonly process: Process;
  readonly mirrors: readonly Mirror[];

  constructor(machine: Machine, state: MachineState, process: Process, mirrors: readonly Mirror[]) {
    this.machine = machine;
    this.state = state;
    this.process = process;
    this.mirrors = mirrors;
  }

  get mirror(): Mirror {
    return this.mirrors[0]!;
  }

  /** Memory for so many pages, advised, untouched. */
  async area(pages = HUGE, process = this.process): Promise<VirtRange> {
    const range = await process.mmap({ length: pages * PAGE });
    await process.madvise(range, 'HUGEPAGE');
    return range;
  }

  /** The same with contents: page i is full of `value + i`. */
  async filled(pages = HUGE, value = 1000): Promise<VirtRange> {
    const range = await this.area(pages);
    await this.fill(range, value);
    return range;
  }

  async fill(range: VirtRange, value: number, process = this.process): Promise<void> {
    await process.writeArray('f64', range.start, numbers(range.length / PAGE, value));
  }

  /** Each page is full of its number; `null` for pages of zeroes. */
  async expectFilled(range: VirtRange, value: number | null, process = this.process): Promise<void> {
    const pages = range.length / PAGE;
    const words = await process.readArray('f64', range.start, pages * WORDS);
    const wanted = value === null ? new Float64Array(pages * WORDS) : numbers(pages, value);
    const at = words.findIndex((word, i) => word !== wanted[i]);
    expect({ at, word: words[at] }).toEqual({ at: -1, word: undefined });
  }

  /** Huge pages that map the range. */
  async hugePages(range: VirtRange, process = this.process): Promise<number> {
    return (await process.smaps(range)).ahp / 2048;
  }

  async rss(range: VirtRange, process = this.process): Promise<number> {
    return (await process.smaps(range)).rss / 4;
  }

  async used(device = 0): Promise<number> {
    return (await this.machine.stats()).devices[device]!.usedPages;
  }

  async check(): Promise<void> {
    expect(await this.machine.check()).toEqual([]);
  }

  /** Take single frames of RAM until no block of 2 MiB is left, and leave `free` pages, scattered. */
  async fragment(free: number): Promise<VirtRange> {
    const { buddy } = this.state.kernel;
    const range = await this.process.mmap({ length: (buddy.freePagesCount - 64) * PAGE });
    await this.process.madvise(range, 'NOHUGEPAGE');
    for (let page = 0; page * PAGE < range.length; page++) await this.fill(part(range, page, 1), 7);
    // Every second page goes: neighbours in memory are neighbours in RAM, as the allocator gives them in runs.
    for (let page = 0; page < 2 * free; page += 2) await this.process.madvise(part(range, page, 1), 'DONTNEED');
    expect(buddy.has(9)).toBe(false);
    return range;
  }
}

const numbers = (pages: number, value: number): Float64Array =>
  Float64Array.from({ length: pages * WORDS }, (_, i) => value + Math.floor(i / WORDS));

export const part = ({ start }: VirtRange, first: number, pages: number): VirtRange => ({
  start: (start + first * PAGE) as VirtAddr,
  length: pages * PAGE,
});

/** Run a test on a machine of its own; everything exits, and nothing may be left. `failed`: frames of RAM that are gone for good. */
export async function withHuge(
  spec: MachineSpecInput,
  body: (rig: HugeRig) => Promise<void>,
  failed = 0,
): Promise<void> {
  const device = { memory: '8MiB', chunk: '4MiB' };
  const { machine, state } = await bootWithState(
    { executor: 'inline', memory: { ram: '32MiB' }, devices: [device, { ...device, name: 'other' }], ...spec },
    ALL_CHECKERS,
  );
  try {
    const before = (await machine.stats()).freeRamPages;
    const process = await machine.process();
    const mirrors: Mirror[] = [];
    for (let device = 0; device < machine.deviceCount; device++) {
      mirrors.push(await process.mirror(device, { onFault: 'mirror' }));
    }
    await body(new HugeRig(machine, state, process, mirrors));
    expect(await machine.check()).toEqual([]);
    await process.exit();
    expect(await machine.check()).toEqual([]);
    const { devices, freeRamPages } = await machine.stats();
    expect(freeRamPages).toBe(before - failed);
    expect(devices.map(({ usedPages }) => usedPages).every((used) => used === 0)).toBe(true);
  } finally {
    await machine.dispose();
  }
}
