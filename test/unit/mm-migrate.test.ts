/** migrate_vma and migrate_device_range: what moves, what stays, and what an entry looks like afterwards. */
import { expect, it } from 'vitest';
import { MIGRATE_PFN_MIGRATE, MIGRATE_PFN_VALID, MIGRATE_PFN_WRITE } from '#src/abi/mpfn';
import { PTE_DIRTY, PTE_SOFT_DIRTY, PTE_UFFD_WP, PTE_WRITE } from '#src/abi/pte';
import { SWP_SOFT_DIRTY, SWP_UFFD_WP } from '#src/abi/softleaf';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { Mpfn, Page, VirtAddr } from '#src/base/brand';
import { MIGRATE_VMA_SELECT_DEVICE_PRIVATE, MIGRATE_VMA_SELECT_SYSTEM } from '#src/mm/migrate-device/args';
import { migrateVmaFinalize, migrateVmaPages, migrateVmaSetup } from '#src/mm/migrate-device/vma';
import { doMunmap } from '#src/mm/mmap';
import { folioTrylock, folioUnlock, pageRefAdd } from '#src/sync/page-ref';
import {
  type Bench,
  changePte,
  describeEach,
  expectAtRest,
  isLocked,
  PAGE,
  refCount,
  run,
  withKernel,
} from './mm-fixture';

const { PG_anon_exclusive, PG_dirty } = PAGE_FLAGS;

/** A locked page of RAM, as a driver hands it to `dst`. */
function buddyPage({ kernel }: Bench): Page {
  const page = kernel.buddy.allocPages(0);
  folioTrylock(kernel.memmap.words, page);
  return page;
}

describeEach('migration to the device', (addressing) => {
  it('pages, holes and the zero page; entries by permission; rss', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      const readOnly = bench.mmap(mm, 1, 'r');
      bench.store(mm, at, 11);
      bench.load(mm, at + PAGE);
      bench.load(mm, readOnly);
      const driver = bench.driver();
      expect(mm.rssAnon).toBe(1);
      const free = bench.free;
      expect(run(driver.toDevice(mm, at, 4))).toBe(4);
      expect(run(driver.toDevice(mm, readOnly, 1))).toBe(1);
      expect(bench.free).toBe(free + 1);
      expect(mm.rssAnon).toBe(5);
      expect(driver.used).toBe(5);
      const addresses = [0, 1, 2, 3].map((i) => at + i * PAGE);
      expect(addresses.map((addr) => bench.kind(mm, addr))).toEqual(Array(4).fill('device-private-write'));
      expect(bench.kind(mm, readOnly)).toBe('device-private-read');
      for (const addr of [...addresses, readOnly]) {
        expectAtRest(bench, mm, addr);
        expect(bench.field(bench.page(mm, addr), 'flags') & PG_anon_exclusive).not.toBe(0);
      }
      expect(driver.contents.get(bench.page(mm, at))![0]).toBe(11);
      expect(refCount(bench.kernel, bench.kernel.zeroPage)).toBe(1);
      expect(addresses.map((addr) => bench.load(mm, addr))).toEqual([11, 0, 0, 0]);
      expect(bench.kernel.stats).toMatchObject({ migratedToDevice: 5, migratedToRam: 4 });
    }));

  it('migrate_vma_setup: words of each kind of page', () =>
    withKernel(addressing, (bench) => {
      const { kernel } = bench;
      const mm = bench.mm();
      const at = bench.mmap(mm, 1024, 'rw', 2 ** 30);
      bench.store(mm, at, 1);
      bench.load(mm, at + PAGE);
      const driver = bench.driver();
      bench.store(mm, at + 3 * PAGE, 1);
      run(driver.toDevice(mm, at + 3 * PAGE, 1));
      const page = bench.page(mm, at);
      const args = driver.args(mm, at, 1024, MIGRATE_VMA_SELECT_SYSTEM);
      run(mm.mmapLock.downRead());
      expect(run(migrateVmaSetup(kernel, args))).toBe(0);
      const number = kernel.memmap.pageToPfn(page) * 64;
      expect(args.src[0]).toBe(number + (MIGRATE_PFN_VALID | MIGRATE_PFN_MIGRATE | MIGRATE_PFN_WRITE));
      expect([...args.src.subarray(1, 5)]).toEqual([MIGRATE_PFN_MIGRATE, MIGRATE_PFN_MIGRATE, 0, MIGRATE_PFN_MIGRATE]);
      // The second 2 MiB have no page table at all.
      expect(new Set(args.src.subarray(512))).toEqual(new Set([MIGRATE_PFN_MIGRATE]));
      expect([args.npages, args.cpages]).toEqual([1024, 1023]);
      expect(isLocked(kernel, page)).toBe(true);
      expect([refCount(kernel, page), bench.field(page, 'mapcount')]).toEqual([1, -1]);
      migrateVmaFinalize(kernel, args);
      mm.mmapLock.upRead();
      expect(bench.page(mm, at)).toBe(page);
      expectAtRest(bench, mm, at);
      expect(bench.kind(mm, at + PAGE)).toBe('present');
      expect(bench.kind(mm, at + 2 * PAGE)).toBe('none');
    }));

  it('EINVAL', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      const driver = bench.driver();
      run(mm.mmapLock.downRead());
      const setup = (change: object): unknown =>
        run(migrateVmaSetup(bench.kernel, { ...driver.args(mm, at, 4, MIGRATE_VMA_SELECT_SYSTEM), ...change }));
      expect(setup({ start: at + 1 })).toBe('EINVAL');
      expect(setup({ end: at })).toBe('EINVAL');
      expect(setup({ end: at + 5 * PAGE })).toBe('EINVAL');
      expect(setup({ start: at - PAGE })).toBe('EINVAL');
      expect(setup({ src: new Float64Array(3) })).toBe('EINVAL');
      expect(setup({ faultPage: bench.kernel.zeroPage })).toBe('EINVAL');
      mm.mmapLock.upRead();
    }));

  it('a page with another reference stays, as it was, and its neighbours move', () =>
    withKernel(addressing, (bench) => {
      const { kernel } = bench;
      const mm = bench.mm();
      const at = bench.mmap(mm, 3);
      for (let i = 0; i < 3; i++) bench.store(mm, at + i * PAGE, i + 1);
      const pinned = bench.page(mm, at + PAGE);
      const before = bench.pte(mm, at + PAGE);
      const flags = bench.field(pinned, 'flags');
      pageRefAdd(kernel.memmap.words, pinned, 1);
      const driver = bench.driver();
      expect(run(driver.toDevice(mm, at, 3))).toBe(2);
      expect(bench.pte(mm, at + PAGE)).toBe(before);
      expect(bench.field(pinned, 'flags')).toBe(flags | PG_dirty);
      expect(refCount(kernel, pinned)).toBe(2);
      pageRefAdd(kernel.memmap.words, pinned, -1);
      expect(run(driver.toDevice(mm, at, 3))).toBe(1);
      expect([0, 1, 2].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 2, 3]);
    }));

  it('a page with another reference is not even offered to the driver', () =>
    withKernel(addressing, (bench) => {
      const { kernel } = bench;
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      bench.store(mm, at + PAGE, 2);
      const pinned = bench.page(mm, at);
      pageRefAdd(kernel.memmap.words, pinned, 1);
      const args = bench.driver().args(mm, at, 2, MIGRATE_VMA_SELECT_SYSTEM);
      run(mm.mmapLock.downRead());
      expect(run(migrateVmaSetup(kernel, args))).toBe(0);
      expect([args.src[0], args.cpages]).toEqual([0, 1]);
      expect([bench.kind(mm, at), isLocked(kernel, pinned)]).toEqual(['present', false]);
      // A reference that is taken only now is seen by migrate_vma_pages.
      const late = kernel.addressing.migratePfnToPage(args.src[1] as Mpfn);
      pageRefAdd(kernel.memmap.words, late, 1);
      const target = buddyPage(bench);
      args.dst[1] = kernel.addressing.migratePfnFromPage(target);
      run(migrateVmaPages(kernel, args));
      expect(args.src[1]! & MIGRATE_PFN_MIGRATE).toBe(0);
      migrateVmaFinalize(kernel, args);
      mm.mmapLock.upRead();
      expect(bench.page(mm, at + PAGE)).toBe(late);
      for (const page of [pinned, late]) pageRefAdd(kernel.memmap.words, page, -1);
    }));

  it('a locked page is passed over', () =>
    withKernel(addressing, (bench) => {
      const { words } = bench.kernel.memmap;
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      bench.store(mm, at + PAGE, 2);
      const locked = bench.page(mm, at);
      folioTrylock(words, locked);
      const before = bench.pte(mm, at);
      expect(run(bench.driver().toDevice(mm, at, 2))).toBe(1);
      expect(bench.pte(mm, at)).toBe(before);
      folioUnlock(words, locked);
      expectAtRest(bench, mm, at);
    }));

  it.each([0, 1, 3])('the driver has only %i pages: the rest stays where it is', (available) =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 6);
      for (let i = 0; i < 4; i++) bench.store(mm, at + i * PAGE, i + 1);
      bench.load(mm, at + 4 * PAGE);
      const entries = [0, 1, 2, 3, 4, 5].map((i) => bench.pte(mm, at + i * PAGE));
      const driver = bench.driver();
      driver.allocationsLeft = available;
      expect(run(driver.toDevice(mm, at, 6))).toBe(available);
      for (let i = available; i < 6; i++) expect(bench.pte(mm, at + i * PAGE)).toBe(entries[i]);
      for (let i = 0; i < 4; i++) expectAtRest(bench, mm, at + i * PAGE);
      expect([0, 1, 2, 3, 4, 5].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 2, 3, 4, 0, 0]);
    }),
  );

  it('a copy that fails leaves everything as it was', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      bench.store(mm, at, 1);
      bench.store(mm, at + PAGE, 2);
      bench.load(mm, at + 2 * PAGE);
      changePte(bench, mm, at, (pte) => pte | PTE_SOFT_DIRTY | PTE_UFFD_WP);
      changePte(bench, mm, at + PAGE, (pte) => pte & ~(PTE_DIRTY | PTE_WRITE));
      const entries = [0, 1, 2, 3].map((i) => bench.pte(mm, at + i * PAGE));
      const flags = bench.field(bench.page(mm, at), 'flags');
      const driver = bench.driver();
      driver.copyFails = true;
      expect(run(driver.toDevice(mm, at, 4))).toBe(0);
      expect([0, 1, 2, 3].map((i) => bench.pte(mm, at + i * PAGE))).toEqual(entries);
      expect(bench.field(bench.page(mm, at), 'flags')).toBe(flags | PG_dirty);
      expect(driver.used).toBe(0);
      expectAtRest(bench, mm, at);
      expectAtRest(bench, mm, at + PAGE);
      changePte(bench, mm, at, (pte) => pte & ~(PTE_SOFT_DIRTY | PTE_UFFD_WP));
      bench.store(mm, at + PAGE, 3);
      expect(bench.load(mm, at + PAGE)).toBe(3);
    }));

  it('soft-dirty and uffd-wp travel along, dirty goes to the page', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 1);
      changePte(bench, mm, at, (pte) => pte | PTE_SOFT_DIRTY | PTE_UFFD_WP);
      run(bench.driver().toDevice(mm, at, 1));
      expect(bench.pte(mm, at) & 0x1ffn).toBe(SWP_SOFT_DIRTY | SWP_UFFD_WP);
      expect(bench.field(bench.page(mm, at), 'flags') & PG_dirty).toBe(PG_dirty);
      bench.load(mm, at);
      const bits = PTE_SOFT_DIRTY | PTE_UFFD_WP;
      expect(bench.pte(mm, at) & bits).toBe(bits);
      expect(bench.field(bench.page(mm, at), 'flags') & PG_dirty).toBe(PG_dirty);
    }));

  it('pages of another owner, and pages of a kind that was not asked for, are not collected', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      bench.store(mm, at + PAGE, 2);
      const [a, b] = [bench.driver(), bench.driver()];
      run(a.toDevice(mm, at, 1));
      const entry = bench.pte(mm, at);
      expect(run(b.toDevice(mm, at, 1))).toBe(0);
      expect(run(b.toSystem(mm, at, 2))).toBe(0);
      expect(run(a.toDevice(mm, at, 1))).toBe(0);
      expect(bench.pte(mm, at)).toBe(entry);
      expect(run(a.toSystem(mm, at, 2))).toBe(1);
    }));

  it('under a VMA that was split, pages keep their place in the reverse map', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 8);
      const driver = bench.driver();
      for (let i = 0; i < 8; i++) bench.store(mm, at + i * PAGE, i + 1);
      run(driver.toDevice(mm, at, 8));
      run(doMunmap(bench.kernel, mm, (at + 3 * PAGE) as VirtAddr, 2 * PAGE));
      expect(driver.used).toBe(6);
      const rest = [0, 1, 2, 5, 6, 7];
      expect(run(driver.evict(rest.map((i) => bench.page(mm, at + i * PAGE))))).toBe(6);
      expect(rest.map((i) => bench.load(mm, at + i * PAGE))).toEqual(rest.map((i) => i + 1));
    }));
});

describeEach('selection', (addressing) => {
  it('MIGRATE_VMA_SELECT_DEVICE_PRIVATE finds holes too, and nothing in RAM', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 3);
      bench.store(mm, at, 1);
      bench.load(mm, at + PAGE);
      const driver = bench.driver();
      const args = driver.args(mm, at, 3, MIGRATE_VMA_SELECT_DEVICE_PRIVATE);
      run(mm.mmapLock.downRead());
      expect(run(migrateVmaSetup(bench.kernel, args))).toBe(0);
      expect([...args.src]).toEqual([0, 0, MIGRATE_PFN_MIGRATE]);
      migrateVmaFinalize(bench.kernel, args);
      mm.mmapLock.upRead();
    }));
});
