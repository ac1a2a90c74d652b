/** Huge pages of anonymous memory in swap: they go as one, and come back page by page. */
import { describe, expect, test } from 'vitest';
import { decodePagemap } from '#src/abi/pagemap-word';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { Page } from '#src/base/brand';
import type { Process, VirtRange } from '#src/machine/types';
import { getUserPages, putUserPages } from '#src/mm/gup';
import { memoryFailure } from '#src/mm/memory-failure';
import { mmuIntervalNotifierInsert, mmuIntervalNotifierRemove, mmuIntervalSetSeq } from '#src/mm/mmu-notifier';
import { folioNrPages, pageTestFlag } from '#src/mm/page';
import { tryToFreePages } from '#src/mm/vmscan';
import { folioHead, pageRefAdd } from '#src/sync/page-ref';
import { HUGE, type HugeRig, PAGE, part, withHuge } from './huge-rig';
import { run as runTask } from './mm-fixture';

const slots = ({ machine }: HugeRig): number => {
  const { SwapTotal, SwapFree } = machine.meminfo();
  return (SwapTotal - SwapFree) / 4;
};

const where = async (process: Process, range: VirtRange) => {
  const { rss, ahp, swap } = await process.smaps(range);
  return { rss: rss / 4, huge: ahp / 2048, swap: swap / 4 };
};

/** Only zeroes but for three pages. */
async function sparse(rig: HugeRig): Promise<VirtRange> {
  const range = await rig.area();
  for (const page of [0, 5, 511]) await rig.fill(part(range, page, 1), 1000 + page);
  return range;
}

/** The first page of the folio at the beginning of a range. */
async function folioAt({ state, process }: HugeRig, range: VirtRange): Promise<Page> {
  const [word] = await process.pagemap(part(range, 0, 1));
  return state.kernel.memmap.pfnToPage(Number(word! & ((1n << 55n) - 1n)) as never);
}

describe.each(['legacy', 'offset'] as const)('huge pages in swap (%s)', (addressing) => {
  const run = (body: (rig: HugeRig) => Promise<void>, swap = '8MiB', failed = 0) =>
    withHuge({ addressing, swap: [swap] }, body, failed);

  test('one goes whole, what is zero with it, to a cluster of slots in a row; each page comes back for itself', () =>
    run(async (rig) => {
      const range = await sparse(rig);
      await rig.process.madvise(range, 'PAGEOUT');
      expect(await where(rig.process, range)).toEqual({ rss: 0, huge: 0, swap: HUGE });
      expect([slots(rig), rig.machine.vmstat().pswpout]).toEqual([HUGE, HUGE]);
      const words = (await rig.process.pagemap(range)).map((word) => BigInt(decodePagemap(word, addressing).number!));
      expect([...words]).toEqual(Array.from({ length: HUGE }, (_, i) => BigInt(HUGE + i)));
      await rig.check();
      await rig.expectFilled(part(range, 5, 1), 1005);
      await rig.expectFilled(part(range, 6, 2), null);
      expect(await where(rig.process, range)).toEqual({ rss: 3, huge: 0, swap: HUGE - 3 });
      expect(slots(rig)).toBe(HUGE - 3);
      await rig.process.madvise(range, 'COLLAPSE');
      expect([await where(rig.process, range), slots(rig)]).toEqual([{ rss: HUGE, huge: 1, swap: 0 }, 0]);
      await rig.expectFilled(part(range, 511, 1), 1511);
    }));

  test.each(['3MiB', '4MiB'])('without a free cluster it goes in pieces, without those that are zero (%s)', (swap) =>
    run(async (rig) => {
      // A slot of the only whole cluster is taken.
      const other = await rig.process.mmap({ length: 514 * PAGE });
      await rig.fill(other, 7);
      await rig.process.madvise(other, 'PAGEOUT');
      await rig.process.madvise(part(other, 0, 300), 'DONTNEED');
      const before = slots(rig);
      const range = await sparse(rig);
      await rig.process.madvise(range, 'PAGEOUT');
      expect([await where(rig.process, range), slots(rig) - before]).toEqual([{ rss: 0, huge: 0, swap: 3 }, 3]);
      await rig.expectFilled(part(range, 5, 1), 1005);
      await rig.expectFilled(part(range, 6, 1), null);
    }, swap),
  );

  test('a part of one: it comes apart, and what is zero in the rest is the zero page', () =>
    run(async (rig) => {
      const range = await sparse(rig);
      await rig.process.madvise(part(range, 0, 100), 'PAGEOUT');
      expect([await where(rig.process, range), slots(rig)]).toEqual([{ rss: 1, huge: 0, swap: 2 }, 2]);
    }));

  test('who holds it keeps it whole, and mapped', () =>
    run(async (rig) => {
      const range = await rig.filled();
      const pin = await rig.process.pin(part(range, 9, 1), { kind: 'get' });
      await rig.process.madvise(range, 'PAGEOUT');
      expect([await where(rig.process, range), slots(rig)]).toEqual([{ rss: HUGE, huge: 1, swap: 0 }, 0]);
      await pin.release();
    }));

  test('lazily freed: nowhere as one, so that a huge page may stand there again; but what was written since stays', () =>
    run(async (rig) => {
      const range = await rig.filled(2 * HUGE);
      await rig.process.madvise(range, 'FREE');
      await rig.fill(part(range, 600, 1), 5);
      await rig.process.madvise(range, 'PAGEOUT');
      expect([await where(rig.process, range), slots(rig)]).toEqual([{ rss: HUGE, huge: 1, swap: 0 }, 0]);
      expect(rig.machine.vmstat().pglazyfreed).toBe(HUGE);
      await rig.expectFilled(part(range, 601, 1), 1601);
      await rig.fill(part(range, 0, 1), 8);
      expect(await rig.hugePages(range)).toBe(2);
      await rig.expectFilled(part(range, 1, 1), null);
    }));

  test('two processes have one: reclaim takes it from both, and each gets every page once', () =>
    run(async (rig) => {
      const { kernel } = rig.state;
      const range = await rig.filled();
      const child = await rig.process.fork();
      await rig.process.madvise(range, 'PAGEOUT');
      expect(await where(rig.process, range)).toEqual({ rss: HUGE, huge: 1, swap: 0 });
      // The second round finds what nobody has accessed since the first.
      runTask(tryToFreePages(kernel, HUGE));
      expect([await where(rig.process, range), await where(child, range)]).toEqual([
        { rss: 0, huge: 0, swap: HUGE },
        { rss: 0, huge: 0, swap: HUGE },
      ]);
      expect(slots(rig)).toBe(HUGE);
      await rig.check();
      await rig.fill(part(range, 0, 2), 5000, child);
      await rig.expectFilled(range, 1000);
      await rig.expectFilled(part(range, 0, 2), 5000, child);
      await child.exit();
      // What is mapped keeps its slot, until it is written to.
      expect(slots(rig)).toBe(HUGE - 2);
      await rig.fill(range, 1000);
      expect(slots(rig)).toBe(0);
    }));

  describe('one that somebody takes hold of while it goes stays in the swap cache', () => {
    /** Reclaim unmaps it, and cannot drop it: `folio` has a reference that was taken meanwhile. */
    const withCached = (body: (rig: HugeRig, range: VirtRange, folio: Page) => Promise<void>, failed = 0) =>
      run(
        async (rig) => {
          const { kernel } = rig.state;
          const { words } = kernel.memmap;
          const range = await rig.filled();
          const folio = await folioAt(rig, range);
          const [mm] = kernel.mms;
          const notifier = mmuIntervalNotifierInsert(mm!, range.start, range.start + range.length, {
            // biome-ignore lint/correctness/useYield: it is fast enough
            *invalidate(self, _range, sequence) {
              mmuIntervalSetSeq(self, sequence);
              if (pageTestFlag(words, folio, PAGE_FLAGS.PG_swapcache)) pageRefAdd(words, folio, 1);
            },
          });
          await rig.process.madvise(range, 'PAGEOUT');
          runTask(mmuIntervalNotifierRemove(notifier));
          expect(await where(rig.process, range)).toEqual({ rss: 0, huge: 0, swap: HUGE });
          expect(rig.machine.meminfo()).toMatchObject({ SwapCached: 2048 });
          pageRefAdd(words, folio, -1);
          await rig.check();
          await body(rig, range, folio);
          expect([slots(rig), rig.machine.meminfo().SwapCached]).toEqual([0, 0]);
        },
        '8MiB',
        failed,
      );

    test('a fault maps all of it', () =>
      withCached(async (rig, range, folio) => {
        const { pswpin } = rig.machine.vmstat();
        await rig.expectFilled(part(range, 300, 1), 1300);
        expect(await where(rig.process, range)).toEqual({ rss: HUGE, huge: 0, swap: 0 });
        expect(rig.machine.vmstat().pswpin).toBe(pswpin);
        expect(await folioAt(rig, range)).toBe(folio);
        expect(folioNrPages(rig.state.kernel.memmap.words, folio)).toBe(HUGE);
        await rig.fill(part(range, 300, 1), 1300);
        await rig.expectFilled(range, 1000);
      }));

    test('of which a part was unmapped: a fault maps one page; the last entry takes the folio along', () =>
      withCached(async (rig, range) => {
        await rig.process.munmap(part(range, 100, 1));
        await rig.expectFilled(part(range, 300, 1), 1300);
        expect(await where(rig.process, range)).toEqual({ rss: 1, huge: 0, swap: HUGE - 2 });
        await rig.check();
        await rig.expectFilled(part(range, 301, 211), 1301);
        await rig.process.munmap(part(range, 0, 300));
        expect([await where(rig.process, part(range, 300, 212)), slots(rig)]).toEqual([
          { rss: 212, huge: 0, swap: 0 },
          HUGE,
        ]);
        await rig.check();
        await rig.process.munmap(range);
      }));

    test('reclaim writes it out after all', () =>
      withCached(async (rig, range) => {
        runTask(tryToFreePages(rig.state.kernel, HUGE));
        expect(rig.machine.meminfo()).toMatchObject({ SwapCached: 0 });
        expect(rig.machine.vmstat().pswpout).toBe(HUGE);
        await rig.expectFilled(range, 1000);
      }));

    test('memory fails in it: it comes apart, in the swap cache too', () =>
      withCached(async (rig, range, folio) => {
        const { kernel } = rig.state;
        expect(runTask(memoryFailure(kernel, kernel.memmap.pageToPfn((folio + 40) as Page)))).toBe(0);
        expect(folioHead(kernel.memmap.words, (folio + 41) as Page)).toBe(folio + 41);
        await rig.check();
        await rig.expectFilled(part(range, 0, 40), 1000);
        await rig.expectFilled(part(range, 41, 471), 1041);
        await expect(rig.process.read((range.start + 40 * PAGE) as never, 1)).rejects.toThrow();
        await rig.process.munmap(range);
      }, 1));

    test('COLLAPSE makes another one of it', () =>
      withCached(async (rig, range) => {
        await rig.process.madvise(range, 'COLLAPSE');
        expect(await where(rig.process, range)).toEqual({ rss: HUGE, huge: 1, swap: 0 });
        await rig.expectFilled(range, 1000);
      }));

    test('a migration leaves it alone until it is mapped again', () =>
      withCached(async (rig, range) => {
        expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ migrated: 0 });
        await rig.expectFilled(range, 1000);
        expect((await rig.mirror.migrate(range, 'device')).migrated).toBe(HUGE);
        await rig.expectFilled(range, 1000);
      }));

    test('a pin of a page in it brings all of it back', () =>
      withCached(async (rig, range) => {
        const { kernel } = rig.state;
        const [mm] = kernel.mms;
        const { pages } = runTask(getUserPages(kernel, mm!, range.start as never, 2));
        expect(pages).toHaveLength(2);
        putUserPages(kernel, pages);
        await rig.expectFilled(range, 1000);
      }));
  });
});
