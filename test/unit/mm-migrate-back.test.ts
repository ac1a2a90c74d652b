/** Migration back to RAM: by CPU faults and by eviction, and what becomes of the pagemap. */
import { expect, it } from 'vitest';
import { VM_FAULT_OOM, VM_FAULT_SIGSEGV } from '#src/abi/errno';
import { PTE_WRITE } from '#src/abi/pte';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import { NULL_PAGE, type Page, type VirtAddr } from '#src/base/brand';
import { migrateDeviceRange } from '#src/mm/migrate-device/device';
import { migrateDeviceFinalize } from '#src/mm/migrate-device/finalize';
import { exitMm } from '#src/mm/mm-struct';
import { doMunmap } from '#src/mm/mmap';
import { putPage } from '#src/mm/put-page';
import { copyFromUser } from '#src/mm/uaccess';
import { folioUnlock, pageRefAdd } from '#src/sync/page-ref';
import {
  changePte,
  describeEach,
  expectAtRest,
  PAGE,
  refCount,
  run,
  runAll,
  runUntilBlocked,
  withKernel,
} from './mm-fixture';

const { PG_anon_exclusive } = PAGE_FLAGS;

describeEach('migration back', (addressing) => {
  it('a read keeps the permission of the entry, a write of a writable entry needs no second fault', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      bench.store(mm, at + PAGE, 2);
      const driver = bench.driver();
      run(driver.toDevice(mm, at, 2));
      bench.load(mm, at);
      expect(bench.pte(mm, at) & PTE_WRITE).toBe(PTE_WRITE);
      expect(bench.kind(mm, at + PAGE)).toBe('device-private-write');
      const faults = bench.kernel.stats.cpuFaults;
      bench.store(mm, at + PAGE, 3);
      expect(bench.kernel.stats.cpuFaults).toBe(faults + 1);
      expect([bench.load(mm, at), bench.load(mm, at + PAGE)]).toEqual([1, 3]);
      expectAtRest(bench, mm, at);
    }));

  it('a read-only entry of a writable VMA comes back read-only, exclusive, and is reused by the first write', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      for (const addr of [at, at + PAGE]) {
        bench.store(mm, addr, 1);
        changePte(bench, mm, addr, (pte) => pte & ~PTE_WRITE);
      }
      const driver = bench.driver();
      run(driver.toDevice(mm, at, 2));
      expect(bench.kind(mm, at)).toBe('device-private-read');
      bench.load(mm, at);
      expect(bench.pte(mm, at) & PTE_WRITE).toBe(0n);
      const page = bench.page(mm, at);
      expect(bench.field(page, 'flags') & PG_anon_exclusive).not.toBe(0);
      bench.store(mm, at, 2);
      expect(bench.page(mm, at)).toBe(page);
      bench.store(mm, at + PAGE, 3);
      expect([bench.load(mm, at), bench.load(mm, at + PAGE)]).toEqual([2, 3]);
    }));

  it('a shared read-only page comes back shared: the first write copies it if somebody else holds it', () =>
    withKernel(addressing, (bench) => {
      const { memmap } = bench.kernel;
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 1);
      changePte(bench, mm, at, (pte) => pte & ~PTE_WRITE);
      const flagsAt = bench.page(mm, at) * 16;
      memmap.words[flagsAt]! &= ~PG_anon_exclusive;
      run(bench.driver().toDevice(mm, at, 1));
      bench.load(mm, at);
      const page = bench.page(mm, at);
      expect(bench.field(page, 'flags') & PG_anon_exclusive).toBe(0);
      pageRefAdd(memmap.words, page, 1);
      bench.store(mm, at, 2);
      expect(bench.page(mm, at)).not.toBe(page);
      expect(refCount(bench.kernel, page)).toBe(1);
      expect(mm.rssAnon).toBe(1);
      // Let go of the old page as its holder would.
      pageRefAdd(memmap.words, page, -1);
      memmap.words[page * 16] = 0;
      memmap.words[page * 16 + 7] = 0;
      bench.kernel.buddy.freePages(page, 0);
    }));

  it('what the VMA does not allow does not move the page', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1, 'r');
      const driver = bench.driver();
      run(driver.toDevice(mm, at, 1));
      expect(bench.store(mm, at, 1).fault).toBe(VM_FAULT_SIGSEGV);
      expect(driver.used).toBe(1);
    }));

  it('no RAM: VM_FAULT_OOM, the page stays, and comes later', () =>
    withKernel(addressing, (bench) => {
      const { buddy, memmap } = bench.kernel;
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      bench.store(mm, at + PAGE, 2);
      const driver = bench.driver();
      run(driver.toDevice(mm, at, 2));
      const entry = bench.pte(mm, at);
      const taken: Page[] = [];
      for (let page = buddy.allocPages(0); page !== NULL_PAGE; page = buddy.allocPages(0)) taken.push(page);
      expect(run(copyFromUser(bench.kernel, mm, at, new Uint8Array(1))).fault).toBe(VM_FAULT_OOM);
      expect(bench.pte(mm, at)).toBe(entry);
      expectAtRest(bench, mm, at);
      expect(run(driver.toSystem(mm, at, 2))).toBe(0);
      expect(run(driver.evict([bench.page(mm, at)]))).toBe(0);
      expect(bench.pte(mm, at)).toBe(entry);
      for (const page of taken) {
        memmap.words[page * 16 + 13] = 0;
        buddy.freePages(page, 0);
      }
      expect([bench.load(mm, at), bench.load(mm, at + PAGE)]).toEqual([1, 2]);
    }));

  it('a page that somebody holds: the access goes on when they let go', () =>
    withKernel(addressing, (bench) => {
      const { kernel } = bench;
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 7);
      run(bench.driver().toDevice(mm, at, 1));
      const page = bench.page(mm, at);
      pageRefAdd(kernel.memmap.words, page, 1);
      const out = new Uint8Array(1);
      function* holder() {
        for (let turn = 0; turn < 5; turn++) yield { what: 'a turn', ready: () => true };
        pageRefAdd(kernel.memmap.words, page, -1);
      }
      runAll(copyFromUser(kernel, mm, at, out), holder());
      expect(out[0]).toBe(7);
    }));

  it('munmap drops device pages without moving them', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      const driver = bench.driver();
      run(driver.toDevice(mm, at, 4));
      run(doMunmap(bench.kernel, mm, (at + PAGE) as VirtAddr, 2 * PAGE));
      expect([driver.used, mm.rssAnon]).toEqual([2, 2]);
      expect(bench.kernel.stats.migratedToRam).toBe(0);
    }));

  it('the next user of a device page finds none of the dirt of this one, but PG_swapbacked', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 1);
      run(driver.toDevice(mm, at, 1));
      const page = bench.page(mm, at);
      bench.load(mm, at);
      expect(bench.field(page, 'mapping')).toBe(0);
      expect(refCount(bench.kernel, page)).toBe(0);
      driver.freePages.unshift(driver.freePages.pop()!);
      expect(driver.alloc()).toBe(page);
      expect(bench.field(page, 'flags')).toBe(PAGE_FLAGS.PG_locked | PAGE_FLAGS.PG_swapbacked);
      folioUnlock(bench.kernel.memmap.words, page);
      putPage(bench.kernel, page);
    }));
});

describeEach('eviction', (addressing) => {
  it('migrate_device_range: pages in use come home, free ones are left alone', () =>
    withKernel(addressing, (bench) => {
      const { kernel } = bench;
      const [a, b] = [bench.mm(), bench.mm()];
      const driver = bench.driver();
      const [one, two] = [bench.mmap(a, 2), bench.mmap(b, 1)];
      bench.store(a, one, 1);
      bench.store(b, two, 2);
      run(driver.toDevice(a, one, 2));
      run(driver.toDevice(b, two, 1));
      const first = driver.pgmap.pages;
      const src = new Float64Array(16);
      const ready = run(migrateDeviceRange(kernel, src, kernel.addressing.migratePfnFromPage(first), 16));
      expect(ready).toBe(3);
      expect([...src].map((word) => word !== 0)).toEqual([true, true, true, ...Array(13).fill(false)]);
      expect(bench.kind(a, one)).toMatch(/^migration/);
      migrateDeviceFinalize(kernel, src, new Float64Array(16), 16, NULL_PAGE);
      expect([bench.kind(a, one), bench.kind(b, two)]).toEqual(['device-private-write', 'device-private-write']);
      expect(run(driver.evict([0, 1, 2, 3].map((i) => (first + i) as Page)))).toBe(3);
      expect(driver.used).toBe(0);
      expect([bench.load(a, one), bench.load(a, one + PAGE), bench.load(b, two)]).toEqual([1, 0, 2]);
      expectAtRest(bench, a, one);
    }));

  it('keeps the permission of each entry', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const [rw, ro] = [bench.mmap(mm, 1), bench.mmap(mm, 1, 'r')];
      const driver = bench.driver();
      run(driver.toDevice(mm, rw, 1));
      run(driver.toDevice(mm, ro, 1));
      expect(run(driver.evict([bench.page(mm, rw), bench.page(mm, ro)]))).toBe(2);
      expect([bench.pte(mm, rw) & PTE_WRITE, bench.pte(mm, ro) & PTE_WRITE]).toEqual([PTE_WRITE, 0n]);
    }));

  it('a page that somebody holds stays on the device', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      const driver = bench.driver();
      run(driver.toDevice(mm, at, 1));
      const entry = bench.pte(mm, at);
      const page = bench.page(mm, at);
      pageRefAdd(bench.kernel.memmap.words, page, 1);
      expect(run(driver.evict([page]))).toBe(0);
      expect(bench.pte(mm, at)).toBe(entry);
      pageRefAdd(bench.kernel.memmap.words, page, -1);
      expect(run(driver.evict([page]))).toBe(1);
    }));

  it('unmapping a pagemap waits for its last page', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      const driver = bench.driver();
      run(driver.toDevice(mm, at, 2));
      expect(driver.pgmap.ref!.count).toBe(3);
      const removal = driver.remove();
      expect(runUntilBlocked(removal)).toContain('last reference');
      bench.load(mm, at);
      expect(runUntilBlocked(removal)).toContain('last reference');
      run(exitMm(bench.kernel, mm));
      expect(runUntilBlocked(removal)).toBeUndefined();
      // The fixture removes its drivers in the end: give this one something to remove.
      driver.remap();
    }));
});
