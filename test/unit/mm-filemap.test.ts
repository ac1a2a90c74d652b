/** Mappings of files: what is the file's, what is the process's own, and what is dirty. */
import { expect, it } from 'vitest';
import { VM_FAULT_SIGBUS, VM_FAULT_SIGSEGV } from '#src/abi/errno';
import { PTE_SOFT_DIRTY, pteWrite } from '#src/abi/pte';
import type { Page } from '#src/base/brand';
import { fileRead, fileSync, fileTruncate } from '#src/mm/file';
import { getUserPages } from '#src/mm/gup';
import { doMunmap } from '#src/mm/mmap';
import { doMprotect } from '#src/mm/mprotect';
import { putPage } from '#src/mm/put-page';
import { vmaLookup } from '#src/mm/vma';
import {
  at,
  DIRTY,
  filledPages,
  flagsAt,
  isDirty,
  mapFile,
  pread,
  pwrite,
  READ,
  rss,
  stored,
  violations,
  withFile,
} from './file-fixture';
import { describeEach, PAGE, refCount, run } from './mm-fixture';

describeEach('mappings of files', (addressing) => {
  it('a load maps the page of the file and what the cache has around it, read-only', () =>
    withFile(addressing, filledPages(40), (bench, file) => {
      const [mm, other] = [bench.mm(), bench.mm()];
      const start = mapFile(bench, mm, file, 40);
      expect([3, 20, 39].map((i) => bench.load(mm, at(start, i)))).toEqual([4, 21, 40]);
      expect([...file.pages.keys()]).toEqual([3, 20, 39]);
      expect(flagsAt(bench, mm, at(start, 3))).toBe(READ);
      const page = bench.page(mm, start + 3 * PAGE);
      expect([refCount(bench.kernel, page), isDirty(bench, page)]).toEqual([2, false]);
      expect(rss(mm)).toEqual([0, 3, 0]);
      for (const shared of [true, false]) {
        const again = mapFile(bench, other, file, 40, { shared });
        for (let i = 0; i < 16; i++) bench.load(mm, at(start, i));
        expect(bench.load(other, at(again, 8))).toBe(9);
        // All sixteen of the 64 KiB are there now, and none of what lies beyond.
        expect([0, 15, 16, 20].map((i) => flagsAt(bench, other, at(again, i)))).toEqual([READ, READ, 0n, 0n]);
        expect(other.rssFile).toBe(16);
        run(doMunmap(bench.kernel, other, again, 40 * PAGE));
      }
    }));

  it('what a fault has to read from the disk is a major fault; what is cached, or read by a call, is not', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 4);
      const faults = () => bench.kernel.stats.pgmajfault;
      bench.load(mm, start);
      expect(faults()).toBe(1);
      pread(bench, file, PAGE, PAGE);
      bench.store(mm, at(start, 1), 51);
      expect(faults()).toBe(1);
      bench.store(mm, at(start, 2), 52);
      const copied = mapFile(bench, mm, file, 4, { shared: false });
      bench.store(mm, at(copied, 3), 53);
      bench.store(mm, at(copied, 2), 54);
      expect(faults()).toBe(3);
    }));

  it('a fault behind the end of the file leaves no table', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      for (const shared of [true, false]) {
        const mm = bench.mm();
        const start = mapFile(bench, mm, file, 8, { shared });
        expect(bench.store(mm, at(start, 5), 1).fault).toBe(VM_FAULT_SIGBUS);
        const tables = mm.tables;
        bench.load(mm, start);
        expect(mm.tables).toBe(tables + 1);
        // As for the copy that it would have made.
        expect(vmaLookup(mm, start)!.anonVma === null).toBe(shared);
      }
    }));

  it('a shared mapping: each first store faults, is dirty until it is written back, and faults again after that', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const [mm, other] = [bench.mm(), bench.mm()];
      const start = mapFile(bench, mm, file, 4);
      const elsewhere = mapFile(bench, other, file, 4);
      bench.load(mm, start);
      bench.store(mm, start, 50);
      bench.store(mm, at(start, 1), 51);
      expect([0, 1].map((i) => flagsAt(bench, mm, at(start, i)))).toEqual([DIRTY, DIRTY]);
      expect([0, 1].map((i) => bench.load(other, at(elsewhere, i)))).toEqual([50, 51]);
      expect([stored(file, 0), stored(file, 1)]).toEqual([1, 2]);
      bench.store(other, elsewhere, 60);
      const page = bench.page(mm, start);
      expect(isDirty(bench, page)).toBe(true);

      run(fileSync(bench.kernel, file));
      expect([stored(file, 0), stored(file, 1)]).toEqual([60, 51]);
      expect(isDirty(bench, page)).toBe(false);
      expect([flagsAt(bench, mm, start), flagsAt(bench, other, elsewhere)]).toEqual([
        READ | PTE_SOFT_DIRTY,
        READ | PTE_SOFT_DIRTY,
      ]);
      const faults = bench.kernel.stats.cpuFaults;
      bench.store(mm, start, 70);
      bench.store(mm, start + 1, 71);
      expect(bench.kernel.stats.cpuFaults).toBe(faults + 1);
      expect([isDirty(bench, page), stored(file, 0)]).toEqual([true, 60]);
      expect(bench.load(other, elsewhere)).toBe(70);
      run(fileSync(bench.kernel, file));
      expect([...file.store.bytes(0, 2)]).toEqual([70, 71]);
      // Not through what the TLB remembers either.
      bench.store(mm, start, 80);
      run(fileSync(bench.kernel, file));
      bench.store(mm, start, 81);
      expect([stored(file, 0), isDirty(bench, page)]).toEqual([80, true]);
    }));

  it('a private mapping: a store copies, with a load before it or not; the file stays as it is', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 4, { shared: false });
      bench.load(mm, start);
      expect(rss(mm)).toEqual([0, 1, 0]);
      bench.store(mm, start, 50);
      bench.store(mm, at(start, 2), 51);
      expect(rss(mm)).toEqual([2, 0, 0]);
      expect([0, 2].map((i) => flagsAt(bench, mm, at(start, i)))).toEqual([DIRTY, DIRTY]);
      expect([0, 1, 2, 3].map((i) => bench.load(mm, at(start, i)))).toEqual([50, 2, 51, 4]);
      expect(bench.load(mm, start + 1)).toBe(1);
      expect(pread(bench, file, 0, 2)).toEqual([1, 1]);
      expect(isDirty(bench, file.pages.get(0)!)).toBe(false);
      // What others do to the file is seen in the pages that are not copied yet.
      pwrite(bench, file, PAGE, 60);
      pwrite(bench, file, 0, 61);
      expect([0, 1].map((i) => bench.load(mm, at(start, i)))).toEqual([50, 60]);
    }));

  it('private copies are anonymous memory: they go to a device; pages of the file are collected and stay', () =>
    withFile(addressing, filledPages(6), (bench, file) => {
      const [mm, other] = [bench.mm(), bench.mm()];
      const driver = bench.driver();
      const start = mapFile(bench, mm, file, 6, { shared: false });
      const elsewhere = mapFile(bench, other, file, 6);
      bench.store(mm, start, 50);
      bench.load(mm, at(start, 1));
      bench.store(mm, at(start, 2), 52);
      bench.store(other, at(elsewhere, 1), 60);
      const before = [bench.pte(mm, at(start, 1)), bench.pte(other, at(elsewhere, 1))];
      // Asked for: two copies, one page of the file, three holes. The last are not even collected.
      expect(run(driver.toDevice(mm, start, 6))).toBe(2);
      expect([bench.pte(mm, at(start, 1)), bench.pte(other, at(elsewhere, 1))]).toEqual(before);
      const kinds = [0, 1, 2, 3].map((i) => bench.kind(mm, at(start, i)));
      expect(kinds).toEqual(['device-private-write', 'present', 'device-private-write', 'none']);
      expect(driver.used).toBe(2);
      expect(rss(mm)).toEqual([2, 1, 0]);
      expect(violations(bench)).toEqual([]);
      expect([0, 1, 2, 3].map((i) => bench.load(mm, at(start, i)))).toEqual([50, 60, 52, 4]);
    }));

  it('SIGBUS behind the end, zeroes after it in its page, SIGSEGV where protection says so', () =>
    withFile(addressing, filledPages(2).subarray(0, PAGE + 10), (bench, file) => {
      const mm = bench.mm();
      for (const shared of [true, false]) {
        const start = mapFile(bench, mm, file, 4, { shared });
        expect([PAGE + 9, PAGE + 10, 2 * PAGE - 1].map((offset) => bench.load(mm, start + offset))).toEqual([2, 0, 0]);
        expect(bench.store(mm, at(start, 2), 1)).toMatchObject({ fault: VM_FAULT_SIGBUS, address: at(start, 2) });
        expect(() => bench.load(mm, at(start, 2))).toThrow(`fault ${VM_FAULT_SIGBUS}`);
        run(doMprotect(bench.kernel, mm, start, PAGE, 'r'));
        expect(bench.store(mm, start, 1).fault).toBe(VM_FAULT_SIGSEGV);
      }
      expect([...file.pages.keys()]).toEqual([1]);
    }));

  it('truncate: mappings lose what is behind the end, private copies and pages on devices too', () =>
    withFile(addressing, filledPages(8), (bench, file) => {
      const [mm, other] = [bench.mm(), bench.mm()];
      const driver = bench.driver();
      const shared = mapFile(bench, other, file, 8);
      const own = mapFile(bench, mm, file, 8, { shared: false });
      for (let i = 0; i < 8; i++) bench.store(other, at(shared, i), 100 + i);
      for (let i = 2; i < 8; i++) bench.store(mm, at(own, i), 200 + i);
      expect(run(driver.toDevice(mm, at(own, 5), 3))).toBe(3);
      run(fileTruncate(bench.kernel, file, 3 * PAGE + 7));
      expect(driver.used).toBe(0);
      expect([...file.pages.keys()].sort()).toEqual([0, 1, 2, 3]);
      expect([rss(mm), rss(other)]).toEqual([
        [2, 0, 0],
        [0, 4, 0],
      ]);
      expect(bench.load(mm, at(own, 3))).toBe(203);
      for (const i of [4, 7]) {
        expect(bench.store(mm, at(own, i), 1).fault).toBe(VM_FAULT_SIGBUS);
        expect(bench.store(other, at(shared, i), 1).fault).toBe(VM_FAULT_SIGBUS);
      }
      // Longer again: zeroes, nothing of what was there before, and private copies are gone for good.
      run(fileTruncate(bench.kernel, file, 8 * PAGE));
      expect(pread(bench, file, 3 * PAGE, 9)).toEqual([103, 4, 4, 4, 4, 4, 4, 0, 0]);
      expect([4, 5, 7].map((i) => [bench.load(mm, at(own, i)), bench.load(other, at(shared, i))])).toEqual([
        [0, 0],
        [0, 0],
        [0, 0],
      ]);
      expect([...file.store.bytes(3 * PAGE, 8)]).toEqual([4, 4, 4, 4, 4, 4, 4, 0]);
    }));

  it('what a mapping writes behind the end is never the file', () =>
    withFile(addressing, filledPages(1).subarray(0, 10), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 1);
      bench.store(mm, start + 10, 91, 92);
      expect(bench.load(mm, start + 10)).toBe(91);
      expect(pread(bench, file, 0, 100)).toHaveLength(10);
      // Write-back leaves it out, and the mapping finds zeroes.
      run(fileSync(bench.kernel, file));
      expect(bench.load(mm, start + 10)).toBe(0);
      expect([...file.store.bytes(9, 3)]).toEqual([1, 0, 0]);
      // So does everything that makes the file longer.
      bench.store(mm, start + 10, 91, 92);
      pwrite(bench, file, 12, 7);
      expect(pread(bench, file, 9, 10)).toEqual([1, 0, 0, 7]);
      expect(pteWrite(bench.pte(mm, start))).toBe(false);
      bench.store(mm, start + 13, 91, 92);
      run(fileTruncate(bench.kernel, file, 15));
      expect(pread(bench, file, 9, 10)).toEqual([1, 0, 0, 7, 0, 0]);
    }));

  it('pread and pwrite: at any offset, over the end, of holes, coherent with mappings', () =>
    withFile(addressing, 0, (bench, file) => {
      const mm = bench.mm();
      expect(pread(bench, file, 0, 10)).toEqual([]);
      expect(pwrite(bench, file, 3 * PAGE - 2, 1, 2, 3)).toBe(3);
      expect(file.size).toBe(3 * PAGE + 1);
      expect([...file.pages.keys()].sort()).toEqual([2, 3]);
      expect(pread(bench, file, 3 * PAGE - 3, 100)).toEqual([0, 1, 2, 3]);
      expect(pread(bench, file, 10 * PAGE, 1)).toEqual([]);
      const start = mapFile(bench, mm, file, 4);
      expect([3 * PAGE - 2, 3 * PAGE].map((offset) => bench.load(mm, start + offset))).toEqual([1, 3]);
      bench.store(mm, start + PAGE, 9);
      expect(pread(bench, file, PAGE - 1, 3)).toEqual([0, 9, 0]);
      pwrite(bench, file, PAGE, 10);
      expect(bench.load(mm, start + PAGE)).toBe(10);
      run(fileSync(bench.kernel, file));
      expect([...file.store.bytes(3 * PAGE - 2, 5)]).toEqual([1, 2, 3, 0, 0]);
      expect([...file.store.bytes(PAGE, 1)]).toEqual([10]);
    }));

  it('RAM that is full: ENOMEM from calls, and a retry that has got room goes on', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 4, { shared: false });
      bench.load(mm, start);
      // Held by somebody, or it would be dropped for what comes.
      const { pages: held } = run(getUserPages(bench.kernel, mm, start, 1));
      const hoard: Page[] = [];
      for (let page = bench.kernel.buddy.allocPages(0); page !== 0; page = bench.kernel.buddy.allocPages(0)) {
        hoard.push(page);
      }
      expect(run(fileRead(bench.kernel, file, PAGE, 1))).toBe('ENOMEM');
      expect([...(run(fileRead(bench.kernel, file, PAGE - 1, 5)) as Uint8Array)]).toEqual([1]);
      expect(pwrite(bench, file, PAGE, 1)).toBe('ENOMEM');
      expect(pwrite(bench, file, PAGE - 1, 8, 9)).toBe(1);
      expect(bench.store(mm, start, 1).fault).not.toBe(0);
      expect(() => bench.load(mm, at(start, 1))).toThrow('fault');
      expect(bench.load(mm, start)).toBe(1);
      for (const page of [...hoard, ...held]) {
        putPage(bench.kernel, page);
      }
      expect(bench.load(mm, at(start, 1))).toBe(2);
      expect(bench.load(mm, start + PAGE - 1)).toBe(8);
    }));
});
