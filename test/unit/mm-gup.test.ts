/** Pins and plain references on user pages. */
import { expect, it } from 'vitest';
import { PTE_DIRTY, PTE_WRITE } from '#src/abi/pte';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { Page, VirtAddr } from '#src/base/brand';
import { getUserPages, pinUserPages, putUserPages, unpinUserPages } from '#src/mm/gup';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap } from '#src/mm/mmap';
import { pageClearFlag, pageMaybeDmaPinned } from '#src/mm/page';
import { type Bench, changePte, describeEach, PAGE, refCount, run, withKernel } from './mm-fixture';

const pin = (bench: Bench, mm: MmStruct, at: number, pages: number, write: boolean, longterm = true) =>
  run(pinUserPages(bench.kernel, mm, at as VirtAddr, pages, { write, longterm }));

function pinned(bench: Bench, mm: MmStruct, at: number, pages: number, write: boolean): readonly Page[] {
  const got = pin(bench, mm, at, pages, write);
  if (typeof got === 'string') throw new Error(got);
  return got;
}

describeEach('pins', (addressing) => {
  it('a pin keeps exactly its pages in RAM, until it is dropped', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 8);
      for (let i = 0; i < 8; i++) bench.store(mm, at + i * PAGE, i + 1);
      const pages = pinned(bench, mm, at, 4, true);
      expect(pages.map((page) => refCount(bench.kernel, page))).toEqual([1025, 1025, 1025, 1025]);
      expect(pages.every((page) => pageMaybeDmaPinned(bench.kernel.memmap.words, page))).toBe(true);
      expect(run(driver.toDevice(mm, at, 8))).toBe(4);
      expect([0, 3, 4, 7].map((i) => bench.kind(mm, at + i * PAGE))).toEqual([
        'present',
        'present',
        'device-private-write',
        'device-private-write',
      ]);
      expect(bench.pte(mm, at) & PTE_WRITE).not.toBe(0n);
      unpinUserPages(bench.kernel, pages);
      expect(pages.map((page) => refCount(bench.kernel, page))).toEqual([1, 1, 1, 1]);
      expect(run(driver.toDevice(mm, at, 8))).toBe(4);
    }));

  it('a pin brings device pages home; a write entry comes back writable', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 3);
      for (let i = 0; i < 3; i++) bench.store(mm, at + i * PAGE, i + 1);
      expect(run(driver.toDevice(mm, at, 3))).toBe(3);
      const pages = pinned(bench, mm, at, 2, false);
      expect([0, 1, 2].map((i) => bench.kind(mm, at + i * PAGE))).toEqual([
        'present',
        'present',
        'device-private-write',
      ]);
      expect(bench.pte(mm, at) & PTE_WRITE).not.toBe(0n);
      bench.store(mm, at, 77);
      expect(driver.bytesOf(pages[0]!)[0]).toBe(77);
      unpinUserPages(bench.kernel, pages);
    }));

  it('a read pin for long of a hole or of the zero page is an own page, mapped read-only and clean', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.load(mm, at);
      const pages = pinned(bench, mm, at, 2, false);
      expect(pages).not.toContain(bench.kernel.zeroPage);
      expect(mm.rssAnon).toBe(2);
      expect(bench.pte(mm, at) & (PTE_WRITE | PTE_DIRTY)).toBe(0n);
      // A store later reaches the pinned page: it is exclusive, so it is reused.
      bench.store(mm, at + PAGE, 5);
      expect(bench.page(mm, at + PAGE)).toBe(pages[1]);
      unpinUserPages(bench.kernel, pages);
      const short = pin(bench, mm, bench.mmap(mm, 1), 1, false, false) as Page[];
      expect(short).toEqual([bench.kernel.zeroPage]);
      unpinUserPages(bench.kernel, short);
      expect(refCount(bench.kernel, bench.kernel.zeroPage)).toBe(1);
    }));

  it('a read pin of a page that may be shared takes a copy first, one that is only marked so takes it over', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      for (const addr of [at, at + PAGE]) {
        bench.store(mm, addr, 4);
        changePte(bench, mm, addr, (pte) => pte & ~(PTE_WRITE | PTE_DIRTY));
        pageClearFlag(bench.kernel.memmap.words, bench.page(mm, addr), PAGE_FLAGS.PG_anon_exclusive);
      }
      const [shared, ours] = [bench.page(mm, at), bench.page(mm, at + PAGE)];
      const held = run(getUserPages(bench.kernel, mm, at, 1));
      const pages = pinned(bench, mm, at, 2, false);
      expect(pages[0]).not.toBe(shared);
      expect(pages[1]).toBe(ours);
      expect(bench.load(mm, at)).toBe(4);
      expect(bench.pte(mm, at) & PTE_WRITE).toBe(0n);
      putUserPages(bench.kernel, held.pages);
      unpinUserPages(bench.kernel, pages);
      expect(mm.rssAnon).toBe(2);
    }));

  it('all or nothing: EFAULT without a VMA or its permission, ENOMEM', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      run(doMunmap(bench.kernel, mm, (at + 2 * PAGE) as VirtAddr, PAGE));
      expect(pin(bench, mm, at, 4, true)).toBe('EFAULT');
      // What was faulted in on the way stays, without its pins.
      expect(mm.rssAnon).toBe(2);
      expect(refCount(bench.kernel, bench.page(mm, at))).toBe(1);
      expect(pin(bench, mm, bench.mmap(mm, 1, 'r'), 1, true)).toBe('EFAULT');
      expect(pin(bench, mm, bench.mmap(mm, 1, 'w'), 1, false)).toBe('EFAULT');
      expect(pin(bench, mm, bench.mmap(mm, 1, 'none'), 1, false)).toBe('EFAULT');
      const driver = bench.driver();
      bench.store(mm, at, 1);
      expect(run(driver.toDevice(mm, at, 1))).toBe(1);
      const hog: Page[] = [];
      for (let page = bench.kernel.buddy.allocPages(0); page !== 0; page = bench.kernel.buddy.allocPages(0)) {
        hog.push(page);
      }
      expect(pin(bench, mm, at, 1, false)).toBe('ENOMEM');
      expect(bench.kind(mm, at)).toBe('device-private-write');
      putUserPages(bench.kernel, hog);
    }));

  it('pinned pages outlive their mapping', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 9);
      const driver = bench.driver();
      const pages = pinned(bench, mm, at, 1, true);
      run(doMunmap(bench.kernel, mm, at, PAGE));
      expect(driver.bytesOf(pages[0]!)[0]).toBe(9);
      unpinUserPages(bench.kernel, pages);
    }));

  it('shared memory: the page of the object', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = run(doMmap(bench.kernel, mm, { length: 2 * PAGE, prot: 'rw', fixed: false, kind: 'shared' }));
      const pages = pinned(bench, mm, at as VirtAddr, 2, false);
      expect(pages.map((page) => refCount(bench.kernel, page))).toEqual([1026, 1026]);
      run(doMunmap(bench.kernel, mm, at as VirtAddr, 2 * PAGE));
      expect(pages.map((page) => refCount(bench.kernel, page))).toEqual([1024, 1024]);
      unpinUserPages(bench.kernel, pages);
    }));
});

describeEach('plain references', (addressing) => {
  it('as many as can be had; the zero page is one of them', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 3);
      bench.store(mm, at, 3);
      run(driver.toDevice(mm, at, 1));
      const got = run(getUserPages(bench.kernel, mm, (at + 5) as VirtAddr, 4));
      expect(got).toEqual({
        pages: [bench.page(mm, at), bench.kernel.zeroPage, bench.kernel.zeroPage],
        errno: 'EFAULT',
      });
      expect(bench.kind(mm, at)).toBe('present');
      expect(run(driver.toDevice(mm, at, 1))).toBe(0);
      putUserPages(bench.kernel, got.pages);
      expect(run(driver.toDevice(mm, at, 1))).toBe(1);
      expect(refCount(bench.kernel, bench.kernel.zeroPage)).toBe(1);
    }));
});
