/** Swap: pages go out and come back, whoever shares them, whatever else happens to their entries. */
import { expect, it } from 'vitest';
import { VM_FAULT_OOM } from '#src/abi/errno';
import { HMM_PFN_REQ_FAULT, HMM_PFN_VALID } from '#src/abi/hmm-pfn';
import { PTE_SOFT_DIRTY, PTE_WRITE } from '#src/abi/pte';
import { SWP_EXCLUSIVE, SWP_SOFT_DIRTY } from '#src/abi/softleaf';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { VirtAddr } from '#src/base/brand';
import { swap as swapChecker } from '#src/check/swap';
import type { MachineState } from '#src/machine/state';
import { forkMm } from '#src/mm/fork';
import { getUserPages, pinUserPages, putUserPages, unpinUserPages } from '#src/mm/gup';
import { hmmRangeFault } from '#src/mm/hmm';
import { type Advice, doMadvise } from '#src/mm/madvise';
import { exitMm, type MmStruct } from '#src/mm/mm-struct';
import { doMunmap } from '#src/mm/mmap';
import {
  mmuIntervalNotifierInsert,
  mmuIntervalNotifierRemove,
  mmuIntervalReadBegin,
  mmuIntervalSetSeq,
} from '#src/mm/mmu-notifier';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { meminfo, vmstat } from '#src/mm/proc-meminfo';
import { mincoreRange, PM_SWAP, pagemapEntry, pagemapWord } from '#src/mm/proc-pagemap';
import { smapsRange, smapsText } from '#src/mm/proc-smaps';
import { processStatus } from '#src/mm/proc-status';
import { SwapSpace } from '#src/mm/swapfile';
import { type Bench, describeEach, type FakeDriver, PAGE, refCount, run, withKernel } from './mm-fixture';

const MiB = 2 ** 20;

/** A kernel with a swap area, and what nobody may leave in it. */
const withSwap = (addressing: 'legacy' | 'offset', body: (bench: Bench) => void, ramMiB?: number): void =>
  withKernel(
    addressing,
    (bench) => {
      expect(bench.kernel.swap.swapon(MiB)).toBe(0);
      body(bench);
      expect([...swapChecker.look({ kernel: bench.kernel } as MachineState)]).toEqual([]);
    },
    ramMiB,
  );

const advise = (bench: Bench, mm: MmStruct, at: number, pages: number, advice: Advice) =>
  run(doMadvise(bench.kernel, mm, at as VirtAddr, pages * PAGE, advice));
const pageOut = (bench: Bench, mm: MmStruct, at: number, pages: number): void => {
  expect(advise(bench, mm, at, pages, 'PAGEOUT')).toBe(0);
};
const kinds = (bench: Bench, mm: MmStruct, at: number, pages: number): string[] =>
  Array.from({ length: pages }, (_, i) => bench.kind(mm, at + i * PAGE));
const used = ({ kernel: { swap } }: Bench): number => swap.total - swap.free;
const fork = (bench: Bench, mm: MmStruct): MmStruct => run(forkMm(bench.kernel, mm, 99))!;

/** Pages 1, 2, 3, ... in a row. */
function filled(bench: Bench, mm: MmStruct, pages: number, addr?: number): VirtAddr {
  const at = bench.mmap(mm, pages, 'rw', addr);
  for (let i = 0; i < pages; i++) bench.store(mm, at + i * PAGE, i + 1);
  return at;
}

describeEach('swap', (addressing) => {
  it('a page goes out and comes back as it was: contents, exclusive, soft-dirty', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const free = bench.free;
      const at = filled(bench, mm, 2);
      pageOut(bench, mm, at, 2);
      expect(kinds(bench, mm, at, 2)).toEqual(['swap', 'swap']);
      expect(bench.pte(mm, at) & (SWP_EXCLUSIVE | SWP_SOFT_DIRTY)).toBe(SWP_EXCLUSIVE | SWP_SOFT_DIRTY);
      expect([mm.rssAnon, mm.swapents, used(bench), bench.kernel.stats.pswpout]).toEqual([0, 2, 2, 2]);
      expect(bench.free).toBe(free - (mm.tables - 1));
      expect(bench.load(mm, at)).toBe(1);
      // Exclusive: writable without another fault, and the slot is given up.
      expect(bench.pte(mm, at) & (PTE_WRITE | PTE_SOFT_DIRTY)).toBe(PTE_WRITE | PTE_SOFT_DIRTY);
      expect([mm.rssAnon, mm.swapents, used(bench), bench.kernel.stats.pswpin]).toEqual([1, 1, 1, 1]);
      const faults = bench.kernel.stats.cpuFaults;
      bench.store(mm, at, 9);
      expect(bench.kernel.stats.cpuFaults).toBe(faults);
      bench.store(mm, at + PAGE, 8);
      expect([bench.load(mm, at), bench.load(mm, at + PAGE)]).toEqual([9, 8]);
      expect(bench.kernel.stats.pgmajfault).toBe(2);
    }));

  it('views: pagemap, mincore, smaps, status, meminfo', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 3);
      pageOut(bench, mm, at, 2);
      expect(pagemapEntry(bench.kernel, mm, at)).toBe(PM_SWAP);
      // Type 0, slot 1, exclusive bit nowhere, soft-dirty since all of the mapping is.
      expect(pagemapWord(bench.kernel, mm, at)).toBe((1n << 62n) | (1n << 55n) | (1n << 5n));
      const core = new Int32Array(3);
      mincoreRange(bench.kernel, mm, at, core);
      expect([...core]).toEqual([0, 0, 1]);
      expect(smapsRange(bench.kernel, mm, at, 3)).toMatchObject({ rss: 4, swap: 8 });
      expect(processStatus(mm)).toMatchObject({ VmRSS: 4, VmSwap: 8 });
      const child = fork(bench, mm);
      expect(smapsText(bench.kernel, child)).toMatch(/Swap: +8 kB\nSwapPss: +4 kB\n/);
      expect(meminfo(bench.kernel)).toMatchObject({ SwapTotal: 255 * 4, SwapFree: 253 * 4, SwapCached: 0 });
      expect(vmstat(bench.kernel)).toMatchObject({ pswpout: 2, pswpin: 0 });
    }));

  it('of zeroes the area is not told: they count apart, out and in', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 3, 'rw');
      for (let i = 0; i < 3; i++) bench.store(mm, at + i * PAGE, i);
      pageOut(bench, mm, at, 3);
      expect(vmstat(bench.kernel)).toMatchObject({ pswpout: 2, swpout_zero: 1 });
      expect([used(bench), mm.swapents]).toEqual([3, 3]);
      expect([0, 1, 2].map((i) => bench.load(mm, at + i * PAGE))).toEqual([0, 1, 2]);
      expect(vmstat(bench.kernel)).toMatchObject({ pswpin: 2, swpin_zero: 1, pgmajfault: 3 });
      // What was zero once is not for ever.
      bench.store(mm, at, 7);
      pageOut(bench, mm, at, 1);
      expect(bench.load(mm, at)).toBe(7);
      expect(vmstat(bench.kernel)).toMatchObject({ pswpout: 3, swpout_zero: 1 });
    }));

  it('fork shares the slot; both get the same page, and a store copies it', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 1);
      pageOut(bench, mm, at, 1);
      const child = fork(bench, mm);
      expect([mm, child].map((each) => bench.pte(each, at) & SWP_EXCLUSIVE)).toEqual([0n, 0n]);
      expect(used(bench)).toBe(1);
      // The child first: the page must be found from its parent too.
      expect(bench.load(child, at)).toBe(1);
      const page = bench.page(child, at);
      expect(bench.field(page, 'flags') & PAGE_FLAGS.PG_swapcache).not.toBe(0);
      expect(bench.pte(child, at) & PTE_WRITE).toBe(0n);
      expect(bench.load(mm, at)).toBe(1);
      expect(bench.page(mm, at)).toBe(page);
      expect([refCount(bench.kernel, page), used(bench), bench.kernel.stats.pswpin]).toEqual([2, 0, 1]);
      expect(bench.kernel.stats.pgmajfault).toBe(1);
      bench.store(child, at, 7);
      expect([bench.load(mm, at), bench.load(child, at)]).toEqual([1, 7]);
      // The last sharer keeps it.
      bench.store(mm, at, 6);
      expect(bench.page(mm, at)).toBe(page);
    }));

  it('a page that two processes map leaves both, by the reverse map', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 1);
      const child = fork(bench, mm);
      pageOut(bench, mm, at, 1);
      // MADV_PAGEOUT leaves alone what others have too.
      expect(bench.kind(mm, at)).toBe('present');
      const hoard = exhaust(bench);
      expect(bench.store(mm, at - PAGE, 1).fault).not.toBe(0);
      bench.mmap(mm, 1, 'rw', at - PAGE);
      bench.store(mm, at - PAGE, 1);
      expect([bench.kind(mm, at), bench.kind(child, at)]).toEqual(['swap', 'swap']);
      hoard();
      expect([bench.load(mm, at), bench.load(child, at)]).toEqual([1, 1]);
    }));

  it('a store to a shared slot: the page comes read-only, then it is copied or kept', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 1);
      pageOut(bench, mm, at, 1);
      const child = fork(bench, mm);
      bench.store(mm, at, 5);
      // The child's entry still names the slot, and the page of it is in the swap cache.
      expect([bench.kind(child, at), used(bench)]).toEqual(['swap', 1]);
      expect([bench.load(child, at), bench.load(mm, at)]).toEqual([1, 5]);
      expect(used(bench)).toBe(0);
    }));

  it('who unmaps gives the slot back: munmap, DONTNEED, FREE, exit', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 4);
      pageOut(bench, mm, at, 4);
      const child = fork(bench, mm);
      expect(used(bench)).toBe(4);
      run(doMunmap(bench.kernel, mm, at, PAGE));
      advise(bench, mm, at + PAGE, 1, 'DONTNEED');
      advise(bench, mm, at + 2 * PAGE, 1, 'FREE');
      expect([used(bench), mm.swapents, child.swapents]).toEqual([4, 1, 4]);
      expect(bench.load(mm, at + 2 * PAGE)).toBe(0);
      run(exitMm(bench.kernel, child));
      expect(used(bench)).toBe(1);
      expect(bench.load(mm, at + 3 * PAGE)).toBe(4);
    }));

  it('the last entry takes a page of the swap cache along', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 1);
      pageOut(bench, mm, at, 1);
      const free = bench.free;
      expect(advise(bench, mm, at, 1, 'WILLNEED')).toBe(0);
      const core = new Int32Array(1);
      mincoreRange(bench.kernel, mm, at, core);
      expect([core[0], bench.free, bench.kernel.swap.cached, bench.kind(mm, at)]).toEqual([1, free - 1, 1, 'swap']);
      advise(bench, mm, at, 1, 'DONTNEED');
      expect([bench.free, used(bench)]).toEqual([free, 0]);
    }));

  it('WILLNEED reads ahead: the fault is a minor one; what is not needed after all is dropped without a write', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 2);
      pageOut(bench, mm, at, 2);
      advise(bench, mm, at, 2, 'WILLNEED');
      expect(bench.load(mm, at)).toBe(1);
      expect([bench.kernel.stats.pswpin, bench.kernel.stats.pgmajfault]).toEqual([2, 0]);
      const hoard = exhaust(bench);
      bench.mmap(mm, 1, 'rw', at - PAGE);
      expect(bench.store(mm, at - PAGE, 1).fault).toBe(0);
      hoard();
      expect([bench.kernel.swap.cached, bench.kind(mm, at + PAGE)]).toEqual([0, 'swap']);
      expect(bench.load(mm, at + PAGE)).toBe(2);
    }));

  it('mprotect and mremap of entries', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 2, 0x10_0000_0000);
      pageOut(bench, mm, at, 2);
      run(doMprotect(bench.kernel, mm, at, PAGE, 'r'));
      expect(bench.load(mm, at)).toBe(1);
      expect(bench.pte(mm, at) & PTE_WRITE).toBe(0n);
      const flags = { maymove: true, fixedAt: 0x20_0000_0000 as VirtAddr };
      const to = run(doMremap(bench.kernel, mm, (at + PAGE) as VirtAddr, PAGE, PAGE, flags)) as number;
      expect([bench.kind(mm, to), bench.load(mm, to)]).toEqual(['swap', 2]);
    }));

  it('pages that somebody holds: a pin keeps its page mapped, a reference keeps it in RAM', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 2);
      const pinned = run(pinUserPages(bench.kernel, mm, at, 1, { write: true, longterm: true })) as never[];
      const { pages: got } = run(getUserPages(bench.kernel, mm, (at + PAGE) as VirtAddr, 1));
      pageOut(bench, mm, at, 2);
      expect(kinds(bench, mm, at, 2)).toEqual(['present', 'swap']);
      // Unmapped, but in the swap cache: whoever faults finds the page that is held.
      bench.store(mm, at + PAGE, 7);
      expect(bench.page(mm, at + PAGE)).toBe(got[0]);
      unpinUserPages(bench.kernel, pinned);
      putUserPages(bench.kernel, got);
      expect(used(bench)).toBe(0);
    }));

  it('MADV_FREE: clean pages are dropped without swap, one that was written again is not', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 3);
      advise(bench, mm, at, 3, 'FREE');
      bench.store(mm, at + PAGE, 9);
      pageOut(bench, mm, at, 3);
      expect(kinds(bench, mm, at, 3)).toEqual(['none', 'present', 'none']);
      expect([used(bench), bench.kernel.stats.pglazyfreed, mm.rssAnon]).toEqual([0, 2, 1]);
      expect([0, 1, 2].map((i) => bench.load(mm, at + i * PAGE))).toEqual([0, 9, 0]);
      // It is an ordinary page again.
      pageOut(bench, mm, at, 3);
      expect(bench.kind(mm, at + PAGE)).toBe('swap');
      expect(bench.load(mm, at + PAGE)).toBe(9);
    }));

  it('COLD: pages count as not used lately', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 2);
      advise(bench, mm, at, 1, 'COLD');
      expect(smapsRange(bench.kernel, mm, at, 2).rss).toBe(8);
      expect(smapsText(bench.kernel, mm)).toMatch(/Referenced: +4 kB/);
    }));

  it('device private pages stay on their device; a swap entry is not collected', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = filled(bench, mm, 3);
      expect(run(driver.toDevice(mm, at, 1))).toBe(1);
      pageOut(bench, mm, at, 2);
      expect(kinds(bench, mm, at, 3)).toEqual(['device-private-write', 'swap', 'present']);
      expect(run(driver.toDevice(mm, at, 3))).toBe(1);
      expect(kinds(bench, mm, at, 3)).toEqual(['device-private-write', 'swap', 'device-private-write']);
      expect([0, 1, 2].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 2, 3]);
      expect(run(driver.toDevice(mm, at, 3))).toBe(3);
    }));

  it('a page of the swap cache migrates only once no entry needs its slot', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = filled(bench, mm, 1);
      pageOut(bench, mm, at, 1);
      const child = fork(bench, mm);
      bench.load(mm, at);
      expect(run(driver.toDevice(mm, at, 1))).toBe(0);
      expect([bench.kind(mm, at), bench.kind(child, at)]).toEqual(['present', 'swap']);
      bench.load(child, at);
      expect(run(driver.toDevice(mm, at, 1))).toBe(1);
      expect([bench.load(child, at), bench.load(mm, at)]).toEqual([1, 1]);
    }));

  it('pins and device faults bring pages in', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = filled(bench, mm, 2);
      pageOut(bench, mm, at, 2);
      const pages = run(pinUserPages(bench.kernel, mm, at, 1, { write: false, longterm: true })) as never[];
      expect(bench.kind(mm, at)).toBe('present');
      unpinUserPages(bench.kernel, pages);
      const notifier = mmuIntervalNotifierInsert(mm, 0, 2 ** 47, {
        // biome-ignore lint/correctness/useYield: the device has nothing to forget
        *invalidate(self, _range, sequence) {
          mmuIntervalSetSeq(self, sequence);
        },
      });
      const hmmPfns = new Int32Array(2);
      function* fault(flags: number) {
        yield* mm.mmapLock.downRead();
        const notifierSeq = yield* mmuIntervalReadBegin(notifier);
        const range = {
          start: (at + PAGE) as VirtAddr,
          end: (at + 2 * PAGE) as VirtAddr,
          hmmPfns,
          defaultFlags: flags,
        };
        const outcome = yield* hmmRangeFault(bench.kernel, {
          ...{ ...range, notifier, notifierSeq, pfnFlagsMask: 0, devPrivateOwner: null },
        });
        mm.mmapLock.upRead();
        return outcome;
      }
      // Looking faults nothing in.
      expect([run(fault(0)), hmmPfns[1]! & HMM_PFN_VALID]).toEqual([0, 0]);
      expect(bench.kind(mm, at + PAGE)).toBe('swap');
      expect([run(fault(HMM_PFN_REQ_FAULT)), hmmPfns[1]! & HMM_PFN_VALID]).toEqual([0, HMM_PFN_VALID]);
      run(mmuIntervalNotifierRemove(notifier));
    }));
});

/** Take RAM away, all or all but some; returns how to give it back. */
function exhaust(bench: Bench, left = 0): () => void {
  const pages: number[] = [];
  while (bench.free > left) pages.push(bench.kernel.buddy.allocPages(0));
  return () => {
    for (const page of pages) {
      bench.kernel.memmap.words[page * 16 + 13] = 0;
      bench.kernel.buddy.freePages(page as never, 0);
    }
  };
}

describeEach('reclaim', (addressing) => {
  it('more memory than RAM: everything reads back as it was written', () =>
    withKernel(
      addressing,
      (bench) => {
        bench.kernel.swap.swapon(8 * MiB);
        const mm = bench.mm();
        const pages = 1500;
        const at = bench.mmap(mm, pages);
        for (let i = 0; i < pages; i++) expect(bench.store(mm, at + i * PAGE, i % 251).fault).toBe(0);
        expect(mm.rssAnon + mm.swapents).toBe(pages);
        expect(mm.swapents).toBeGreaterThan(400);
        for (let i = 0; i < pages; i++) expect(bench.load(mm, at + i * PAGE)).toBe(i % 251);
        const { pgsteal_direct, pswpout, swpout_zero } = vmstat(bench.kernel);
        expect(pgsteal_direct).toBe(pswpout + swpout_zero);
      },
      4,
    ));

  it('swap that is full: out of memory, and everything else as before', () =>
    withKernel(
      addressing,
      (bench) => {
        bench.kernel.swap.swapon(MiB);
        const mm = bench.mm();
        const at = bench.mmap(mm, 1500);
        let stored = 0;
        while (bench.store(mm, at + stored * PAGE, stored % 251).fault === 0) stored++;
        expect([bench.free, bench.kernel.swap.free]).toEqual([0, 0]);
        expect(stored).toBeGreaterThan(1023 + 255 - 10);
        expect([mm.rssAnon + mm.swapents, mm.swapents]).toEqual([stored, 255]);
        // Not even a page that is in swap can come back; with a little room they can change places.
        run(doMunmap(bench.kernel, mm, at, PAGE));
        for (let i = 1; i < stored; i++) expect(bench.load(mm, at + i * PAGE)).toBe(i % 251);
      },
      4,
    ));

  it('a store to a shared page in swap, with room for one page only: out of memory, not for ever in and out', () =>
    withSwap(
      addressing,
      (bench) => {
        const mm = bench.mm();
        const at = filled(bench, mm, 1);
        pageOut(bench, mm, at, 1);
        const child = fork(bench, mm);
        const hoard = exhaust(bench, 1);
        expect(bench.store(mm, at, 9).fault).toBe(VM_FAULT_OOM);
        hoard();
        bench.store(mm, at, 9);
        expect([bench.load(mm, at), bench.load(child, at)]).toEqual([9, 1]);
      },
      1,
    ));

  it('a page that was used since the hand came by stays', () =>
    withKernel(
      addressing,
      (bench) => {
        bench.kernel.swap.swapon(8 * MiB);
        const mm = bench.mm();
        const hot = filled(bench, mm, 1);
        const at = bench.mmap(mm, 3000);
        for (let i = 0; i < 3000; i++) {
          bench.store(mm, at + i * PAGE, 1);
          // Through the page table: a TLB would hide it from the accessed bit.
          bench.kernel.cpus[0]!.flushRange(hot, (hot + PAGE) as VirtAddr);
          bench.load(mm, hot);
        }
        expect(bench.kernel.stats.pswpout).toBeGreaterThan(1500);
        // Where everything was used lately, it has to go with the others.
        expect(bench.kernel.stats.pgmajfault).toBeLessThan(5);
      },
      4,
    ));

  it('a page comes home from its device though RAM is full', () =>
    withKernel(
      addressing,
      (bench) => {
        bench.kernel.swap.swapon(8 * MiB);
        const mm = bench.mm();
        const driver: FakeDriver = bench.driver();
        const at = filled(bench, mm, 8);
        expect(run(driver.toDevice(mm, at, 8))).toBe(8);
        const rest = bench.mmap(mm, 1400);
        for (let i = 0; i < 1400; i++) bench.store(mm, rest + i * PAGE, 2);
        const hoard = exhaust(bench);
        for (let i = 0; i < 8; i++) expect(bench.load(mm, at + i * PAGE)).toBe(i + 1);
        hoard();
      },
      4,
    ));
});

describeEach('swap areas', (addressing) => {
  it('as many as the special swap types leave: 24, and 21 with the series', () => {
    withKernel(addressing, ({ kernel }) => {
      const areas = addressing === 'legacy' ? 24 : 21;
      for (let i = 0; i < areas; i++) expect(kernel.swap.swapon(8192)).toBe(0);
      expect(kernel.swap.swapon(8192)).toBe('EPERM');
      expect(kernel.swap.total).toBe(areas);
    });
  });

  it('areas fill in order, and an entry says which it is in', () =>
    withKernel(addressing, (bench) => {
      for (let i = 0; i < 3; i++) bench.kernel.swap.swapon(2 * PAGE);
      const mm = bench.mm();
      const at = filled(bench, mm, 4);
      pageOut(bench, mm, at, 4);
      expect(kinds(bench, mm, at, 4)).toEqual(['swap', 'swap', 'swap', 'present']);
      expect([0, 1, 2].map((i) => pagemapEntry(bench.kernel, mm, (at + i * PAGE) as VirtAddr) >> 8)).toEqual([0, 1, 2]);
      expect([0, 1, 2, 3].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 2, 3, 4]);
    }));
});

it('swapon refuses what is too small; a slot that nobody wrote cannot be read', () => {
  const swap = new SwapSpace(1);
  expect(swap.swapon(4096)).toBe('EINVAL');
  expect(swap.swapon(12288)).toBe(0);
  expect(swap.swapon(12288)).toBe('EPERM');
  const entry = swap.alloc(77 as never);
  expect(() => swap.read(entry, new Uint8Array(4096))).toThrow('nothing was written');
  swap.write(entry, new Uint8Array(4096).fill(5));
  const out = new Uint8Array(4096);
  swap.read(entry, out);
  expect(out[4095]).toBe(5);
  swap.setCachedPage(entry, 0 as never);
  expect(swap.free).toBe(2);
  expect(() => swap.duplicate(entry)).toThrow('free');
  expect(() => swap.drop(entry)).toThrow('does not know');
});
