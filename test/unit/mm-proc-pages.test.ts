/** The views of /proc on the machine's memory: meminfo, vmstat, kpageflags, kpagecount, and a process's status. */
import { expect, it } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { forkMm } from '#src/mm/fork';
import { doMmap } from '#src/mm/mmap';
import { meminfo, meminfoText, vmstat, vmstatText } from '#src/mm/proc-meminfo';
import { KPF, kpagecount, kpageflags, stablePageFlags } from '#src/mm/proc-page';
import { processStatus, processStatusText } from '#src/mm/proc-status';
import { putPage } from '#src/mm/put-page';
import { folioUnlock } from '#src/sync/page-ref';
import { type Bench, describeEach, PAGE, run, withKernel } from './mm-fixture';

const SECTION_PAGES = 32768;

/** Names of the bits of a KPF word. */
const names = (word: bigint): string[] =>
  Object.entries(KPF)
    .filter(([, bit]) => (word >> BigInt(bit)) & 1n)
    .map(([name]) => name)
    .sort();
const flagsOf = (bench: Bench, pfn: number): string[] => names(kpageflags(bench.kernel, pfn, 1)[0]!);

describeEach('/proc of the machine', (addressing) => {
  it('meminfo and vmstat count what is mapped and cached, device private pages as anonymous memory', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const before = meminfo(bench.kernel);
      expect(before).toMatchObject({ MemTotal: (2048 - 1) * 4, AnonPages: 0, Cached: 0, Mapped: 0, PageTables: 4 });
      const own = bench.mmap(mm, 4);
      for (let page = 0; page < 4; page++) bench.store(mm, own + page * PAGE, 1);
      const shared = run(
        doMmap(bench.kernel, mm, { length: 2 * PAGE, prot: 'rw', fixed: false, kind: 'shared' }),
      ) as VirtAddr;
      for (let page = 0; page < 2; page++) bench.store(mm, shared + page * PAGE, 1);
      expect(run(driver.toDevice(mm, own, 3))).toBe(3);
      const now = meminfo(bench.kernel);
      expect(now).toEqual({
        ...before,
        MemFree: bench.free * 4,
        AnonPages: 16,
        Cached: 8,
        Mapped: 8,
        Shmem: 8,
        PageTables: mm.tables * 4,
      });
      expect(before.MemFree - now.MemFree).toBe(4 + 8 + (mm.tables - 1) * 4);
      const child = run(forkMm(bench.kernel, mm, 2))!;
      // Pages, not mappings of them.
      expect(vmstat(bench.kernel)).toMatchObject({
        nr_anon_pages: 4,
        nr_mapped: 2,
        nr_file_pages: 2,
        nr_shmem: 2,
        nr_free_pages: bench.free,
        nr_page_table_pages: mm.tables + child.tables,
        pgfault: bench.kernel.stats.cpuFaults,
      });
      expect(meminfoText(meminfo(bench.kernel))).toContain('AnonPages:            16 kB\n');
      expect(vmstatText(vmstat(bench.kernel))).toContain('nr_anon_pages 4\n');
    }));

  it('kpageflags and kpagecount of RAM, up to the end of its last section', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      bench.load(mm, at + PAGE);
      const pfn = bench.kernel.memmap.pageToPfn(bench.page(mm, at));
      expect(flagsOf(bench, pfn)).toEqual(['ANON', 'LRU', 'MMAP', 'SWAPBACKED', 'UPTODATE']);
      expect([...kpagecount(bench.kernel, pfn, 1)]).toEqual([1n]);
      run(forkMm(bench.kernel, mm, 2));
      expect([...kpagecount(bench.kernel, pfn, 1)]).toEqual([2n]);
      expect(flagsOf(bench, bench.kernel.zeroPfn)).toEqual(['RESERVED', 'ZERO_PAGE']);
      expect(flagsOf(bench, bench.kernel.memmap.pageToPfn(mm.pgd))).toEqual(['PGTABLE']);
      // Every page of a free block, not only its first; PFN 0 and what is behind the RAM of a section are reserved.
      const words = kpageflags(bench.kernel, 0, SECTION_PAGES + 10);
      expect(words).toHaveLength(SECTION_PAGES);
      const buddies = words.reduce((sum, word) => sum + ((word >> BigInt(KPF.BUDDY)) & 1n), 0n);
      expect(buddies).toBe(BigInt(bench.free));
      expect(names(words[0]!)).toEqual(['RESERVED']);
      expect(names(words[2048]!)).toEqual(['RESERVED']);
      expect(kpageflags(bench.kernel, SECTION_PAGES, 1)).toHaveLength(0);
      const mapped = kpagecount(bench.kernel, 0, 2048).reduce((sum, count) => sum + count, 0n);
      expect(mapped).toBe(2n);
    }));

  it('device private pages have no word, under either addressing', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 1);
      run(driver.toDevice(mm, at, 1));
      const page = bench.page(mm, at);
      const pfn = bench.kernel.memmap.pageToPfn(page);
      if (addressing === 'offset') expect(pfn).toBe(-1);
      else expect(kpageflags(bench.kernel, pfn, 1)).toHaveLength(0);
      const anon = kpageflags(bench.kernel, 0, 2048).filter((word) => (word >> BigInt(KPF.ANON)) & 1n);
      expect(anon).toHaveLength(0);
      expect(names(stablePageFlags(bench.kernel, page))).toEqual(['ANON', 'DIRTY', 'MMAP', 'SWAPBACKED', 'UPTODATE']);
    }));

  it('a device page whose offset is the zero page’s PFN is not taken for it', () =>
    withKernel(addressing, (bench) => {
      const driver = bench.driver();
      const pages = Array.from({ length: bench.kernel.zeroPfn + 1 }, () => driver.alloc());
      const page = pages.at(-1)!;
      if (addressing === 'offset') expect(bench.kernel.addressing.pageNumber(page)).toBe(bench.kernel.zeroPfn);
      expect(names(stablePageFlags(bench.kernel, page))).not.toContain('ZERO_PAGE');
      for (const each of pages) {
        folioUnlock(bench.kernel.memmap.words, each);
        putPage(bench.kernel, each);
      }
    }));

  it('status of a process', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const own = bench.mmap(mm, 8);
      bench.mmap(mm, 4, 'r');
      run(doMmap(bench.kernel, mm, { length: 2 * PAGE, prot: 'rw', fixed: false, kind: 'shared' }));
      for (let page = 0; page < 3; page++) bench.store(mm, own + page * PAGE, 1);
      run(driver.toDevice(mm, own, 2));
      expect(processStatus(mm)).toMatchObject({
        VmSize: 56,
        VmRSS: 12,
        RssAnon: 12,
        RssFile: 0,
        RssShmem: 0,
        VmData: 32,
        VmPTE: (mm.tables - 1) * 4,
      });
      expect(processStatusText(mm)).toContain('VmRSS:\t      12 kB\n');
    }));
});
