/** Mappings of files: what is the file's, what is the process's own, and what is dirty. */
import { expect, it } from 'vitest';
import { VM_FAULT_SIGBUS, VM_FAULT_SIGSEGV } from '#src/abi/errno';
import { PTE_ACCESSED, PTE_DIRTY, PTE_PRESENT, PTE_USER, PTE_WRITE, pteWrite } from '#src/abi/pte';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { Page, VirtAddr } from '#src/base/brand';
import { createDeviceFile } from '#src/drivers/device-file';
import { fileRead, fileSync, fileTruncate, fileWrite, type RegularFile } from '#src/mm/file';
import { vmFilePut } from '#src/mm/filemap';
import { forkMm } from '#src/mm/fork';
import { getUserPages, pinUserPages, putUserPages, unpinUserPages } from '#src/mm/gup';
import { doMadvise } from '#src/mm/madvise';
import { exitMm, type MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap } from '#src/mm/mmap';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { pageMapcountAdd, pageSetFlag } from '#src/mm/page';
import { doMsync } from '#src/mm/page-writeback';
import { mincoreRange, pagemapWord } from '#src/mm/proc-pagemap';
import { mapsText, smapsRange, smapsText } from '#src/mm/proc-smaps';
import { putPage } from '#src/mm/put-page';
import { filledPages, mapFile, violations, withFile } from './file-fixture';
import { type Bench, changePte, describeEach, PAGE, refCount, run } from './mm-fixture';

const READ = PTE_PRESENT | PTE_USER | PTE_ACCESSED;
const DIRTY = READ | PTE_WRITE | PTE_DIRTY;
const { PG_dirty } = PAGE_FLAGS;

const flagsAt = (bench: Bench, mm: MmStruct, addr: number): bigint => bench.pte(mm, addr) & 0xfffn;
const isDirty = (bench: Bench, page: Page): boolean => (bench.field(page, 'flags') & PG_dirty) !== 0;
const rss = ({ rssAnon, rssFile, rssShmem }: MmStruct): number[] => [rssAnon, rssFile, rssShmem];
const at = (start: number, page: number): VirtAddr => (start + page * PAGE) as VirtAddr;
const stored = (file: RegularFile, page: number): number => file.store.bytes(page * PAGE, 1)[0]!;

function pread(bench: Bench, file: RegularFile, offset: number, length: number): number[] {
  const bytes = run(fileRead(bench.kernel, file, offset, length));
  if (typeof bytes === 'string') throw new Error(bytes);
  return [...bytes];
}

const pwrite = (bench: Bench, file: RegularFile, offset: number, ...bytes: number[]): unknown =>
  run(fileWrite(bench.kernel, file, offset, Uint8Array.from(bytes)));

function fork(bench: Bench, parent: MmStruct): MmStruct {
  const child = run(forkMm(bench.kernel, parent, 77));
  if (child === undefined) throw new Error('no memory');
  return child;
}

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
      expect([flagsAt(bench, mm, start), flagsAt(bench, other, elsewhere)]).toEqual([READ, READ]);
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
      for (const page of hoard) {
        putPage(bench.kernel, page);
      }
      expect(bench.load(mm, at(start, 1))).toBe(2);
      expect(bench.load(mm, start + PAGE - 1)).toBe(8);
    }));
});

describeEach('mappings of files, and the rest of mm', (addressing) => {
  it('fork: a mapping that nobody has written is not copied; one with copies of its own is, file pages and all', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const mm = bench.mm();
      const own = mapFile(bench, mm, file, 4, { shared: false });
      const shared = mapFile(bench, mm, file, 4);
      for (let i = 0; i < 4; i++) bench.load(mm, at(own, i));
      bench.store(mm, shared, 40);
      const before = fork(bench, mm);
      expect(rss(before)).toEqual([0, 0, 0]);
      expect(before.tables).toBe(1);
      expect([bench.load(before, own), bench.load(before, shared)]).toEqual([40, 40]);
      run(exitMm(bench.kernel, before));

      bench.store(mm, at(own, 1), 50);
      const child = fork(bench, mm);
      expect(rss(child)).toEqual([1, 3, 0]);
      expect([own, at(own, 1), shared].map((addr) => pteWrite(bench.pte(child, addr)))).toEqual([false, false, false]);
      expect(bench.kind(child, shared)).toBe('none');
      expect(violations(bench)).toEqual([]);
      bench.store(child, at(own, 1), 60);
      bench.store(child, at(own, 2), 61);
      bench.store(child, shared, 62);
      expect([0, 1, 2].map((i) => bench.load(mm, at(own, i)))).toEqual([62, 50, 3]);
      expect([0, 1, 2].map((i) => bench.load(child, at(own, i)))).toEqual([62, 60, 61]);
      expect(rss(child)).toEqual([2, 3, 0]);
      expect(bench.load(mm, shared)).toBe(62);
    }));

  it('mprotect: write access comes back at once only to what is dirty already', () =>
    withFile(addressing, filledPages(2), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 2);
      bench.store(mm, start, 50);
      bench.load(mm, at(start, 1));
      const protect = (prot: 'none' | 'r' | 'rw') => run(doMprotect(bench.kernel, mm, start, 2 * PAGE, prot));
      protect('r');
      expect(bench.store(mm, start, 1).fault).toBe(VM_FAULT_SIGSEGV);
      protect('none');
      protect('rw');
      expect([0, 1].map((i) => pteWrite(bench.pte(mm, at(start, i))))).toEqual([true, false]);
      run(fileSync(bench.kernel, file));
      protect('r');
      protect('rw');
      expect(pteWrite(bench.pte(mm, start))).toBe(false);
      bench.store(mm, start, 51);
      expect(isDirty(bench, file.pages.get(0)!)).toBe(true);
    }));

  it('mappings of a file split, merge and move with their offsets', () =>
    withFile(addressing, filledPages(8), (bench, file) => {
      const mm = bench.mm();
      const base = 2 ** 30;
      const start = mapFile(bench, mm, file, 4, { addr: base, pgoff: 2 });
      mapFile(bench, mm, file, 2, { addr: base + 4 * PAGE, pgoff: 6 });
      expect([[...mm.vmas].length, file.users]).toEqual([1, 2]);
      // Not a continuation.
      mapFile(bench, mm, file, 1, { addr: base + 6 * PAGE, pgoff: 0 });
      expect([[...mm.vmas].length, file.users]).toEqual([2, 3]);
      expect([0, 5, 6].map((i) => bench.load(mm, at(start, i)))).toEqual([3, 8, 1]);
      bench.store(mm, at(start, 2), 50);
      run(doMunmap(bench.kernel, mm, at(start, 1), PAGE));
      expect([...mm.vmas].length).toBe(3);
      const to = (base + 2 ** 22) as VirtAddr;
      expect(run(doMremap(bench.kernel, mm, at(start, 2), 2 * PAGE, 2 * PAGE, { maymove: true, fixedAt: to }))).toBe(
        to,
      );
      expect([bench.load(mm, to), bench.load(mm, at(to, 1))]).toEqual([50, 6]);
      // What it grows by is the file's next pages.
      const grown = run(doMremap(bench.kernel, mm, to, 2 * PAGE, 5 * PAGE, { maymove: true })) as VirtAddr;
      expect([2, 3].map((i) => bench.load(mm, at(grown, i)))).toEqual([7, 8]);
      expect(() => bench.load(mm, at(grown, 4))).toThrow(`fault ${VM_FAULT_SIGBUS}`);
      run(fileSync(bench.kernel, file));
      expect([stored(file, 4), pteWrite(bench.pte(mm, grown))]).toEqual([50, false]);
    }));

  it('msync writes what lies in the range, of shared mappings only', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const mm = bench.mm();
      const base = (2 ** 30) as VirtAddr;
      mapFile(bench, mm, file, 4, { addr: base });
      const own = mapFile(bench, mm, file, 4, { addr: base + 5 * PAGE, shared: false });
      for (let i = 0; i < 4; i++) bench.store(mm, at(base, i), 50 + i);
      bench.store(mm, own, 99);
      const msync = (page: number, pages: number) => run(doMsync(bench.kernel, mm, at(base, page), pages * PAGE));
      const onDisk = () => [0, 1, 2, 3].map((i) => stored(file, i));
      expect([msync(1, 2), onDisk()]).toEqual([0, [1, 51, 52, 4]]);
      expect([msync(5, 4), onDisk()]).toEqual([0, [1, 51, 52, 4]]);
      // Over the hole, and still all of it.
      expect([msync(0, 9), onDisk()]).toEqual(['ENOMEM', [50, 51, 52, 53]]);
      expect(msync(4, 1)).toBe('ENOMEM');
      expect(msync(20, 1)).toBe('ENOMEM');
      expect(run(doMsync(bench.kernel, mm, (base + 1) as VirtAddr, PAGE))).toBe('EINVAL');
    }));

  it('madvise: DONTNEED drops mappings and private copies, the cache stays; FREE is for anonymous memory', () =>
    withFile(addressing, filledPages(2), (bench, file) => {
      const mm = bench.mm();
      const shared = mapFile(bench, mm, file, 2);
      const own = mapFile(bench, mm, file, 2, { shared: false });
      bench.store(mm, shared, 50);
      bench.store(mm, at(own, 1), 51);
      for (const start of [shared, own]) {
        expect(run(doMadvise(bench.kernel, mm, start, 2 * PAGE, 'FREE'))).toBe('EINVAL');
        expect(run(doMadvise(bench.kernel, mm, start, 2 * PAGE, 'DONTNEED'))).toBe(0);
      }
      expect([rss(mm), file.pages.size, isDirty(bench, file.pages.get(0)!)]).toEqual([[0, 0, 0], 2, true]);
      expect([bench.load(mm, shared), bench.load(mm, at(own, 1))]).toEqual([50, 2]);
    }));

  it('pins: for long, a private page is copied first, and nobody writes to a file unheard', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const mm = bench.mm();
      const own = mapFile(bench, mm, file, 4, { shared: false });
      const shared = mapFile(bench, mm, file, 4);
      const pin = (start: VirtAddr, write: boolean, longterm: boolean) =>
        run(pinUserPages(bench.kernel, mm, start, 1, { write, longterm }));
      const pages = pin(own, false, true) as Page[];
      expect(rss(mm)).toEqual([1, 0, 0]);
      bench.store(mm, own, 60);
      expect(bench.kernel.ram.bytes(bench.kernel.memmap.ramFrame(pages[0]!))[0]).toBe(60);
      const short = pin(at(own, 1), false, false) as Page[];
      expect(short).toEqual([file.pages.get(1)]);
      const fromFile = pin(shared, false, true) as Page[];
      expect(fromFile).toEqual([file.pages.get(0)]);
      expect(pin(shared, true, true)).toBe('EFAULT');
      const written = pin(shared, true, false) as Page[];
      expect(isDirty(bench, written[0]!)).toBe(true);
      const got = run(getUserPages(bench.kernel, mm, at(shared, 2), 1, true));
      expect(got).toMatchObject({ errno: 0, pages: [file.pages.get(2)] });
      // A pinned page that is truncated lives on without a home.
      run(fileTruncate(bench.kernel, file, 0));
      expect([file.pages.size, refCount(bench.kernel, got.pages[0]!)]).toEqual([0, 1]);
      for (const each of [pages, short, fromFile, written]) unpinUserPages(bench.kernel, each);
      putUserPages(bench.kernel, got.pages);
    }));

  it('views: maps, smaps, pagemap, mincore', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const mm = bench.mm();
      const base = (2 ** 44) as VirtAddr;
      mapFile(bench, mm, file, 2, { addr: base, pgoff: 2 });
      mapFile(bench, mm, file, 3, { addr: base + 8 * PAGE, shared: false, prot: 'r' });
      const name = `/tmp/#${file.id} (deleted)`;
      expect(mapsText(mm)).toBe(
        `${`100000000000-100000002000 rw-s 00002000 08:01 ${file.id} `.padEnd(73)}${name}\n` +
          `${`100000008000-10000000b000 r--p 00000000 08:01 ${file.id} `.padEnd(73)}${name}\n`,
      );
      const mincore = () => {
        const out = new Int32Array(11);
        mincoreRange(bench.kernel, mm, base, out);
        return [...out];
      };
      expect(mincore()).toEqual([0, 0, -1, -1, -1, -1, -1, -1, 0, 0, 0]);
      bench.store(mm, base, 1);
      // The private mapping has not touched it, but it is in the cache.
      expect(mincore()).toEqual([1, 0, -1, -1, -1, -1, -1, -1, 0, 0, 1]);
      bench.load(mm, at(base, 8));
      const word = (page: number) => pagemapWord(bench.kernel, mm, at(base, page)) >> 56n;
      // Bit 61: a page of a file. The load mapped page 2 of the file as well, which was around: two mappings share it.
      expect([0, 8, 10].map(word)).toEqual([0xa0n, 0xa1n, 0xa0n]);
      const { rss: kib, anon, prd, prc } = smapsRange(bench.kernel, mm, base, 11);
      expect({ kib, anon, prd, prc }).toEqual({ kib: 12, anon: 0, prd: 0, prc: 4 });
      run(doMprotect(bench.kernel, mm, at(base, 8), 3 * PAGE, 'rw'));
      bench.store(mm, at(base, 10), 1);
      expect(word(10)).toBe(0x81n);
      expect(smapsRange(bench.kernel, mm, base, 11)).toMatchObject({ rss: 12, anon: 4, prd: 8, prc: 4 });
      expect(smapsText(bench.kernel, mm)).toContain('Anonymous:             4 kB\n');
    }));

  it("a driver's own pages: no file's, nobody's memory, and always mapped", () =>
    withFile(addressing, 0, (bench) => {
      const mm = bench.mm();
      const device = createDeviceFile(bench.kernel, 'gpu7');
      const base = (2 ** 44) as VirtAddr;
      mapFile(bench, mm, device, 2, { addr: base });
      mapFile(bench, mm, device, 2, { addr: base + 2 * PAGE, pgoff: 2, shared: false });
      const line = (end: string, rest: string) => `${`${end} ${rest} 00:05 ${device.id} `.padEnd(73)}/dev/gpu7\n`;
      // Never one mapping, though one continues the other.
      expect(mapsText(mm)).toBe(
        line('100000000000-100000002000', 'rw-s 00000000') + line('100000002000-100000004000', 'rw-p 00002000'),
      );
      expect(smapsText(bench.kernel, mm)).toContain('VmFlags: rd wr sh mr mw ms mm \n');
      expect([0, 1, 2, 3].map((i) => flagsAt(bench, mm, at(base, i)))).toEqual([
        READ | PTE_WRITE,
        READ | PTE_WRITE,
        READ,
        READ,
      ]);
      expect(rss(mm)).toEqual([0, 4, 0]);
      expect(pagemapWord(bench.kernel, mm, base) >> 56n).toBe(0xa1n);
      bench.store(mm, base, 1);
      bench.store(mm, at(base, 2), 2);
      const child = fork(bench, mm);
      expect([0, 1, 2, 3].map((i) => bench.load(child, at(base, i)))).toEqual([1, 0, 2, 0]);
      bench.store(child, base, 3);
      bench.store(child, at(base, 3), 4);
      expect([0, 1, 2, 3].map((i) => bench.load(mm, at(base, i)))).toEqual([3, 0, 2, 0]);
      expect([rss(mm), rss(child)]).toEqual([
        [1, 3, 0],
        [2, 2, 0],
      ]);
      const pages = run(pinUserPages(bench.kernel, mm, base, 1, { write: true, longterm: true })) as Page[];
      expect(pages).toEqual([bench.page(mm, base)]);
      const to = run(doMremap(bench.kernel, mm, base, 2 * PAGE, 3 * PAGE, { maymove: true })) as VirtAddr;
      expect([bench.load(mm, to), bench.load(mm, at(to, 1))]).toEqual([3, 0]);
      // Nobody fills what it grew by.
      expect(() => bench.load(mm, at(to, 2))).toThrow(`fault ${VM_FAULT_SIGBUS}`);
      unpinUserPages(bench.kernel, pages);
      run(exitMm(bench.kernel, child));
      const free = bench.free;
      const request = { length: 1024 * 2 ** 20, prot: 'rw', fixed: false, file: { file: device, pgoff: 0 } } as const;
      expect(run(doMmap(bench.kernel, mm, request))).toBe('ENOMEM');
      expect([bench.free, device.users]).toEqual([free, 3]);
      expect(violations(bench)).toEqual([]);
      run(exitMm(bench.kernel, mm));
      vmFilePut(bench.kernel, device);
    }));

  it('the file lives as long as it is open or mapped', () =>
    withFile(addressing, 0, (bench, file) => {
      const mm = bench.mm();
      const free = bench.free;
      pwrite(bench, file, 0, 1, 2);
      const start = mapFile(bench, mm, file, 1);
      file.users++;
      vmFilePut(bench.kernel, file);
      expect(bench.load(mm, start)).toBe(1);
      run(exitMm(bench.kernel, mm));
      expect([bench.kernel.files.get(file.id), file.pages.size]).toEqual([file, 1]);
      run(fileTruncate(bench.kernel, file, 0));
      // All but the tables of the process, which has gone.
      expect(bench.free).toBeGreaterThanOrEqual(free);
    }));

  it('the checker of page caches sees what it is for', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 4);
      for (let i = 0; i < 4; i++) bench.load(mm, at(start, i));
      expect(violations(bench)).toEqual([]);
      const page = file.pages.get(0)!;
      changePte(bench, mm, start, (pte) => pte | PTE_WRITE);
      expect(violations(bench)).toEqual([expect.stringContaining('can be written here, but counts as clean')]);
      pageSetFlag(bench.kernel.memmap.words, page, PG_dirty);
      expect(violations(bench)).toEqual([]);
      file.size = 3 * PAGE;
      expect(violations(bench)).toEqual([
        expect.stringContaining('mapped behind the end'),
        expect.stringContaining('is in the cache, but the file has 3 pages'),
      ]);
      file.size = 4 * PAGE;
      file.pages.delete(1);
      expect(violations(bench)).toEqual([expect.stringContaining('which knows nothing of it')]);
      file.pages.set(1, bench.page(mm, start + PAGE));
      file.users--;
      expect(violations(bench)).toEqual([]);
      file.users--;
      expect(violations(bench)).toEqual([expect.stringContaining('1 mappings, but 0 users')]);
      file.users += 2;
      pageMapcountAdd(bench.kernel.memmap.words, page, 1);
      expect(violations(bench)).toHaveLength(1);
      pageMapcountAdd(bench.kernel.memmap.words, page, -1);
    }));
});
