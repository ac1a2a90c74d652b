/** Soft-dirty: what was written since clear_refs, through every kind of entry. */
import { expect, it } from 'vitest';
import { PTE_ACCESSED, PTE_SOFT_DIRTY, PTE_WRITE } from '#src/abi/pte';
import { SWP_SOFT_DIRTY } from '#src/abi/softleaf';
import type { Page, VirtAddr } from '#src/base/brand';
import { type ClearRefs, clearRefs } from '#src/mm/clear-refs';
import { makeDeviceExclusive } from '#src/mm/device-exclusive';
import { forkMm } from '#src/mm/fork';
import { pinUserPages, unpinUserPages } from '#src/mm/gup';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap } from '#src/mm/mmap';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { pagemapWord } from '#src/mm/proc-pagemap';
import { smapsText } from '#src/mm/proc-smaps';
import { putPage } from '#src/mm/put-page';
import { folioUnlock } from '#src/sync/page-ref';
import type { Sleeps } from '#src/sync/task';
import { type Bench, describeEach, PAGE, run, withKernel } from './mm-fixture';

function* makeExclusive(bench: Bench, mm: MmStruct, at: number): Sleeps<void> {
  yield* mm.mmapLock.downRead();
  const page = yield* makeDeviceExclusive(bench.kernel, mm, at as VirtAddr, null);
  folioUnlock(bench.kernel.memmap.words, page as Page);
  putPage(bench.kernel, page as Page);
  mm.mmapLock.upRead();
}

const softDirty = (bench: Bench, mm: MmStruct, at: number, pages: number): number[] =>
  Array.from({ length: pages }, (_, i) =>
    Number((pagemapWord(bench.kernel, mm, (at + i * PAGE) as VirtAddr) >> 55n) & 1n),
  );
const clear = (bench: Bench, mm: MmStruct, what: ClearRefs = 'soft-dirty'): void =>
  run(clearRefs(bench.kernel, mm, what));

describeEach('soft-dirty', (addressing) => {
  it('a new mapping counts as a whole; after clear_refs only what is stored to does', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      bench.store(mm, at, 1);
      expect(softDirty(bench, mm, at, 4)).toEqual([1, 1, 1, 1]);
      expect(smapsText(bench.kernel, mm)).toContain(' sd \n');
      clear(bench, mm);
      expect(softDirty(bench, mm, at, 4)).toEqual([0, 0, 0, 0]);
      expect(smapsText(bench.kernel, mm)).not.toContain(' sd ');
      expect(bench.pte(mm, at) & PTE_WRITE).toBe(0n);
      expect(bench.load(mm, at)).toBe(1);
      bench.load(mm, at + PAGE);
      expect(softDirty(bench, mm, at, 4)).toEqual([0, 0, 0, 0]);
      // The same page, written again; and one that is new.
      const page = bench.page(mm, at);
      bench.store(mm, at, 2);
      bench.store(mm, at + 2 * PAGE, 3);
      expect(bench.page(mm, at)).toBe(page);
      expect(softDirty(bench, mm, at, 4)).toEqual([1, 0, 1, 0]);
    }));

  it('shared memory is watched too', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = run(
        doMmap(bench.kernel, mm, { length: 3 * PAGE, prot: 'rw', fixed: false, kind: 'shared' }),
      ) as VirtAddr;
      bench.store(mm, at, 1);
      clear(bench, mm);
      // A read maps the page read-only now, or the first store would go unheard.
      bench.load(mm, at + PAGE);
      expect(bench.pte(mm, at + PAGE) & PTE_WRITE).toBe(0n);
      expect(softDirty(bench, mm, at, 3)).toEqual([0, 0, 0]);
      bench.store(mm, at, 2);
      bench.store(mm, at + PAGE, 2);
      expect(softDirty(bench, mm, at, 3)).toEqual([1, 1, 0]);
    }));

  it('mprotect gives no write access back that would go unheard', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      for (const page of [0, 1]) bench.store(mm, at + page * PAGE, 1);
      clear(bench, mm);
      bench.store(mm, at, 2);
      run(doMprotect(bench.kernel, mm, at, 2 * PAGE, 'r'));
      run(doMprotect(bench.kernel, mm, at, 2 * PAGE, 'rw'));
      expect([0, 1].map((page) => bench.pte(mm, at + page * PAGE) & PTE_WRITE)).toEqual([PTE_WRITE, 0n]);
      bench.store(mm, at + PAGE, 2);
      expect(softDirty(bench, mm, at, 2)).toEqual([1, 1]);
    }));

  it('the bit goes to the device and comes back, set or not', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 3);
      for (const page of [0, 1]) bench.store(mm, at + page * PAGE, 1);
      clear(bench, mm);
      bench.store(mm, at, 2);
      expect(run(driver.toDevice(mm, at, 3))).toBe(3);
      // What came from a hole has not been written.
      expect(softDirty(bench, mm, at, 3)).toEqual([1, 0, 0]);
      expect([0, 1].map((page) => bench.pte(mm, at + page * PAGE) & SWP_SOFT_DIRTY)).toEqual([SWP_SOFT_DIRTY, 0n]);
      for (const page of [0, 1]) expect(bench.load(mm, at + page * PAGE)).toBe(2 - page);
      expect(softDirty(bench, mm, at, 3)).toEqual([1, 0, 0]);
      expect(bench.pte(mm, at) & PTE_SOFT_DIRTY).toBe(PTE_SOFT_DIRTY);
    }));

  it('clear_refs reaches what is on a device', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 1);
      run(driver.toDevice(mm, at, 1));
      clear(bench, mm);
      expect(softDirty(bench, mm, at, 1)).toEqual([0]);
      bench.load(mm, at);
      expect(softDirty(bench, mm, at, 1)).toEqual([0]);
    }));

  it('a child inherits what its parent has; mremap dirties what it moves', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', 0x10_0000_0000);
      for (const page of [0, 1]) bench.store(mm, at + page * PAGE, 1);
      clear(bench, mm);
      bench.store(mm, at, 2);
      const child = run(forkMm(bench.kernel, mm, 9))!;
      expect(softDirty(bench, child, at, 2)).toEqual([1, 0]);
      bench.store(child, at + PAGE, 3);
      expect(softDirty(bench, child, at, 2)).toEqual([1, 1]);
      expect(softDirty(bench, mm, at, 2)).toEqual([1, 0]);
      const to = run(
        doMremap(bench.kernel, mm, at, 2 * PAGE, 2 * PAGE, { maymove: true, fixedAt: 0x20_0000_0000 as VirtAddr }),
      );
      expect(softDirty(bench, mm, to as number, 2)).toEqual([1, 1]);
    }));

  it('a new mapping that merges with a watched one makes all of it count', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', 0x10_0000_0000);
      bench.store(mm, at, 1);
      clear(bench, mm);
      bench.mmap(mm, 1, 'rw', 0x10_0000_0000 + 2 * PAGE);
      expect([...mm.vmas]).toHaveLength(1);
      expect(softDirty(bench, mm, at, 3)).toEqual([1, 1, 1]);
    }));

  it('what a device gives back can be written by no one unheard', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      for (const page of [0, 1]) {
        bench.store(mm, at + page * PAGE, 1);
        run(makeExclusive(bench, mm, at + page * PAGE));
      }
      clear(bench, mm);
      bench.load(mm, at);
      expect([softDirty(bench, mm, at, 1), bench.pte(mm, at) & PTE_WRITE]).toEqual([[0], 0n]);
      for (const page of [0, 1]) bench.store(mm, at + page * PAGE, 2);
      expect(softDirty(bench, mm, at, 2)).toEqual([1, 1]);
    }));

  it('a page that is pinned, of private memory, stays as it is', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const own = bench.mmap(mm, 2);
      const shared = run(
        doMmap(bench.kernel, mm, { length: PAGE, prot: 'rw', fixed: false, kind: 'shared' }),
      ) as VirtAddr;
      for (const at of [own, own + PAGE, shared]) bench.store(mm, at, 1);
      const flags = { write: true, longterm: true };
      const pins = [own, shared].flatMap((at) => run(pinUserPages(bench.kernel, mm, at, 1, flags)) as Page[]);
      clear(bench, mm);
      expect([...softDirty(bench, mm, own, 2), ...softDirty(bench, mm, shared, 1)]).toEqual([1, 0, 0]);
      unpinUserPages(bench.kernel, pins);
    }));

  it('clear_refs of accessed bits, for anonymous memory or files only', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const own = bench.mmap(mm, 1);
      const shared = run(
        doMmap(bench.kernel, mm, { length: PAGE, prot: 'rw', fixed: false, kind: 'shared' }),
      ) as VirtAddr;
      const young = (): boolean[] => [own, shared].map((at) => (bench.pte(mm, at) & PTE_ACCESSED) !== 0n);
      const touch = (): void => [own, shared].forEach((at) => void bench.store(mm, at, 1));
      touch();
      expect(young()).toEqual([true, true]);
      clear(bench, mm, 'anonymous');
      expect(young()).toEqual([false, true]);
      touch();
      clear(bench, mm, 'mapped');
      expect(young()).toEqual([true, false]);
      touch();
      clear(bench, mm, 'all');
      expect(young()).toEqual([false, false]);
      // Nothing is read-only because of it.
      expect(bench.pte(mm, own) & PTE_WRITE).toBe(PTE_WRITE);
    }));
});
