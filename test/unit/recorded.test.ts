/** What recordings of a real kernel (7.2.13) showed that reading its sources had not: each in a few lines, beside the golden traces. */
import { boot, decodePagemap, type Machine, type Process, type VirtRange } from 'pfnless';
import { describe, expect, it } from 'vitest';

const PAGE = 4096;
const HUGE = 2 ** 21;

async function withMachine(body: (machine: Machine, process: Process) => Promise<void>): Promise<void> {
  const spec = { name: 'recorded', executor: 'inline', memory: { ram: '64MiB' }, swap: ['4MiB'] } as const;
  const machine = await boot({ ...spec, devices: [{ memory: '16MiB' }] });
  const process = await machine.process();
  await body(machine, process);
  await process.exit();
  expect(await machine.check()).toEqual([]);
  await machine.dispose();
}

const part = ({ start }: VirtRange, page: number, pages: number): VirtRange => ({
  start: start + page * PAGE,
  length: pages * PAGE,
});
const softDirty = async (process: Process, range: VirtRange): Promise<boolean[]> =>
  [...(await process.pagemap(range))].map((word) => decodePagemap(word, 'offset').softDirty);

/** Huge pages, written to. */
async function hugePages(process: Process, count: number): Promise<VirtRange> {
  const range = await process.mmap({ length: count * HUGE, at: 0x1000_0000 });
  await process.madvise(range, 'HUGEPAGE');
  await process.write(range.start, new Uint8Array(range.length).fill(7));
  return range;
}

describe('as recorded', () => {
  it('mprotect of several pages of what was a huge page: all count as written if one behind the first is dirty', () =>
    withMachine(async (_, process) => {
      const range = await hugePages(process, 1);
      await process.munmap(part(range, 511, 1));
      await process.clearRefs('soft-dirty');
      await process.mprotect(part(range, 10, 1), 'r');
      expect(await softDirty(process, part(range, 10, 1))).toEqual([false]);
      await process.mprotect(part(range, 20, 3), 'r');
      expect(await softDirty(process, part(range, 19, 5))).toEqual([false, true, true, true, false]);
    }));

  it('a page that came back from swap stays in the swap cache while somebody maps it, when its last entry goes', () =>
    withMachine(async (machine, process) => {
      const range = await process.mmap({ length: PAGE });
      await process.write(range.start, Uint8Array.of(1));
      await process.madvise(range, 'PAGEOUT');
      const child = await process.fork();
      expect(decodePagemap((await child.pagemap(range))[0]!, 'offset').kind).toBe('swap');
      await child.read(range.start, 1);
      const cached = async (): Promise<number> => Number(/SwapCached: +(\d+)/.exec(await machine.proc('meminfo'))![1]);
      expect(await cached()).toBe(4);
      await process.munmap(range);
      expect(await cached()).toBe(4);
      expect((await child.smaps(range)).prc).toBe(4);
      await child.munmap(range);
      expect(await cached()).toBe(0);
      await child.exit();
    }));

  it('MREMAP_DONTUNMAP unlocks what has moved and nothing beside it', () =>
    withMachine(async (_, process) => {
      const range = await process.mmap({ length: 8 * PAGE });
      await process.mlock(range);
      await process.mremap(part(range, 2, 3), { to: 0x2000_0000, dontUnmap: true });
      const vmas = (await process.smaps(range)).vmas.map(([page, pages]) => [page, pages]);
      expect(vmas).toEqual([
        [0, 2],
        [2, 3],
        [5, 3],
      ]);
      expect((await process.smaps(range)).lck).toBe(5 * 4);
    }));

  it('what is left behind by MREMAP_DONTUNMAP merges with what is mapped beside it', () =>
    withMachine(async (_, process) => {
      const range = await process.mmap({ length: 2 * PAGE, at: 0x1000_0000 });
      await process.write(range.start, Uint8Array.of(1));
      await process.mremap(range, { to: 0x2000_0000 });
      await process.mremap({ start: 0x2000_0000, length: 2 * PAGE }, { to: 0x3000_0000, dontUnmap: true });
      await process.mmap({ length: PAGE, at: 0x2000_2000 });
      expect((await process.smaps({ start: 0x2000_0000, length: 3 * PAGE })).vmas).toEqual([[0, 3, 'rw-p']]);
    }));

  it('protection that only a userfaultfd needed is not given back to dirty shared memory: it faults once more', () =>
    withMachine(async (machine, process) => {
      const range = await process.mmap({ length: PAGE, shared: true });
      await process.write(range.start, Uint8Array.of(1));
      const watcher = await process.userfaultfd({ wpAsync: true });
      await watcher.register(range);
      await watcher.close();
      const { cpuFaults } = await machine.stats();
      await process.write(range.start, Uint8Array.of(2));
      expect((await machine.stats()).cpuFaults).toBe(cpuFaults + 1);
    }));

  it('a fault in the middle of a huge page that is mapped by small entries splits it, and is made again', () =>
    withMachine(async (machine, process) => {
      const range = await hugePages(process, 1);
      const mirror = await process.mirror(0);
      await mirror.migrate(range, 'device');
      await process.munmap(part(range, 0, 1));
      const { cpuFaults } = await machine.stats();
      expect((await process.read(range.start + 9 * PAGE, 1))[0]).toBe(7);
      expect((await machine.stats()).cpuFaults).toBe(cpuFaults + 2);
      const kinds = [...(await process.pagemap(part(range, 8, 3)))].map((word) => decodePagemap(word, 'offset').kind);
      expect(kinds).toEqual(['device-private-write', 'present', 'device-private-write']);
    }));
});
