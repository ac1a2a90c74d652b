/** Shared memory in swap: it leaves page tables and page cache together, and comes back for all who share it. */
import { describe, expect, test } from 'vitest';
import type { Process, VirtRange } from '#src/machine/types';
import { HUGE, type HugeRig, PAGE, part, withHuge } from './huge-rig';

/** Where it lies, so that 2 MiB of the object are 2 MiB of addresses. */
const START = 2 ** 40;

/** Shared memory, page i full of `1000 + i`. */
async function shared(rig: HugeRig, pages: number): Promise<VirtRange> {
  const range = await rig.process.mmap({ at: START, length: pages * PAGE, shared: true });
  await rig.fill(range, 1000);
  return range;
}

const slots = ({ machine }: HugeRig): number => {
  const { SwapTotal, SwapFree } = machine.meminfo();
  return (SwapTotal - SwapFree) / 4;
};

/** In pages; `mapped`: words of pagemap that are not 0. */
const where = async (process: Process, range: VirtRange) => {
  const { rss, swap } = await process.smaps(range);
  const mapped = (await process.pagemap(range)).filter((word) => word >> 61n !== 0n).length;
  const inCore = (await process.mincore(range)).filter((core) => core === 1).length;
  return { rss: rss / 4, swap: swap / 4, mapped, inCore };
};
const all = (pages: number) => ({ rss: pages, swap: 0, mapped: pages, inCore: pages });
const out = (pages: number) => ({ rss: 0, swap: pages, mapped: 0, inCore: 0 });
const unmapped = (pages: number) => ({ rss: 0, swap: 0, mapped: 0, inCore: pages });

describe.each(['legacy', 'offset'] as const)('shared memory in swap (%s)', (addressing) => {
  const run = (body: (rig: HugeRig) => Promise<void>, swap = '8MiB') => withHuge({ addressing, swap: [swap] }, body);

  test('it goes when one process alone maps it, and comes back for both', () =>
    run(async (rig) => {
      const range = await shared(rig, 4);
      const child = await rig.process.fork();
      // A store, which maps one page: a load would map what there is around it as well.
      await rig.fill(part(range, 0, 1), 1000, child);
      await rig.process.madvise(range, 'PAGEOUT');
      expect(await where(rig.process, range)).toEqual({ rss: 1, swap: 3, mapped: 1, inCore: 1 });
      expect(await where(child, range)).toEqual({ rss: 1, swap: 3, mapped: 1, inCore: 1 });
      expect(rig.machine.meminfo()).toMatchObject({ Shmem: 4, SwapCached: 0 });
      expect(slots(rig)).toBe(3);
      await rig.check();
      // No part of it is the process's own.
      expect(await rig.process.proc('smaps')).toMatch(/Swap: +12 kB\nSwapPss: +0 kB\n/);
      expect(await rig.process.status()).toMatchObject({ VmSwap: 0 });
      await rig.fill(part(range, 2, 1), 5002, child);
      await rig.expectFilled(part(range, 2, 1), 5002);
      await child.exit();
      await rig.expectFilled(part(range, 0, 2), 1000);
      await rig.expectFilled(part(range, 3, 1), 1003);
      expect(await where(rig.process, range)).toEqual(all(4));
      expect(slots(rig)).toBe(0);
    }));

  test('what nobody has written is dropped without a slot', () =>
    run(async (rig) => {
      const range = await rig.process.mmap({ at: START, length: 4 * PAGE, shared: true });
      await rig.expectFilled(range, null);
      await rig.fill(part(range, 1, 1), 1001);
      await rig.process.madvise(range, 'PAGEOUT');
      expect([await where(rig.process, range), slots(rig)]).toEqual([{ ...out(4), swap: 1 }, 1]);
      await rig.expectFilled(part(range, 0, 1), null);
      await rig.expectFilled(part(range, 1, 1), 1001);
    }));

  test('what a device has stored is not dropped, though the CPU has only loaded', () =>
    run(async (rig) => {
      const range = await rig.process.mmap({ at: START, length: 2 * PAGE, shared: true });
      await rig.expectFilled(range, null);
      const args = { target: range.start, count: 2, stride: PAGE, by: 5 };
      await rig.mirror.launch('increment', { lanes: 2, args });
      await rig.process.madvise(range, 'PAGEOUT');
      expect(await where(rig.process, range)).toEqual(out(2));
      await rig.mirror.launch('increment', { lanes: 2, args });
      expect((await rig.process.readArray('i32', range.start, 1))[0]).toBe(10);
    }));

  test('WILLNEED reads into the swap cache: in core, mapped by the faults to come, dropped without a write', () =>
    run(async (rig) => {
      const range = await shared(rig, 4);
      await rig.process.madvise(range, 'PAGEOUT');
      await rig.process.madvise(part(range, 1, 3), 'WILLNEED');
      expect(await where(rig.process, range)).toEqual({ rss: 0, swap: 4, mapped: 0, inCore: 3 });
      expect(rig.machine.meminfo()).toMatchObject({ SwapCached: 12, Shmem: 0 });
      await rig.check();
      const before = rig.machine.vmstat();
      await rig.expectFilled(part(range, 1, 1), 1001);
      expect(rig.machine.vmstat().pgmajfault).toBe(before.pgmajfault);
      await rig.expectFilled(part(range, 0, 1), 1000);
      expect(rig.machine.vmstat().pgmajfault).toBe(before.pgmajfault + 1);
      await rig.process.madvise(range, 'PAGEOUT');
      expect(rig.machine.vmstat().pswpout).toBe(before.pswpout + 2);
      // With the object goes what it has in swap and in the swap cache.
      await rig.process.munmap(range);
      expect([slots(rig), rig.machine.meminfo().SwapCached]).toEqual([0, 0]);
    }));

  test('a pinned page leaves the page table only; a locked one stays', () =>
    run(async (rig) => {
      const range = await shared(rig, 3);
      const pin = await rig.process.pin(part(range, 1, 1), { write: true });
      await rig.process.mlock(part(range, 2, 1));
      await rig.process.madvise(part(range, 0, 2), 'PAGEOUT');
      expect(await where(rig.process, part(range, 0, 2))).toEqual({ rss: 0, swap: 1, mapped: 0, inCore: 1 });
      await rig.expectFilled(range, 1000);
      await pin.release();
      expect(await where(rig.process, range)).toEqual(all(3));
      await rig.process.munlock(part(range, 2, 1));
    }));

  test('no room: it is unmapped, and stays in the page cache', () =>
    run(async (rig) => {
      const range = await shared(rig, 8);
      await rig.process.madvise(range, 'PAGEOUT');
      expect(await where(rig.process, range)).toEqual({ rss: 0, swap: 3, mapped: 0, inCore: 5 });
      await rig.expectFilled(range, 1000);
    }, '16KiB'));

  test('COLLAPSE brings in what is in swap, and that is no fault', () =>
    run(async (rig) => {
      const range = await rig.process.mmap({ at: START, length: HUGE * PAGE, shared: true });
      await rig.fill(part(range, 3, 4), 1003);
      await rig.process.madvise(range, 'PAGEOUT');
      expect(slots(rig)).toBe(4);
      await rig.process.madvise(range, 'COLLAPSE');
      expect([slots(rig), rig.machine.meminfo().ShmemPmdMapped]).toEqual([0, 2048]);
      expect(rig.machine.vmstat()).toMatchObject({ pswpin: 4, pgmajfault: 0 });
      await rig.expectFilled(part(range, 3, 4), 1003);
      await rig.expectFilled(part(range, 7, 3), null);
    }));

  describe('a huge page', () => {
    /** And a process that has only heard of it. */
    const withCollapsed = (body: (rig: HugeRig, range: VirtRange) => Promise<void>, swap?: string) =>
      run(async (rig) => {
        const range = await shared(rig, HUGE);
        await rig.process.madvise(range, 'COLLAPSE');
        await body(rig, range);
      }, swap);

    test('goes as one, and comes back as one', () =>
      withCollapsed(async (rig, range) => {
        await rig.process.madvise(range, 'PAGEOUT');
        expect([await where(rig.process, range), slots(rig)]).toEqual([out(HUGE), HUGE]);
        const child = await rig.process.fork();
        await rig.expectFilled(part(range, 77, 1), 1077, child);
        expect([await where(child, range), slots(rig)]).toEqual([all(HUGE), 0]);
        expect(rig.machine.meminfo()).toMatchObject({ ShmemHugePages: 2048, ShmemPmdMapped: 2048 });
        await rig.expectFilled(range, 1000);
        await child.exit();
      }));

    test('that no huge entry can map comes back as one, for the page of the fault alone', () =>
      withCollapsed(async (rig, range) => {
        await rig.process.madvise(range, 'PAGEOUT');
        await rig.process.munmap(part(range, 510, 2));
        await rig.expectFilled(part(range, 501, 1), 1501);
        expect([await where(rig.process, part(range, 0, 510)), slots(rig)]).toEqual([
          { rss: 1, swap: 0, mapped: 1, inCore: 510 },
          0,
        ]);
        // What is in the cache is mapped around the next one.
        await rig.expectFilled(part(range, 502, 1), 1502);
        expect((await where(rig.process, part(range, 0, 510))).mapped).toBe(14);
      }));

    test('of which a part is in the swap cache comes back page by page', () =>
      withCollapsed(async (rig, range) => {
        await rig.process.madvise(range, 'PAGEOUT');
        await rig.process.madvise(part(range, 5, 1), 'WILLNEED');
        expect((await rig.process.mincore(range)).lastIndexOf(1)).toBe(0);
        await rig.expectFilled(part(range, 9, 1), 1009);
        expect([(await where(rig.process, range)).swap, rig.machine.meminfo().Shmem]).toEqual([HUGE - 1, 4]);
        await rig.check();
        await rig.expectFilled(range, 1000);
        expect([slots(rig), rig.machine.meminfo().ShmemHugePages]).toEqual([0, 0]);
      }));

    test('in pieces where there is no free cluster, and for want of RAM', () =>
      withCollapsed(async (rig, range) => {
        await rig.process.madvise(range, 'PAGEOUT');
        expect(await where(rig.process, range)).toEqual(out(HUGE));
        await rig.expectFilled(range, 1000);
        expect(rig.machine.meminfo().ShmemHugePages).toBe(0);
      }, '3MiB'));

    // Nobody maps the pieces of what comes apart, and who is not mapped is not met.
    test('of which half is advised comes apart, and stays in the page cache', () =>
      withCollapsed(async (rig, range) => {
        await rig.process.madvise(part(range, 0, 256), 'PAGEOUT');
        expect(await where(rig.process, range)).toEqual(unmapped(HUGE));
        expect(rig.machine.meminfo().ShmemHugePages).toBe(0);
        await rig.expectFilled(range, 1000);
      }));

    test('COLLAPSE brings in a whole one that is in swap', () =>
      withCollapsed(async (rig, range) => {
        await rig.process.madvise(range, 'PAGEOUT');
        await rig.process.madvise(range, 'COLLAPSE');
        expect([await where(rig.process, range), slots(rig)]).toEqual([all(HUGE), 0]);
        await rig.expectFilled(range, 1000);
      }));
  });

  test('more of it than RAM, in two processes: everything reads back', () =>
    withHuge({ addressing, memory: { ram: '16MiB' }, swap: ['24MiB'] }, async (rig) => {
      const pages = 4500;
      const range = await shared(rig, pages);
      const child = await rig.process.fork();
      await rig.expectFilled(part(range, 0, 2000), 1000, child);
      await rig.fill(part(range, 2000, 500), 9000, child);
      await rig.expectFilled(part(range, 2500, 2000), 3500);
      await rig.expectFilled(part(range, 2000, 500), 9000);
      await rig.check();
      await child.exit();
    }));
});
