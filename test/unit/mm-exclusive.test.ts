/** Exclusive access of a device: the entry, who takes it back, and what else meets it. */
import { expect, it } from 'vitest';
import { PTE_ACCESSED, PTE_DIRTY, PTE_WRITE, ptePfn } from '#src/abi/pte';
import { softleafFromPte, softleafNumber } from '#src/abi/softleaf';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { Page, VirtAddr } from '#src/base/brand';
import { makeDeviceExclusive } from '#src/mm/device-exclusive';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap } from '#src/mm/mmap';
import {
  type MmuNotifierRange,
  mmuIntervalNotifierInsert,
  mmuIntervalNotifierRemove,
  mmuIntervalSetSeq,
} from '#src/mm/mmu-notifier';
import { leafTable, pteIndex } from '#src/mm/pgtable';
import { putPage } from '#src/mm/put-page';
import { tryRestoreExclusivePte } from '#src/mm/restore-exclusive';
import { copyFromUser } from '#src/mm/uaccess';
import { VM_WRITE, vmaLookup } from '#src/mm/vma';
import { folioTrylock, folioUnlock } from '#src/sync/page-ref';
import type { Sleeps } from '#src/sync/task';
import { type Bench, describeEach, PAGE, refCount, run, runUntilBlocked, withKernel } from './mm-fixture';

function* make(bench: Bench, mm: MmStruct, at: number, owner: object | null = null): Sleeps<Page | string> {
  yield* mm.mmapLock.downRead();
  const page = yield* makeDeviceExclusive(bench.kernel, mm, at as VirtAddr, owner);
  if (typeof page === 'number') {
    folioUnlock(bench.kernel.memmap.words, page);
    putPage(bench.kernel, page);
  }
  mm.mmapLock.upRead();
  return page;
}

describeEach('device exclusive', (addressing) => {
  it('the entry names the page by PFN and keeps its reference, mapping and rss', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 6);
      const pfn = ptePfn(bench.pte(mm, at));
      const page = run(make(bench, mm, at + 100)) as Page;
      expect(bench.kind(mm, at)).toBe('device-exclusive');
      expect(softleafNumber(softleafFromPte(bench.pte(mm, at)))).toBe(pfn);
      expect({ refs: refCount(bench.kernel, page), mapcount: bench.field(page, 'mapcount') + 1 }).toEqual({
        refs: 1,
        mapcount: 1,
      });
      expect(bench.field(page, 'flags') & PAGE_FLAGS.PG_dirty).not.toBe(0);
      expect(mm.rssAnon).toBe(1);
      // A hole is filled first.
      expect(run(make(bench, mm, at + PAGE))).not.toBeTypeOf('string');
      expect(bench.kind(mm, at + PAGE)).toBe('device-exclusive');
      expect(mm.rssAnon).toBe(2);
    }));

  it('a read takes it back writable and dirty, as far as the VMA allows', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      for (const addr of [at, at + PAGE]) {
        bench.store(mm, addr, 6);
        run(make(bench, mm, addr));
      }
      expect(bench.load(mm, at)).toBe(6);
      const flags = PTE_WRITE | PTE_DIRTY | PTE_ACCESSED;
      expect(bench.pte(mm, at) & flags).toBe(flags);
      vmaLookup(mm, at)!.flags &= ~VM_WRITE;
      expect(bench.load(mm, at + PAGE)).toBe(6);
      expect(bench.pte(mm, at + PAGE) & flags).toBe(PTE_ACCESSED);
    }));

  it('a device page comes home first; an exclusive one is made anew', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 8);
      run(driver.toDevice(mm, at, 1));
      const page = run(make(bench, mm, at));
      expect(run(make(bench, mm, at))).toBe(page);
      expect(bench.kind(mm, at)).toBe('device-exclusive');
      expect(run(driver.toDevice(mm, at, 1))).toBe(0);
      expect(bench.load(mm, at)).toBe(8);
    }));

  it('EFAULT, and EOPNOTSUPP for shared memory', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      expect(run(make(bench, mm, 0x20000))).toBe('EFAULT');
      expect(run(make(bench, mm, bench.mmap(mm, 1, 'r')))).toBe('EFAULT');
      expect(run(make(bench, mm, bench.mmap(mm, 1, 'none')))).toBe('EFAULT');
      const request = { length: PAGE, prot: 'rw', fixed: false, kind: 'shared' } as const;
      const at = run(doMmap(bench.kernel, mm, request)) as VirtAddr;
      expect(run(make(bench, mm, at))).toBe('EOPNOTSUPP');
      expect(refCount(bench.kernel, bench.page(mm, at))).toBe(2);
    }));

  it('notifies with its owner; the CPU that takes it back waits for the folio lock', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 3);
      const heard: [string, object | null][] = [];
      const notifier = mmuIntervalNotifierInsert(mm, at, at + PAGE, {
        // biome-ignore lint/correctness/useYield: nothing to wait for
        *invalidate(each, range: MmuNotifierRange, seq) {
          mmuIntervalSetSeq(each, seq);
          heard.push([range.event, range.owner]);
        },
      });
      const owner = {};
      const page = run(make(bench, mm, at, owner)) as Page;
      expect(heard).toEqual([['MMU_NOTIFY_EXCLUSIVE', owner]]);
      const { words } = bench.kernel.memmap;
      expect(folioTrylock(words, page)).toBe(true);
      const out = new Uint8Array(1);
      const access = copyFromUser(bench.kernel, mm, at, out);
      expect(runUntilBlocked(access)).toContain('lock of the exclusive page');
      folioUnlock(words, page);
      run(access);
      expect(out[0]).toBe(3);
      expect(heard[1]).toEqual(['MMU_NOTIFY_CLEAR', null]);
      run(mmuIntervalNotifierRemove(notifier));
    }));

  it('unmapping drops it, fork restores it unless the page is locked', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      const page = run(make(bench, mm, at)) as Page;
      run(make(bench, mm, at + PAGE));
      run(doMunmap(bench.kernel, mm, (at + PAGE) as VirtAddr, PAGE));
      expect(mm.rssAnon).toBe(1);
      const { words } = bench.kernel.memmap;
      const restore = (): boolean => {
        const entry = leafTable(bench.kernel, mm, at) + pteIndex(at);
        return tryRestoreExclusivePte(bench.kernel, vmaLookup(mm, at)!, entry, bench.pte(mm, at));
      };
      folioTrylock(words, page);
      expect(restore()).toBe(false);
      expect(bench.kind(mm, at)).toBe('device-exclusive');
      folioUnlock(words, page);
      expect(restore()).toBe(true);
      expect(bench.kind(mm, at)).toBe('present');
    }));
});
