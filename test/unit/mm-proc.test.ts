/** The views of /proc: pagemap, mincore, smaps, maps. Values are those of real kernels' traces. */
import { expect, it } from 'vitest';
import { PTE_DIRTY, PTE_WRITE } from '#src/abi/pte';
import type { Page, VirtAddr } from '#src/base/brand';
import { makeDeviceExclusive } from '#src/mm/device-exclusive';
import { vmFileGet } from '#src/mm/filemap';
import { pinUserPages, unpinUserPages } from '#src/mm/gup';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap } from '#src/mm/mmap';
import { pageMapcountAdd } from '#src/mm/page';
import { mincore, mincoreRange, pagemapAndMincore, pagemapEntry, pagemapWord } from '#src/mm/proc-pagemap';
import { mapsText, smapsRange, smapsText } from '#src/mm/proc-smaps';
import { putPage } from '#src/mm/put-page';
import { VmArea, vmaLookup } from '#src/mm/vma';
import { folioUnlock, pageRefAdd } from '#src/sync/page-ref';
import { type Bench, changePte, describeEach, PAGE, run, withKernel } from './mm-fixture';

const BASE = 0x1000_0000_0000;

function exclusive(bench: Bench, mm: MmStruct, at: number): void {
  run(mm.mmapLock.downRead());
  const page = run(makeDeviceExclusive(bench.kernel, mm, at as VirtAddr, null));
  mm.mmapLock.upRead();
  if (typeof page === 'string') throw new Error(page);
  folioUnlock(bench.kernel.memmap.words, page);
  putPage(bench.kernel, page);
}

const pm = (bench: Bench, mm: MmStruct, pages: number): number[] => {
  const out = new Int32Array(pages);
  const [inCore, alone] = [new Int32Array(out.length), new Int32Array(out.length)];
  pagemapAndMincore(bench.kernel, mm, BASE as VirtAddr, out, inCore);
  // One walk for both sees what mincore sees by itself.
  mincoreRange(bench.kernel, mm, BASE as VirtAddr, alone);
  expect(inCore).toEqual(alone);
  return [...out];
};
const mc = (bench: Bench, mm: MmStruct, pages: number): number[] => {
  const out = new Int32Array(pages);
  mincoreRange(bench.kernel, mm, BASE as VirtAddr, out);
  return [...out];
};
const sums = (bench: Bench, mm: MmStruct, pages: number) => {
  // Which pages were looked at is not the matter here.
  const { vmas, ref: _, ...rest } = smapsRange(bench.kernel, mm, BASE as VirtAddr, pages);
  return { vmas, nonzero: Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== 0)) };
};

describeEach('/proc views', (addressing) => {
  const deviceWrite = addressing === 'legacy' ? 7170 : 0x1902;
  const deviceRead = addressing === 'legacy' ? 7426 : 0x1a02;
  const deviceExclusive = addressing === 'legacy' ? 7682 : 0x1b02;

  it('private memory in all its states', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      bench.mmap(mm, 8, 'rw', BASE);
      const at = (i: number): VirtAddr => (BASE + i * PAGE) as VirtAddr;
      bench.store(mm, at(0), 1);
      bench.load(mm, at(1));
      bench.store(mm, at(2), 1);
      bench.store(mm, at(3), 1);
      changePte(bench, mm, at(3), (pte) => pte & ~PTE_WRITE);
      expect(run(driver.toDevice(mm, at(2), 3))).toBe(3);
      exclusive(bench, mm, at(5));
      expect(pm(bench, mm, 9)).toEqual([9, 1, deviceWrite, deviceRead, deviceWrite, deviceExclusive, 0, 0, 0]);
      expect(mc(bench, mm, 9)).toEqual([1, 1, 1, 1, 1, 1, 0, 0, -1]);
      // The device page that came from a hole is clean; the exclusive one is "shared" and dirty; the zero page is not there.
      expect(sums(bench, mm, 9)).toEqual({
        vmas: [[0, 8, 'rw-p']],
        nonzero: { rss: 20, pss: 20, anon: 20, prd: 12, prc: 4, shd: 4 },
      });
      expect(pagemapEntry(bench.kernel, mm, at(2))).toBe(deviceWrite);
      expect(mincore(bench.kernel, mm, (at(8) + 5) as VirtAddr)).toBe(-1);
      expect(mincore(bench.kernel, mm, (at(5) + 5) as VirtAddr)).toBe(1);
    }));

  it('raw pagemap words: PFN, or type and number; a private page shows its offset under the series', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      bench.mmap(mm, 2, 'rw', BASE);
      bench.store(mm, BASE, 1);
      const softDirty = 1n << 55n;
      const word = (i: number): bigint => pagemapWord(bench.kernel, mm, (BASE + i * PAGE) as VirtAddr) ^ softDirty;
      expect(word(0)).toBe((1n << 63n) | (1n << 56n) | BigInt(bench.kernel.memmap.pageToPfn(bench.page(mm, BASE))));
      expect(word(1)).toBe(0n);
      run(driver.toDevice(mm, BASE, 1));
      const number = BigInt(bench.kernel.addressing.pageNumber(bench.page(mm, BASE)));
      expect(word(0)).toBe((1n << 62n) | (number << 5n) | BigInt(deviceWrite >> 8));
    }));

  it('shared memory, in two processes', () =>
    withKernel(addressing, (bench) => {
      const [mm, child] = [bench.mm(), bench.mm()];
      const request = { addr: BASE as VirtAddr, length: 4 * PAGE, prot: 'rw', fixed: true, kind: 'shared' } as const;
      run(doMmap(bench.kernel, mm, request));
      bench.store(mm, BASE, 1);
      bench.load(mm, BASE + PAGE);
      expect(pm(bench, mm, 4)).toEqual([13, 13, 0, 0]);
      expect(sums(bench, mm, 4)).toEqual({ vmas: [[0, 4, 'rw-s']], nonzero: { rss: 8, pss: 8, prd: 4, prc: 4 } });
      const vma = vmaLookup(mm, BASE)!;
      vmFileGet(vma.file);
      child.vmas.insert(vma.start, vma.end, new VmArea(child, vma.start, vma.end, vma.flags, vma.pgoff, vma.file));
      // In the page cache, if not mapped.
      expect(mc(bench, child, 4)).toEqual([1, 1, 0, 0]);
      expect(pm(bench, child, 4)).toEqual([0, 0, 0, 0]);
      bench.load(child, BASE);
      expect(pm(bench, child, 4)).toEqual([5, 5, 0, 0]);
      expect(sums(bench, mm, 4).nonzero).toEqual({ rss: 8, pss: 4, shd: 4, shc: 4 });
    }));

  it('proportional shares are truncated VMA by VMA', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      bench.mmap(mm, 1, 'rw', BASE);
      bench.mmap(mm, 1, 'r', BASE + PAGE);
      bench.store(mm, BASE, 1);
      const pages = run(
        pinUserPages(bench.kernel, mm, (BASE + PAGE) as VirtAddr, 1, { write: false, longterm: true }),
      ) as Page[];
      // As if two other processes mapped each: a third of 4 kB is 1 kB.
      const both = [bench.page(mm, BASE), pages[0]!];
      const { words } = bench.kernel.memmap;
      for (const page of both) {
        pageMapcountAdd(words, page, 2);
        pageRefAdd(words, page, 2);
      }
      expect(sums(bench, mm, 2)).toEqual({
        vmas: [
          [0, 1, 'rw-p'],
          [1, 1, 'r--p'],
        ],
        nonzero: { rss: 8, pss: 2, anon: 8, shd: 4, shc: 4 },
      });
      for (const page of both) {
        pageMapcountAdd(words, page, -2);
        pageRefAdd(words, page, -2);
      }
      // A pin is a reference, but no mapping.
      expect(sums(bench, mm, 2).nonzero).toEqual({ rss: 8, pss: 8, anon: 8, prd: 4, prc: 4 });
      unpinUserPages(bench.kernel, pages);
    }));

  it('a range that cuts VMAs, and a dirty bit that only the page has', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      bench.mmap(mm, 6, 'rw', BASE - 2 * PAGE);
      for (let i = -2; i < 4; i++) bench.store(mm, BASE + i * PAGE, 1);
      run(doMunmap(bench.kernel, mm, (BASE + PAGE) as VirtAddr, PAGE));
      const driver = bench.driver();
      run(driver.toDevice(mm, BASE, 1));
      bench.load(mm, BASE);
      changePte(bench, mm, BASE, (pte) => pte & ~PTE_DIRTY);
      expect(sums(bench, mm, 3)).toEqual({
        vmas: [
          [0, 1, 'rw-p'],
          [2, 1, 'rw-p'],
        ],
        nonzero: { rss: 8, pss: 8, anon: 8, prd: 8 },
      });
      expect(mc(bench, mm, 3)).toEqual([1, -1, 1]);
    }));

  it('text', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      bench.mmap(mm, 2, 'r', BASE);
      const addr = (BASE + 8 * PAGE) as VirtAddr;
      run(doMmap(bench.kernel, mm, { addr, length: PAGE, prot: 'rw', fixed: true, kind: 'shared' }));
      bench.store(mm, addr, 1);
      expect(mapsText(mm)).toBe(
        '100000000000-100000002000 r--p 00000000 00:00 0 \n' +
          `${'100000008000-100000009000 rw-s 00000000 00:01 1 '.padEnd(73)}/dev/zero (deleted)\n`,
      );
      const text = smapsText(bench.kernel, mm);
      expect(text.split('\n')).toHaveLength(2 * 25 + 1);
      expect(text).toContain('Private_Dirty:         4 kB\n');
      expect(text).toContain('Pss:                   4 kB\n');
      expect(text).toContain('THPeligible:           0\nVmFlags: rd wr sh mr mw ms sd \n');
    }));
});
