/** Memory that stays in RAM: what mlock brings in, what reclaim leaves alone, what the rest of mm does with locked mappings. */
import { expect, it } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { forkMm } from '#src/mm/fork';
import { type Advice, doMadvise } from '#src/mm/madvise';
import { doMlock, doMunlock } from '#src/mm/mlock';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap } from '#src/mm/mmap';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { meminfo } from '#src/mm/proc-meminfo';
import { KPF, kpageflags } from '#src/mm/proc-page';
import { smapsText } from '#src/mm/proc-smaps';
import { processStatus } from '#src/mm/proc-status';
import { tryToFreePages } from '#src/mm/vmscan';
import { type Bench, describeEach, PAGE, run, withKernel } from './mm-fixture';

const BASE = 0x10_0000_0000;
const mlock = (bench: Bench, mm: MmStruct, at: number, pages: number, onFault = false) =>
  run(doMlock(bench.kernel, mm, at as VirtAddr, pages * PAGE, onFault));
const munlock = (bench: Bench, mm: MmStruct, at: number, pages: number) =>
  run(doMunlock(bench.kernel, mm, at as VirtAddr, pages * PAGE));
const advise = (bench: Bench, mm: MmStruct, at: number, pages: number, what: Advice) =>
  run(doMadvise(bench.kernel, mm, at as VirtAddr, pages * PAGE, what));
const kinds = (bench: Bench, mm: MmStruct, at: number, pages: number): string[] =>
  Array.from({ length: pages }, (_, i) => bench.kind(mm, at + i * PAGE));

const withSwap = (addressing: 'legacy' | 'offset', body: (bench: Bench) => void): void =>
  withKernel(addressing, (bench) => {
    bench.kernel.swap.swapon(2 ** 20);
    body(bench);
  });

describeEach('mlock', (addressing) => {
  it('brings in what is not in RAM: never touched, in swap, on a device', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 4, 'rw', BASE);
      for (const page of [1, 2]) bench.store(mm, at + page * PAGE, page);
      advise(bench, mm, at + PAGE, 1, 'PAGEOUT');
      run(driver.toDevice(mm, at + 2 * PAGE, 1));
      expect(mlock(bench, mm, at, 4)).toBe(0);
      expect(kinds(bench, mm, at, 4)).toEqual(['present', 'present', 'present', 'present']);
      expect([mm.rssAnon, driver.used, bench.load(mm, at + PAGE), bench.load(mm, at + 2 * PAGE)]).toEqual([4, 0, 1, 2]);
      // A write-populated page is nobody's but the process's: no fault is left for the first store.
      const faults = bench.kernel.stats.cpuFaults;
      bench.store(mm, at, 9);
      expect(bench.kernel.stats.cpuFaults).toBe(faults);
    }));

  it('reclaim leaves locked pages alone, and takes them once they are unlocked', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4, 'rw', BASE);
      expect(mlock(bench, mm, at, 2)).toBe(0);
      for (const page of [0, 1, 2, 3]) bench.store(mm, at + page * PAGE, page);
      expect(run(tryToFreePages(bench.kernel, 10))).toBe(2);
      expect(kinds(bench, mm, at, 4)).toEqual(['present', 'present', 'swap', 'swap']);
      expect(munlock(bench, mm, at, 1)).toBe(0);
      expect(run(tryToFreePages(bench.kernel, 10))).toBe(1);
      expect(kinds(bench, mm, at, 2)).toEqual(['swap', 'present']);
    }));

  it('one locked mapping of a page suffices', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1, 'rw', BASE);
      bench.store(mm, at, 1);
      const child = run(forkMm(bench.kernel, mm, 2))!;
      expect(mlock(bench, child, at, 1)).toBe(0);
      // Locking broke the sharing (a private writable page is populated by a store): the parent's copy may go, the child's not.
      expect(run(tryToFreePages(bench.kernel, 10))).toBe(1);
      expect([bench.kind(mm, at), bench.kind(child, at)]).toEqual(['swap', 'present']);
    }));

  it('a child does not inherit it', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1, 'rw', BASE);
      mlock(bench, mm, at, 1);
      const child = run(forkMm(bench.kernel, mm, 2))!;
      expect([processStatus(mm).VmLck, processStatus(child).VmLck]).toEqual([4, 0]);
    }));

  it('devices may take locked pages, and they are locked when they come back', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 1, 'rw', BASE);
      mlock(bench, mm, at, 1);
      bench.store(mm, at, 3);
      expect(run(driver.toDevice(mm, at, 1))).toBe(1);
      expect(meminfo(bench.kernel)).toMatchObject({ Mlocked: 4, Unevictable: 0 });
      expect(bench.load(mm, at)).toBe(3);
      expect(run(tryToFreePages(bench.kernel, 10))).toBe(0);
    }));

  it('errors: a hole, with what is before it locked; memory that may not be accessed; no RAM', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      bench.mmap(mm, 2, 'rw', BASE);
      bench.mmap(mm, 2, 'none', BASE + 4 * PAGE);
      expect(mlock(bench, mm, BASE, 3)).toBe('ENOMEM');
      expect([mm.rssAnon, processStatus(mm).VmLck]).toEqual([0, 8]);
      expect(mlock(bench, mm, BASE + 4 * PAGE, 1)).toBe('ENOMEM');
      expect(munlock(bench, mm, BASE + PAGE, 2)).toBe('ENOMEM');
      expect(processStatus(mm).VmLck).toBe(8);
      expect(mlock(bench, mm, BASE, 0)).toBe(0);
      const much = bench.mmap(mm, 4000);
      expect(mlock(bench, mm, much, 4000)).toBe('EAGAIN');
    }));

  it('MLOCK_ONFAULT brings nothing in', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', BASE);
      expect(mlock(bench, mm, at, 2, true)).toBe(0);
      expect(mm.rssAnon).toBe(0);
      bench.store(mm, at, 1);
      expect(run(tryToFreePages(bench.kernel, 10))).toBe(0);
      expect(smapsText(bench.kernel, mm)).toContain(' lo lf ');
    }));

  it('advice that would take pages away is refused; a mapping that grows grows in RAM', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1, 'rw', BASE);
      mlock(bench, mm, at, 1);
      for (const what of ['DONTNEED', 'FREE', 'COLD', 'PAGEOUT'] as const)
        expect(advise(bench, mm, at, 1, what)).toBe('EINVAL');
      expect(run(doMremap(bench.kernel, mm, at, PAGE, 3 * PAGE, { maymove: true }))).toBe(at);
      expect(mm.rssAnon).toBe(3);
      const shared = run(
        doMmap(bench.kernel, mm, { length: PAGE, prot: 'rw', fixed: false, kind: 'shared' }),
      ) as VirtAddr;
      expect(mlock(bench, mm, shared, 1)).toBe(0);
      expect(mm.rssShmem).toBe(1);
    }));

  it('a mapping that becomes writable is copied at once, and comes home for it', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 4, 'rw', BASE);
      bench.store(mm, at + PAGE, 5);
      run(driver.toDevice(mm, at + PAGE, 1));
      run(doMprotect(bench.kernel, mm, at, 4 * PAGE, 'r'));
      mlock(bench, mm, at, 3);
      run(driver.toDevice(mm, at + PAGE, 1));
      run(doMprotect(bench.kernel, mm, at, 4 * PAGE, 'rw'));
      expect(kinds(bench, mm, at, 4)).toEqual(['present', 'present', 'present', 'none']);
      const faults = bench.kernel.stats.cpuFaults;
      for (const page of [0, 1, 2]) bench.store(mm, at + page * PAGE, 9);
      expect([bench.kernel.stats.cpuFaults, driver.used]).toEqual([faults, 0]);
      // Not with MLOCK_ONFAULT, and nobody hears of it where there is no RAM.
      run(doMprotect(bench.kernel, mm, at, 4 * PAGE, 'r'));
      mlock(bench, mm, at + 3 * PAGE, 1, true);
      expect(run(doMprotect(bench.kernel, mm, at, 4 * PAGE, 'rw'))).toBe(0);
      expect(bench.kind(mm, at + 3 * PAGE)).toBe('none');
      const much = bench.mmap(mm, 4000, 'none');
      expect(mlock(bench, mm, much, 4000)).toBe('ENOMEM');
      expect(run(doMprotect(bench.kernel, mm, much, 4000 * PAGE, 'rw'))).toBe(0);
    }));

  it('of a mapping of which a part has moved elsewhere that part is locked no more, what lies beside it is', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4, 'rw', BASE);
      mlock(bench, mm, at, 4);
      const moved = run(doMremap(bench.kernel, mm, at, 2 * PAGE, 2 * PAGE, { maymove: true, dontunmap: true }));
      expect([processStatus(mm).VmLck, meminfo(bench.kernel).Mlocked]).toEqual([16, 16]);
      expect(munlock(bench, mm, moved as VirtAddr, 2)).toBe(0);
      expect(processStatus(mm).VmLck).toBe(8);
    }));

  it('memory that may only be written is brought in as well', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = run(
        doMmap(bench.kernel, mm, { length: 2 * PAGE, prot: 'w', fixed: false, kind: 'shared' }),
      ) as VirtAddr;
      expect([mlock(bench, mm, at, 2), mm.rssShmem]).toEqual([0, 2]);
    }));

  it('views: Locked, Mlocked, VmLck, KPF_MLOCKED', () =>
    withSwap(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', BASE);
      mlock(bench, mm, at, 2);
      expect(smapsText(bench.kernel, mm)).toMatch(/Locked: +8 kB\n/);
      expect(meminfo(bench.kernel)).toMatchObject({ Mlocked: 8, Unevictable: 8 });
      const pfn = bench.kernel.memmap.pageToPfn(bench.page(mm, at));
      const word = kpageflags(bench.kernel, pfn, 1)[0]!;
      expect([KPF.MLOCKED, KPF.UNEVICTABLE].map((bit) => (word >> BigInt(bit)) & 1n)).toEqual([1n, 1n]);
      munlock(bench, mm, at, 2);
      expect(meminfo(bench.kernel).Mlocked).toBe(0);
      expect(smapsText(bench.kernel, mm)).toMatch(/Locked: +0 kB\n/);
    }));
});
