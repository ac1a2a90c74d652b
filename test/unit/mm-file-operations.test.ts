/** Mappings of files under fork, mprotect, mremap, msync, madvise, pins and views; a driver's own pages; the checker. */
import { expect, it } from 'vitest';
import { VM_FAULT_SIGBUS, VM_FAULT_SIGSEGV } from '#src/abi/errno';
import { PTE_WRITE, pteWrite } from '#src/abi/pte';
import type { Page, VirtAddr } from '#src/base/brand';
import { createDeviceFile } from '#src/drivers/device-file';
import { fileSync, fileTruncate } from '#src/mm/file';
import { vmFilePut } from '#src/mm/filemap';
import { getUserPages, pinUserPages, putUserPages, unpinUserPages } from '#src/mm/gup';
import { doMadvise } from '#src/mm/madvise';
import { exitMm } from '#src/mm/mm-struct';
import { doMmap, doMunmap } from '#src/mm/mmap';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { pageMapcountAdd, pageSetFlag } from '#src/mm/page';
import { doMsync } from '#src/mm/page-writeback';
import { mincoreRange, pagemapWord } from '#src/mm/proc-pagemap';
import { mapsText, smapsRange, smapsText } from '#src/mm/proc-smaps';
import {
  at,
  filledPages,
  flagsAt,
  fork,
  isDirty,
  mapFile,
  PG_dirty,
  pwrite,
  READ,
  rss,
  stored,
  violations,
  withFile,
} from './file-fixture';
import { changePte, describeEach, PAGE, refCount, run } from './mm-fixture';

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
      expect(smapsText(bench.kernel, mm)).toContain('VmFlags: rd wr sh mr mw ms sd mm \n');
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
      expect(violations(bench)[0]).toContain('mapcount 2');
      pageMapcountAdd(bench.kernel.memmap.words, page, -1);
    }));
});
