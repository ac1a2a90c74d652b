/** Memory that fails: what becomes of each kind of page, of those who map it, and of the frame. */
import { expect, it } from 'vitest';
import { VM_FAULT_HWPOISON } from '#src/abi/errno';
import { HMM_PFN_ERROR, HMM_PFN_REQ_FAULT } from '#src/abi/hmm-pfn';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { Page, VirtAddr } from '#src/base/brand';
import { framesConserved } from '#src/check/frames-conserved';
import { hwpoison as checker } from '#src/check/hwpoison';
import { pageAccounting } from '#src/check/page-accounting';
import { failedPages } from '#src/check/ram';
import type { MachineState } from '#src/machine/state';
import { createFile, fileSync, fileWrite } from '#src/mm/file';
import { vmFilePut } from '#src/mm/filemap';
import { forkMm } from '#src/mm/fork';
import { getUserPages, getUserPagesLocked, pinUserPages, putUserPages, unpinUserPages } from '#src/mm/gup';
import { hmmRangeFault } from '#src/mm/hmm';
import { type Advice, doMadvise } from '#src/mm/madvise';
import { memoryFailure, unpoisonMemory } from '#src/mm/memory-failure';
import { doMlock } from '#src/mm/mlock';
import { exitMm, type MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap } from '#src/mm/mmap';
import {
  mmuIntervalNotifierInsert,
  mmuIntervalNotifierRemove,
  mmuIntervalReadBegin,
  mmuIntervalSetSeq,
} from '#src/mm/mmu-notifier';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { pageTestFlag } from '#src/mm/page';
import { doMsync } from '#src/mm/page-writeback';
import { meminfo, meminfoText } from '#src/mm/proc-meminfo';
import { kpageflags } from '#src/mm/proc-page';
import { PM_SWAP, pagemapEntry } from '#src/mm/proc-pagemap';
import { softOfflinePage } from '#src/mm/soft-offline';
import { copyFromUser } from '#src/mm/uaccess';
import { pageRefAdd } from '#src/sync/page-ref';
import { filledPages, mapFile } from './file-fixture';
import {
  type AddressingName,
  type Bench,
  describeEach,
  PAGE,
  run,
  runAll,
  runUntilBlocked,
  withKernel,
} from './mm-fixture';

const PLACE = 0x10_0000_0000;
const ELSEWHERE = 0x20_0000_0000 as VirtAddr;
const KPF_HWPOISON = 1n << 19n;

const advise = (bench: Bench, mm: MmStruct, at: number, pages: number, advice: Advice) =>
  run(doMadvise(bench.kernel, mm, at as VirtAddr, pages * PAGE, advice));
const fault = (bench: Bench, mm: MmStruct, at: number): number =>
  run(copyFromUser(bench.kernel, mm, at as VirtAddr, new Uint8Array(1))).fault;
const fail = (bench: Bench, page: Page) => run(memoryFailure(bench.kernel, bench.kernel.memmap.pageToPfn(page)));
const isFlagged = (bench: Bench, page: Page): boolean => {
  const word = kpageflags(bench.kernel, bench.kernel.memmap.pageToPfn(page), 1)[0]!;
  return (word & KPF_HWPOISON) !== 0n;
};

/** Nothing is amiss with what has failed so far. */
function check({ kernel }: Bench): void {
  const state = { kernel, heldPages: new Map() } as unknown as MachineState;
  for (const { look } of [framesConserved, checker, pageAccounting]) expect([...look(state)]).toEqual([]);
}

/** A kernel on which failures are taken back at the end, so that every frame can be counted. */
const withFailures = (addressing: AddressingName, body: (bench: Bench) => void, swap = 0): void =>
  withKernel(addressing, (bench) => {
    if (swap > 0) expect(bench.kernel.swap.swapon(swap)).toBe(0);
    body(bench);
    check(bench);
    for (const mm of [...bench.kernel.mms]) run(exitMm(bench.kernel, mm));
    check(bench);
    for (const page of [...failedPages(bench.kernel)]) expect(unpoisonMemory(bench.kernel, page)).toBe(0);
    expect(bench.kernel.memoryFailures.poisoned).toBe(0);
    check(bench);
  });

/** A process with so many pages: page i holds i + 1. */
function filled(bench: Bench, pages: number): { mm: MmStruct; at: VirtAddr } {
  const mm = bench.mm();
  const at = bench.mmap(mm, pages, 'rw', PLACE);
  for (let i = 0; i < pages; i++) bench.store(mm, at + i * PAGE, i + 1);
  return { mm, at };
}

/** Shared memory of so many pages. */
function sharedPages({ kernel }: Bench, mm: MmStruct, pages: number): VirtAddr {
  const request = { length: pages * PAGE, prot: 'rw', fixed: true, addr: PLACE as VirtAddr, kind: 'shared' } as const;
  return run(doMmap(kernel, mm, request)) as VirtAddr;
}

describeEach('hwpoison', (addressing) => {
  it('an anonymous page is lost: SIGBUS until it is unmapped, and its frame is never used again', () =>
    withFailures(addressing, (bench) => {
      const { mm, at } = filled(bench, 2);
      const page = bench.page(mm, at);
      const { rssAnon } = mm;
      expect(advise(bench, mm, at, 1, 'HWPOISON')).toBe(0);
      expect(bench.kind(mm, at)).toBe('hwpoison');
      expect(bench.page(mm, at)).toBe(page);
      expect(mm.rssAnon).toBe(rssAnon - 1);
      expect(pagemapEntry(bench.kernel, mm, at) & PM_SWAP).toBe(PM_SWAP);
      expect(isFlagged(bench, page)).toBe(true);
      expect(meminfo(bench.kernel).HardwareCorrupted).toBe(4);
      expect(meminfoText(meminfo(bench.kernel))).toContain('HardwareCorrupted:     4 kB\n');
      expect(fault(bench, mm, at)).toBe(VM_FAULT_HWPOISON);
      expect(bench.store(mm, at, 1).fault).toBe(VM_FAULT_HWPOISON);
      expect(bench.load(mm, at + PAGE)).toBe(2);
      check(bench);
      expect(advise(bench, mm, at, 1, 'DONTNEED')).toBe(0);
      bench.store(mm, at, 9);
      expect(bench.page(mm, at)).not.toBe(page);
      // Whoever takes all memory there is does not get it.
      const all: Page[] = [];
      for (let got = bench.kernel.buddy.allocPages(0); got !== 0; got = bench.kernel.buddy.allocPages(0)) all.push(got);
      expect(all.length).toBeGreaterThan(100);
      expect(all).not.toContain(page);
      putUserPages(bench.kernel, all);
    }));

  it('fork copies the entry, mprotect and mremap keep it, MADV_FREE and munmap drop it', () =>
    withFailures(addressing, (bench) => {
      const { mm, at } = filled(bench, 3);
      advise(bench, mm, at, 3, 'HWPOISON');
      const child = run(forkMm(bench.kernel, mm, 9))!;
      expect(bench.kind(child, at)).toBe('hwpoison');
      expect(fault(bench, child, at)).toBe(VM_FAULT_HWPOISON);
      run(doMprotect(bench.kernel, mm, at, 3 * PAGE, 'r'));
      run(doMprotect(bench.kernel, mm, at, 3 * PAGE, 'rw'));
      const flags = { maymove: true, fixedAt: ELSEWHERE };
      expect(run(doMremap(bench.kernel, mm, at, 3 * PAGE, 3 * PAGE, flags))).toBe(ELSEWHERE);
      expect(bench.kind(mm, ELSEWHERE + PAGE)).toBe('hwpoison');
      expect(advise(bench, mm, ELSEWHERE, 1, 'FREE')).toBe(0);
      expect(bench.load(mm, ELSEWHERE)).toBe(0);
      check(bench);
      run(doMunmap(bench.kernel, mm, ELSEWHERE, 3 * PAGE));
    }));

  it('a page that several processes have is lost to all of them', () =>
    withFailures(addressing, (bench) => {
      const { mm, at } = filled(bench, 1);
      const child = run(forkMm(bench.kernel, mm, 9))!;
      expect(fail(bench, bench.page(mm, at))).toBe(0);
      expect([mm, child].map((each) => bench.kind(each, at))).toEqual(['hwpoison', 'hwpoison']);
    }));

  it('locked and pinned pages are unmapped all the same; who has a pin keeps it', () =>
    withFailures(addressing, (bench) => {
      const { mm, at } = filled(bench, 2);
      run(doMlock(bench.kernel, mm, at, PAGE, false));
      const page = bench.page(mm, at + PAGE);
      const pins = run(pinUserPages(bench.kernel, mm, (at + PAGE) as VirtAddr, 1, { write: true, longterm: true }));
      expect(advise(bench, mm, at, 2, 'HWPOISON')).toBe(0);
      expect([0, 1].map((i) => bench.kind(mm, at + i * PAGE))).toEqual(['hwpoison', 'hwpoison']);
      unpinUserPages(bench.kernel, pins as Page[]);
      expect(isFlagged(bench, page)).toBe(true);
    }));

  it('who asked for it hears at once, who did not when they touch the page', () =>
    withFailures(addressing, (bench) => {
      const { mm, at } = filled(bench, 2);
      mm.killEarly = true;
      const child = run(forkMm(bench.kernel, mm, 9))!;
      expect(child.killEarly).toBe(true);
      child.killEarly = false;
      fail(bench, bench.page(mm, at + PAGE));
      expect(mm.memoryErrors).toEqual([at + PAGE]);
      expect(child.memoryErrors).toEqual([]);
    }));

  it('a free frame is taken out of its block; the rest stays free', () =>
    withFailures(addressing, (bench) => {
      const { kernel } = bench;
      const head = kernel.buddy.allocPages(4);
      const page = (head + 5) as Page;
      // The reference that it was allocated with.
      pageRefAdd(kernel.memmap.words, head, -1);
      kernel.buddy.freePages(head, 4);
      const { free } = bench;
      expect(fail(bench, page)).toBe(0);
      expect(bench.free).toBe(free - 1);
      expect(isFlagged(bench, page)).toBe(true);
      expect(fail(bench, page)).toBe('EHWPOISON');
      check(bench);
      expect(unpoisonMemory(kernel, page)).toBe(0);
      expect(bench.free).toBe(free);
      expect(unpoisonMemory(kernel, page)).toBe(0);
    }));

  it('page tables and the zero page are flagged but stay; a table that is freed later never comes back', () =>
    withFailures(addressing, (bench) => {
      const { kernel } = bench;
      const { mm, at } = filled(bench, 1);
      bench.load(mm, at);
      expect(fail(bench, mm.pgd)).toBe('EBUSY');
      const zero = bench.mmap(mm, 1, 'rw', ELSEWHERE);
      bench.load(mm, zero);
      expect(advise(bench, mm, zero, 1, 'HWPOISON')).toBe('EBUSY');
      expect(bench.load(mm, zero)).toBe(0);
      expect(meminfo(kernel).HardwareCorrupted).toBe(8);
      check(bench);
      const { free } = bench;
      const { tables } = mm;
      run(exitMm(kernel, mm));
      // The tables and the page, without the one that failed.
      expect(bench.free).toBe(free + tables + 1 - 1);
    }));

  it('what is outside of RAM is EBUSY if it is a device’s or nothing, ENXIO where there could be some', () =>
    withFailures(addressing, (bench) => {
      const { mm, at } = filled(bench, 1);
      const driver = bench.driver();
      run(driver.toDevice(mm, at, 1));
      const device = bench.page(mm, at);
      if (addressing === 'legacy') expect(fail(bench, device)).toBe('EBUSY');
      expect(meminfo(bench.kernel).HardwareCorrupted).toBe(addressing === 'legacy' ? 4 : 0);
      expect(run(memoryFailure(bench.kernel, 2 ** 30))).toBe('EBUSY');
      expect(run(memoryFailure(bench.kernel, 0))).toBe('ENXIO');
      expect(run(softOfflinePage(bench.kernel, 2 ** 30))).toBe('ENXIO');
      // A device's memory is something, but not for users.
      if (addressing === 'legacy') {
        expect(run(softOfflinePage(bench.kernel, bench.kernel.memmap.pageToPfn(device)))).toBe('EIO');
      }
      // MADV_HWPOISON takes the page first, and so brings it home.
      expect(advise(bench, mm, at, 1, 'HWPOISON')).toBe(0);
      expect(bench.kind(mm, at)).toBe('hwpoison');
      expect(advise(bench, mm, at, 1, 'HWPOISON')).toBe('EFAULT');
      expect(advise(bench, mm, ELSEWHERE, 1, 'HWPOISON')).toBe('EFAULT');
    }));

  it('hmm_range_fault and GUP refuse it; a snapshot shows nothing', () =>
    withFailures(addressing, (bench) => {
      const { mm, at } = filled(bench, 1);
      advise(bench, mm, at, 1, 'HWPOISON');
      expect(run(getUserPages(bench.kernel, mm, at, 1)).errno).toBe('EFAULT');
      run(mm.mmapLock.downRead());
      const flags = { write: false, pin: false, longterm: false, touch: false };
      expect(run(getUserPagesLocked(bench.kernel, mm, at, 1, { ...flags, hwpoison: true })).errno).toBe('EHWPOISON');
      const end = (at + PAGE) as VirtAddr;
      const notifier = mmuIntervalNotifierInsert(mm, at, end, {
        // biome-ignore lint/correctness/useYield: nothing to wait for
        *invalidate(_notifier, _range, seq) {
          mmuIntervalSetSeq(notifier, seq);
        },
      });
      const range = (defaultFlags: number) => {
        const hmmPfns = new Int32Array(2);
        const notifierSeq = run(mmuIntervalReadBegin(notifier));
        const asked = { notifier, notifierSeq, start: at, end, hmmPfns, defaultFlags, pfnFlagsMask: 0 };
        return [run(hmmRangeFault(bench.kernel, { ...asked, devPrivateOwner: null })), hmmPfns[1]];
      };
      expect(range(0)).toEqual([0, 0]);
      expect(range(HMM_PFN_REQ_FAULT)).toEqual(['EFAULT', HMM_PFN_ERROR]);
      mm.mmapLock.upRead();
      run(mmuIntervalNotifierRemove(notifier));
    }));

  it('a clean page of a file is read again, a dirty one is lost, and fsync says so once', () =>
    withFailures(addressing, (bench) => {
      const { kernel } = bench;
      const mm = bench.mm();
      const file = createFile(kernel, filledPages(3), 3 * PAGE);
      const at = mapFile(bench, mm, file, 3, { addr: PLACE });
      for (const page of [0, 1, 2]) bench.load(mm, at + page * PAGE);
      const clean = bench.page(mm, at);
      bench.store(mm, at + PAGE, 77);
      expect(fail(bench, clean)).toBe(0);
      expect(bench.kind(mm, at)).toBe('none');
      expect(bench.load(mm, at)).toBe(1);
      expect(bench.page(mm, at)).not.toBe(clean);
      expect(run(fileSync(kernel, file))).toBe(0);
      bench.store(mm, at + PAGE, 78);
      expect(advise(bench, mm, at + PAGE, 1, 'HWPOISON')).toBe(0);
      expect(bench.kind(mm, at + PAGE)).toBe('hwpoison');
      expect(fault(bench, mm, at + PAGE)).toBe(VM_FAULT_HWPOISON);
      expect(run(doMsync(kernel, mm, at, 3 * PAGE))).toBe('EIO');
      expect(run(doMsync(kernel, mm, at, 3 * PAGE))).toBe(0);
      // By a call it is dirty without an entry that says so.
      run(fileWrite(kernel, file, 2 * PAGE, Uint8Array.of(5)));
      expect(fail(bench, bench.page(mm, at + 2 * PAGE))).toBe(0);
      expect(run(fileSync(kernel, file))).toBe('EIO');
      run(doMunmap(kernel, mm, at, 3 * PAGE));
      const again = mapFile(bench, mm, file, 3, { addr: PLACE });
      // What was written before it was lost is what is there.
      expect([0, 1, 2].map((page) => bench.load(mm, again + page * PAGE))).toEqual([1, 77, 3]);
      run(doMunmap(kernel, mm, again, 3 * PAGE));
      vmFilePut(kernel, file);
    }));

  it('shared memory that has failed does not come up as zeroes', () =>
    withFailures(addressing, (bench) => {
      const mm = bench.mm();
      const at = sharedPages(bench, mm, 2);
      for (const page of [0, 1]) bench.store(mm, at + page * PAGE, 4);
      const child = run(forkMm(bench.kernel, mm, 9))!;
      expect(fail(bench, bench.page(mm, at))).toBe(0);
      expect(bench.kind(mm, at)).toBe('hwpoison');
      expect(fault(bench, child, at)).toBe(VM_FAULT_HWPOISON);
      // Whoever maps it anew, or discards what it has, finds the same.
      expect(advise(bench, mm, at, 2, 'DONTNEED')).toBe(0);
      expect(bench.load(mm, at + PAGE)).toBe(4);
      expect(fault(bench, mm, at)).toBe(VM_FAULT_HWPOISON);
      check(bench);
    }));

  it('a page in the swap cache: clean it is read again, dirty it is found wrong', () =>
    withFailures(
      addressing,
      (bench) => {
        const { mm, at } = filled(bench, 2);
        expect(advise(bench, mm, at, 2, 'PAGEOUT')).toBe(0);
        expect(bench.kind(mm, at)).toBe('swap');
        // Read ahead: in the swap cache, clean, and nobody maps it.
        advise(bench, mm, at, 2, 'WILLNEED');
        const cached = [...bench.kernel.swap.used()].map(({ page }) => page);
        expect(cached).toHaveLength(2);
        expect(fail(bench, cached[0]!)).toBe(0);
        bench.kernel.memmap.words[cached[1]! * 16] |= PAGE_FLAGS.PG_dirty;
        expect(fail(bench, cached[1]!)).toBe(0);
        check(bench);
        expect(bench.load(mm, at)).toBe(1);
        expect(fault(bench, mm, at + PAGE)).toBe(VM_FAULT_HWPOISON);
        expect(advise(bench, mm, at + PAGE, 1, 'DONTNEED')).toBe(0);
      },
      2 ** 20,
    ));

  it('soft offline: an anonymous page moves, and nobody notices; one that is held does not', () =>
    withFailures(addressing, (bench) => {
      const { kernel } = bench;
      const { mm, at } = filled(bench, 2);
      const child = run(forkMm(kernel, mm, 9))!;
      const page = bench.page(mm, at);
      expect(advise(bench, mm, at, 1, 'SOFT_OFFLINE')).toBe(0);
      expect([mm, child].map((each) => bench.load(each, at))).toEqual([1, 1]);
      expect(bench.page(mm, at)).not.toBe(page);
      expect(bench.page(child, at)).toBe(bench.page(mm, at));
      expect(isFlagged(bench, page)).toBe(true);
      expect(run(softOfflinePage(kernel, kernel.memmap.pageToPfn(page)))).toBe(0);
      const held = run(getUserPages(kernel, mm, (at + PAGE) as VirtAddr, 1)).pages;
      expect(advise(bench, mm, at + PAGE, 1, 'SOFT_OFFLINE')).toBe('EBUSY');
      putUserPages(kernel, held);
      expect(bench.load(mm, at + PAGE)).toBe(2);
      const free = kernel.buddy.allocPages(0);
      putUserPages(kernel, [free]);
      expect(run(softOfflinePage(kernel, kernel.memmap.pageToPfn(free)))).toBe(0);
      expect(run(softOfflinePage(kernel, kernel.memmap.pageToPfn(mm.pgd)))).toBe('EIO');
      check(bench);
    }));

  it('soft offline: a page of a file moves with its place in the cache; a clean one that nobody maps is dropped', () =>
    withFailures(addressing, (bench) => {
      const { kernel } = bench;
      const { mm } = filled(bench, 1);
      const file = createFile(kernel, filledPages(1), PAGE);
      const at = mapFile(bench, mm, file, 1);
      const before = bench.load(mm, at);
      bench.store(mm, at, before + 1);
      const page = bench.page(mm, at);
      expect(advise(bench, mm, at, 1, 'SOFT_OFFLINE')).toBe(0);
      const moved = bench.page(mm, at);
      expect([bench.load(mm, at), file.pages.get(0), moved === page]).toEqual([before + 1, moved, false]);
      expect([isFlagged(bench, page), pageTestFlag(kernel.memmap.words, moved, PAGE_FLAGS.PG_dirty)]).toEqual([
        true,
        true,
      ]);
      check(bench);
      run(doMunmap(kernel, mm, at, PAGE));
      run(fileSync(kernel, file));
      expect(run(softOfflinePage(kernel, kernel.memmap.pageToPfn(moved)))).toBe(0);
      expect(file.pages.size).toBe(0);
      check(bench);
      vmFilePut(kernel, file);
    }));

  it('soft offline: a page of shared memory moves for all who map it; a clean one that nobody maps is dropped', () =>
    withFailures(addressing, (bench) => {
      const { kernel } = bench;
      const mm = bench.mm();
      const at = sharedPages(bench, mm, 2);
      bench.store(mm, at, 1);
      bench.load(mm, at + PAGE);
      const child = run(forkMm(kernel, mm, 9))!;
      expect(bench.load(child, at)).toBe(1);
      const page = bench.page(mm, at);
      expect(advise(bench, mm, at, 1, 'SOFT_OFFLINE')).toBe(0);
      expect(bench.page(mm, at)).not.toBe(page);
      expect([bench.page(child, at), bench.load(child, at)]).toEqual([bench.page(mm, at), 1]);
      const clean = bench.page(mm, at + PAGE);
      for (const each of [mm, child]) advise(bench, each, at, 2, 'DONTNEED');
      const free = kernel.buddy.freePagesCount;
      expect(run(softOfflinePage(kernel, kernel.memmap.pageToPfn(clean)))).toBe(0);
      expect(kernel.buddy.freePagesCount).toBe(free);
      expect([bench.load(mm, at), bench.load(mm, at + PAGE)]).toEqual([1, 0]);
    }));

  it('soft offline: a page of shared memory that waits in the swap cache moves with its slot', () =>
    withFailures(
      addressing,
      (bench) => {
        const { kernel } = bench;
        const mm = bench.mm();
        const at = sharedPages(bench, mm, 1);
        bench.store(mm, at, 1);
        advise(bench, mm, at, 1, 'PAGEOUT');
        advise(bench, mm, at, 1, 'WILLNEED');
        const cached = () => [...kernel.swap.used()].map((slot) => slot.page);
        const [page] = cached();
        expect(run(softOfflinePage(kernel, kernel.memmap.pageToPfn(page!)))).toBe(0);
        const [moved] = cached();
        expect([bench.load(mm, at), bench.page(mm, at), moved === page]).toEqual([1, moved, false]);
      },
      2 ** 20,
    ));

  it('soft offline: a page in the swap cache moves with its slot', () =>
    withFailures(
      addressing,
      (bench) => {
        const { kernel } = bench;
        const { mm, at } = filled(bench, 1);
        expect(advise(bench, mm, at, 1, 'PAGEOUT')).toBe(0);
        const child = run(forkMm(kernel, mm, 9))!;
        expect(bench.load(mm, at)).toBe(1);
        const page = bench.page(mm, at);
        expect(run(softOfflinePage(kernel, kernel.memmap.pageToPfn(page)))).toBe(0);
        const moved = bench.page(mm, at);
        expect([...kernel.swap.used()].map((slot) => slot.page)).toEqual([moved]);
        check(bench);
        // The child's entry leads to the same page.
        expect([bench.load(child, at), bench.page(child, at), moved === page]).toEqual([1, moved, false]);
        expect([isFlagged(bench, page), [...kernel.swap.used()]]).toEqual([true, []]);
      },
      2 ** 20,
    ));

  it('a failure in the middle of a migration waits for its end', () =>
    withFailures(addressing, (bench) => {
      const { mm, at } = filled(bench, 1);
      const driver = bench.driver();
      const page = bench.page(mm, at);
      driver.gate = { open: false };
      const moving = driver.toDevice(mm, at, 1);
      runUntilBlocked(moving);
      // The page is in the migration's hands: it is flagged, and the frame does not come back when it has moved.
      expect(fail(bench, page)).toBe('EBUSY');
      const { free } = bench;
      driver.gate.open = true;
      expect(run(moving)).toBe(1);
      expect(bench.free).toBe(free);
      expect(isFlagged(bench, page)).toBe(true);
      check(bench);
      expect(bench.load(mm, at)).toBe(1);
    }));

  it('two failures of one page at a time are one', () =>
    withFailures(addressing, (bench) => {
      const { mm, at } = filled(bench, 1);
      bench.preemption.on = true;
      const pfn = bench.kernel.memmap.pageToPfn(bench.page(mm, at));
      const results = runAll(memoryFailure(bench.kernel, pfn), memoryFailure(bench.kernel, pfn));
      expect(results.sort()).toEqual([0, 'EHWPOISON']);
    }));

  it('the checker sees a failed page that is not counted, and one that somebody names who should not', () =>
    withFailures(addressing, (bench) => {
      const { mm, at } = filled(bench, 2);
      fail(bench, bench.page(mm, at));
      const other = bench.page(mm, at + PAGE) * 16;
      const { words } = bench.kernel.memmap;
      const found = () => [...checker.look({ kernel: bench.kernel } as MachineState)].join();
      words[other] |= PAGE_FLAGS.PG_hwpoison;
      expect(found()).toContain('1 pages are counted as failed, 2 say so');
      words[other] &= ~PAGE_FLAGS.PG_hwpoison;
      const failed = bench.page(mm, at) * 16;
      words[failed] &= ~PAGE_FLAGS.PG_hwpoison;
      expect(found()).toContain('which has not failed');
      words[failed] |= PAGE_FLAGS.PG_hwpoison;
    }));
});
