/** mremap: entries of every kind move, pages do not; borders, errors, and what the reverse map says afterwards. */
import { expect, it } from 'vitest';
import type { Errno } from '#src/abi/errno';
import { NULL_PAGE, type VirtAddr } from '#src/base/brand';
import { clearRefs } from '#src/mm/clear-refs';
import { forkMm } from '#src/mm/fork';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap } from '#src/mm/mmap';
import { doMremap, type MremapFlags } from '#src/mm/mremap';
import { leafTable } from '#src/mm/pgtable';
import { pagemapWord } from '#src/mm/proc-pagemap';
import { putPage } from '#src/mm/put-page';
import { createUserfaultfd, userfaultfdRegister } from '#src/mm/userfaultfd';
import { type Bench, describeEach, expectAtRest, PAGE, run, withKernel } from './mm-fixture';

const remap = (
  bench: Bench,
  mm: MmStruct,
  at: number,
  oldPages: number,
  newPages: number,
  flags: MremapFlags,
): VirtAddr | Errno => run(doMremap(bench.kernel, mm, at as VirtAddr, oldPages * PAGE, newPages * PAGE, flags));
const to = (fixedAt: number): MremapFlags => ({ maymove: true, fixedAt: fixedAt as VirtAddr });
const ranges = (mm: MmStruct, from: number): [number, number][] =>
  [...mm.vmas].map(({ start, end }) => [(start - from) / PAGE, (end - start) / PAGE]);
const BASE = 2 ** 30;
/** Pages of a leaf table. */
const TABLE = 512;
const tableAt = (bench: Bench, mm: MmStruct, at: number): number => leafTable(bench.kernel, mm, at as VirtAddr);
const softDirty = (bench: Bench, mm: MmStruct, at: number): number =>
  Number((pagemapWord(bench.kernel, mm, at as VirtAddr) >> 55n) & 1n);
/** All of RAM, while `body` runs. */
function withoutRam({ kernel }: Bench, body: () => void): void {
  const taken = [];
  for (let page = kernel.buddy.allocPages(0); page !== NULL_PAGE; page = kernel.buddy.allocPages(0)) taken.push(page);
  body();
  for (const page of taken) putPage(kernel, page);
}

describeEach('mremap', (addressing) => {
  it('DONTUNMAP beside itself, of memory without a page yet: there are two mappings then', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      bench.mmap(mm, 4, 'rw', BASE);
      const beside = to(BASE + 4 * PAGE);
      expect(remap(bench, mm, BASE + 2 * PAGE, 2, 2, { ...beside, dontunmap: true })).toBe(BASE + 4 * PAGE);
      expect(ranges(mm, BASE)).toEqual([
        [0, 4],
        [4, 2],
      ]);
      expect(remap(bench, mm, BASE + 4 * PAGE, 2, 2, to(BASE + 8 * PAGE))).toBe(BASE + 8 * PAGE);
      expect(ranges(mm, BASE)).toEqual([
        [0, 4],
        [8, 2],
      ]);
    }));

  it('moves pages of RAM and of the device, over what was there, and both are found there', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4, 'rw', BASE);
      const target = bench.mmap(mm, 4, 'rw', BASE + 511 * PAGE);
      const driver = bench.driver();
      for (let i = 0; i < 4; i++) bench.store(mm, at + i * PAGE, i + 1);
      bench.store(mm, target, 99);
      bench.store(mm, target + PAGE, 98);
      run(driver.toDevice(mm, at, 2));
      run(driver.toDevice(mm, target, 1));
      const page = bench.page(mm, at);
      expect(remap(bench, mm, at, 4, 4, to(target))).toBe(target);
      expect(ranges(mm, BASE)).toEqual([[511, 4]]);
      expect([mm.rssAnon, driver.used, bench.page(mm, target)]).toEqual([4, 2, page]);
      expect(bench.store(mm, at, 1).fault).not.toBe(0);
      expect(run(driver.evict([page]))).toBe(1);
      expect(run(driver.toDevice(mm, target + 2 * PAGE, 2))).toBe(2);
      expect([0, 1, 2, 3].map((i) => bench.load(mm, target + i * PAGE))).toEqual([1, 2, 3, 4]);
      for (let i = 0; i < 4; i++) expectAtRest(bench, mm, target + i * PAGE);
    }));

  it('part of a mapping, and back: the VMAs merge again', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 6, 'rw', BASE);
      for (let i = 0; i < 6; i++) bench.store(mm, at + i * PAGE, i + 1);
      expect(remap(bench, mm, at + 2 * PAGE, 2, 2, to(at + 10 * PAGE))).toBe(at + 10 * PAGE);
      expect(ranges(mm, at)).toEqual([
        [0, 2],
        [4, 2],
        [10, 2],
      ]);
      expect(remap(bench, mm, at + 10 * PAGE, 2, 2, to(at + 2 * PAGE))).toBe(at + 2 * PAGE);
      expect(ranges(mm, at)).toEqual([[0, 6]]);
      expect([0, 1, 2, 3, 4, 5].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 2, 3, 4, 5, 6]);
    }));

  it('several VMAs and the gaps between them move as they are; the start must be mapped', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', BASE);
      bench.mmap(mm, 2, 'r', at + 3 * PAGE);
      bench.store(mm, at + PAGE, 7);
      const target = bench.mmap(mm, 6, 'rw', at + 20 * PAGE);
      bench.store(mm, target + 2 * PAGE, 42);
      expect(remap(bench, mm, at, 6, 6, to(target))).toBe(target);
      // What was mapped in the place of the gaps stays there; page offsets differ, so nothing merges.
      expect(ranges(mm, target)).toEqual([
        [0, 2],
        [2, 1],
        [3, 2],
        [5, 1],
      ]);
      expect([bench.load(mm, target + PAGE), bench.load(mm, target + 2 * PAGE)]).toEqual([7, 42]);
      expect(remap(bench, mm, at, 6, 6, to(target))).toBe('EFAULT');
    }));

  it('grows in place, elsewhere, and shrinks', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', BASE);
      bench.store(mm, at + PAGE, 5);
      expect(remap(bench, mm, at, 2, 4, { maymove: false })).toBe(at);
      bench.store(mm, at + 3 * PAGE, 6);
      expect(ranges(mm, at)).toEqual([[0, 4]]);
      bench.mmap(mm, 1, 'r', at + 4 * PAGE);
      expect(remap(bench, mm, at, 4, 6, { maymove: false })).toBe('ENOMEM');
      const moved = remap(bench, mm, at, 4, 6, { maymove: true }) as VirtAddr;
      expect(moved).not.toBe(at);
      expect([1, 3, 5].map((i) => bench.load(mm, moved + i * PAGE))).toEqual([5, 6, 0]);
      expect(remap(bench, mm, moved, 6, 2, { maymove: false })).toBe(moved);
      expect(mm.rssAnon).toBe(1);
      expect(remap(bench, mm, moved, 2, 2, { maymove: false })).toBe(moved);
    }));

  it('DONTUNMAP: the old range stays, empty', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', BASE);
      const driver = bench.driver();
      bench.store(mm, at, 5);
      run(driver.toDevice(mm, at, 1));
      const moved = remap(bench, mm, at, 2, 2, { maymove: true, dontunmap: true }) as VirtAddr;
      expect([bench.kind(mm, at), bench.kind(mm, moved)]).toEqual(['none', 'device-private-write']);
      bench.store(mm, at, 6);
      expect(run(driver.evict([bench.page(mm, moved)]))).toBe(1);
      expect([bench.load(mm, at), bench.load(mm, moved)]).toEqual([6, 5]);
      expect(run(driver.toDevice(mm, at, 2))).toBe(2);
      expect(bench.load(mm, at)).toBe(6);
    }));

  it('a migration entry moves, and its page comes back at the new place', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1, 'rw', BASE);
      const driver = bench.driver();
      bench.store(mm, at, 5);
      run(driver.toDevice(mm, at, 1));
      driver.gate = { open: false };
      const eviction = driver.evict([bench.page(mm, at)]);
      while (!eviction.next().done) if (bench.kind(mm, at).startsWith('migration')) break;
      const target = at + 8 * PAGE;
      expect(remap(bench, mm, at, 1, 1, to(target))).toBe(target);
      driver.gate.open = true;
      run(eviction);
      expect([bench.kind(mm, target), bench.load(mm, target), mm.rssAnon]).toEqual(['present', 5, 1]);
      expectAtRest(bench, mm, target);
    }));

  it('a page shared by fork is found at both its places', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1, 'rw', BASE);
      const driver = bench.driver();
      bench.store(mm, at, 5);
      const child = run(forkMm(bench.kernel, mm, 60))!;
      const target = at + 8 * PAGE;
      remap(bench, child, at, 1, 1, to(target));
      expect(run(driver.toDevice(mm, at, 1))).toBe(1);
      expect([bench.kind(mm, at), bench.kind(child, target)]).toEqual(Array(2).fill('device-private-read'));
      expect([bench.load(child, target), bench.kind(mm, at)]).toEqual([5, 'present']);
    }));

  it('shared memory: moves, and a zero old length maps it twice', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const shared = { length: 2 * PAGE, prot: 'rw', fixed: false, kind: 'shared' } as const;
      const at = run(doMmap(bench.kernel, mm, shared)) as VirtAddr;
      bench.store(mm, at, 1);
      expect(remap(bench, mm, at, 2, 2, to(BASE))).toBe(BASE);
      expect(remap(bench, mm, BASE, 0, 2, to(2 * BASE))).toBe(2 * BASE);
      bench.store(mm, BASE, 9);
      expect(bench.load(mm, 2 * BASE)).toBe(9);
      run(doMunmap(bench.kernel, mm, BASE as VirtAddr, 2 * PAGE));
      expect(bench.load(mm, 2 * BASE)).toBe(9);
    }));

  it('errors', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4, 'rw', BASE);
      const move = { maymove: true };
      expect(remap(bench, mm, at + 1, 1, 1, move)).toBe('EINVAL');
      expect(remap(bench, mm, at, 1, 0, move)).toBe('EINVAL');
      expect(remap(bench, mm, at, 0, 1, move)).toBe('EINVAL');
      expect(remap(bench, mm, at, 2, 2, to(at + PAGE))).toBe('EINVAL');
      expect(remap(bench, mm, at, 2, 2, to(2 * BASE + 1))).toBe('EINVAL');
      expect(remap(bench, mm, at, 2, 2, { maymove: false, fixedAt: (2 * BASE) as VirtAddr })).toBe('EINVAL');
      expect(remap(bench, mm, at, 2, 3, { maymove: true, dontunmap: true })).toBe('EINVAL');
      expect(remap(bench, mm, at + 4 * PAGE, 1, 1, move)).toBe('EFAULT');
      expect(remap(bench, mm, at, 5, 6, move)).toBe('EFAULT');
      expect(ranges(mm, at)).toEqual([[0, 4]]);
    }));

  it('a fixed place for less than there is: what is cut off may reach into the next VMA', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', BASE);
      bench.mmap(mm, 2, 'r', BASE + 2 * PAGE);
      bench.store(mm, at, 5);
      expect(remap(bench, mm, at, 4, 3, to(2 * BASE))).toBe('EFAULT');
      expect(remap(bench, mm, at, 3, 1, to(2 * BASE))).toBe(2 * BASE);
      expect([bench.load(mm, 2 * BASE), ranges(mm, at)[0]]).toEqual([5, [3, 1]]);
    }));

  it('of several VMAs none may be watched by a userfaultfd', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', BASE);
      bench.mmap(mm, 2, 'r', BASE + 2 * PAGE);
      const ctx = createUserfaultfd(mm, {});
      const register = (page: number) =>
        run(userfaultfdRegister(bench.kernel, ctx, (at + page * PAGE) as VirtAddr, 2 * PAGE));
      register(0);
      expect(remap(bench, mm, at, 4, 4, to(2 * BASE))).toBe('EFAULT');
      expect(ranges(mm, BASE)).toEqual([
        [0, 2],
        [2, 2],
      ]);
      // Alone it moves, and is watched no more at its new place.
      expect(remap(bench, mm, at, 2, 2, to(2 * BASE))).toBe(2 * BASE);
      expect(remap(bench, mm, 2 * BASE, 2, 2, to(BASE))).toBe(BASE);
      register(2);
      expect(remap(bench, mm, at, 4, 4, to(2 * BASE))).toBe('EFAULT');
      expect(ranges(mm, BASE)).toEqual([
        [2, 2],
        [BASE / PAGE, 2],
      ]);
    }));

  it('a whole leaf table goes as it is, and nothing in it becomes soft-dirty', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = bench.mmap(mm, TABLE + 1, 'rw', BASE);
      for (const page of [0, 9, 511, 512]) bench.store(mm, at + page * PAGE, page + 1);
      run(driver.toDevice(mm, at + 9 * PAGE, 1));
      run(clearRefs(bench.kernel, mm, 'soft-dirty'));
      const table = tableAt(bench, mm, at);
      const page = bench.page(mm, at);
      const target = 2 * BASE - TABLE * PAGE;
      expect(remap(bench, mm, at, TABLE + 1, TABLE + 1, to(target))).toBe(target);
      expect([tableAt(bench, mm, target), bench.page(mm, target)]).toEqual([table, page]);
      const dirty = [0, 9, 511, 512].map((each) => softDirty(bench, mm, target + each * PAGE));
      expect(dirty).toEqual([0, 0, 0, 1]);
      expect(bench.store(mm, at, 1).fault).not.toBe(0);
      expect([0, 9, 511, 512].map((each) => bench.load(mm, target + each * PAGE))).toEqual([1, 10, 0, 1]);
      // To where there is a table already, and where a userfaultfd must not follow, the entries go one by one.
      const ctx = createUserfaultfd(mm, {});
      expect(run(userfaultfdRegister(bench.kernel, ctx, target as VirtAddr, TABLE * PAGE))).toBe(0);
      expect(remap(bench, mm, target, TABLE, TABLE, to(BASE))).toBe(BASE);
      expect([tableAt(bench, mm, BASE) === table, softDirty(bench, mm, BASE)]).toEqual([false, 1]);
      expectAtRest(bench, mm, BASE);
    }));

  it('a mapping that begins inside of a table takes it along where nobody else is in it', () => {
    const cases = [[], [BASE], [2 * BASE + 508 * PAGE]];
    for (const others of cases) {
      withKernel(addressing, (bench) => {
        const mm = bench.mm();
        const at = bench.mmap(mm, 4, 'rw', BASE + 509 * PAGE);
        for (const other of others) bench.mmap(mm, 1, 'r', other);
        for (const page of [0, 2, 3]) bench.store(mm, at + page * PAGE, page + 1);
        run(clearRefs(bench.kernel, mm, 'soft-dirty'));
        const target = at + BASE;
        expect(remap(bench, mm, at, 4, 4, to(target))).toBe(target);
        const dirty = [0, 2, 3].map((page) => softDirty(bench, mm, target + page * PAGE));
        expect(dirty).toEqual(others.length === 0 ? [0, 0, 1] : [1, 1, 1]);
        expect([0, 2, 3].map((page) => bench.load(mm, target + page * PAGE))).toEqual([1, 3, 4]);
        // What does not reach the border goes page by page.
        run(clearRefs(bench.kernel, mm, 'soft-dirty'));
        expect(remap(bench, mm, target, 2, 2, to(at))).toBe(at);
        expect(softDirty(bench, mm, at)).toBe(1);
      });
    }
  });

  it('no RAM for the second directory: the table that has gone comes back', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2 * TABLE, 'rw', BASE);
      for (const page of [0, 600]) bench.store(mm, at + page * PAGE, 5);
      run(clearRefs(bench.kernel, mm, 'soft-dirty'));
      bench.store(mm, bench.mmap(mm, 1, 'rw', 3 * BASE), 1);
      const tables = [0, 600].map((page) => tableAt(bench, mm, at + page * PAGE));
      withoutRam(bench, () => {
        expect(remap(bench, mm, at, 2 * TABLE, 2 * TABLE, to(4 * BASE - TABLE * PAGE))).toBe('ENOMEM');
      });
      expect([0, 600].map((page) => tableAt(bench, mm, at + page * PAGE))).toEqual(tables);
      expect([0, 600].map((page) => softDirty(bench, mm, at + page * PAGE))).toEqual([0, 0]);
      expect([0, 600].map((page) => bench.load(mm, at + page * PAGE))).toEqual([5, 5]);
      expect(ranges(mm, at)[0]).toEqual([0, 2 * TABLE]);
    }));

  it('no RAM for a page table: ENOMEM, and all is as it was', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', BASE);
      bench.store(mm, at, 5);
      withoutRam(bench, () => expect(remap(bench, mm, at, 2, 2, to(4 * BASE))).toBe('ENOMEM'));
      expect([ranges(mm, at), bench.load(mm, at)]).toEqual([[[0, 2]], 5]);
      expectAtRest(bench, mm, at);
    }));
});
