/** fork: what is shared, what is copied at once, and how each side gets its own. */
import { expect, it } from 'vitest';
import { pteWrite } from '#src/abi/pte';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { VirtAddr } from '#src/base/brand';
import { forkMm } from '#src/mm/fork';
import { exitMm, type MmStruct } from '#src/mm/mm-struct';
import { GUP_PIN_COUNTING_BIAS, pagePincountAdd } from '#src/mm/page';
import { putPage } from '#src/mm/put-page';
import { pageRefAdd } from '#src/sync/page-ref';
import { type Bench, describeEach, expectAtRest, PAGE, refCount, run, runAll, withKernel } from './mm-fixture';

const { PG_anon_exclusive } = PAGE_FLAGS;
let pid = 100;
const fork = (bench: Bench, mm: MmStruct): MmStruct => run(forkMm(bench.kernel, mm, ++pid))!;
const exclusive = (bench: Bench, mm: MmStruct, at: number): boolean =>
  (bench.field(bench.page(mm, at), 'flags') & PG_anon_exclusive) !== 0;

describeEach('fork', (addressing) => {
  it('pages are shared read-only; the first writer copies, the last sharer keeps the page', () =>
    withKernel(addressing, (bench) => {
      const parent = bench.mm();
      const at = bench.mmap(parent, 2);
      bench.store(parent, at, 1);
      bench.load(parent, at + PAGE);
      const page = bench.page(parent, at);
      const child = fork(bench, parent);
      expect([parent.rssAnon, child.rssAnon]).toEqual([1, 1]);
      expect([bench.page(child, at), refCount(bench.kernel, page), bench.field(page, 'mapcount')]).toEqual([
        page,
        2,
        1,
      ]);
      expect([pteWrite(bench.pte(parent, at)), pteWrite(bench.pte(child, at))]).toEqual([false, false]);
      expect(exclusive(bench, parent, at)).toBe(false);
      // The zero page is shared, too, where the VMA has pages of its own.
      expect(bench.pte(child, at + PAGE)).not.toBe(0n);
      bench.store(child, at, 2);
      expect(bench.page(child, at)).not.toBe(page);
      expect([bench.load(parent, at), bench.load(child, at)]).toEqual([1, 2]);
      bench.store(parent, at, 3);
      expect(bench.page(parent, at)).toBe(page);
      expect(exclusive(bench, parent, at)).toBe(true);
      expect([bench.load(parent, at), bench.load(child, at)]).toEqual([3, 2]);
      expectAtRest(bench, parent, at);
      expectAtRest(bench, child, at);
    }));

  it('a mapping without pages of its own is not copied', () =>
    withKernel(addressing, (bench) => {
      const parent = bench.mm();
      const at = bench.mmap(parent, 2);
      bench.load(parent, at);
      const child = fork(bench, parent);
      expect([child.tables, bench.kind(child, at)]).toEqual([1, 'none']);
      expect(bench.load(child, at)).toBe(0);
    }));

  it('the last sharer is found by the reverse map after the parent has gone', () =>
    withKernel(addressing, (bench) => {
      const parent = bench.mm();
      const at = bench.mmap(parent, 2);
      const driver = bench.driver();
      bench.store(parent, at, 7);
      bench.store(parent, at + PAGE, 8);
      const child = fork(bench, parent);
      run(exitMm(bench.kernel, parent));
      bench.store(child, at + PAGE, 9);
      expect(run(driver.toDevice(child, at, 2))).toBe(2);
      expect(run(driver.evict([bench.page(child, at), bench.page(child, at + PAGE)]))).toBe(2);
      expect([bench.load(child, at), bench.load(child, at + PAGE)]).toEqual([7, 9]);
    }));

  it('device pages: both read-only; one touch brings the page back to both', () =>
    withKernel(addressing, (bench) => {
      const parent = bench.mm();
      const at = bench.mmap(parent, 2);
      const driver = bench.driver();
      bench.store(parent, at, 5);
      run(driver.toDevice(parent, at, 2));
      const child = fork(bench, parent);
      for (const mm of [parent, child]) expect(bench.kind(mm, at)).toBe('device-private-read');
      expect([parent.rssAnon, child.rssAnon]).toEqual([2, 2]);
      const page = bench.page(child, at);
      expect([refCount(bench.kernel, page), exclusive(bench, child, at)]).toEqual([2, false]);
      expect(bench.load(child, at)).toBe(5);
      for (const mm of [parent, child]) expect(bench.kind(mm, at)).toBe('present');
      expect(bench.page(parent, at)).toBe(bench.page(child, at));
      expect(pteWrite(bench.pte(parent, at))).toBe(false);
      bench.store(child, at, 6);
      expect([bench.load(parent, at), bench.load(child, at)]).toEqual([5, 6]);
      expect(driver.used).toBe(1);
      // The other page leaves with the child's exit only if nobody else maps it.
      run(exitMm(bench.kernel, child));
      expect(bench.kind(parent, at + PAGE)).toBe('device-private-read');
      bench.store(parent, at + PAGE, 1);
      expect(driver.used).toBe(0);
    }));

  it('shared pages migrate to the device for both, read-only, and are evicted for both', () =>
    withKernel(addressing, (bench) => {
      const parent = bench.mm();
      const at = bench.mmap(parent, 1);
      const driver = bench.driver();
      bench.store(parent, at, 5);
      const child = fork(bench, parent);
      expect(run(driver.toDevice(parent, at, 1))).toBe(1);
      for (const mm of [parent, child]) expect(bench.kind(mm, at)).toBe('device-private-read');
      expect(run(driver.evict([bench.page(parent, at)]))).toBe(1);
      for (const mm of [parent, child]) expect([bench.kind(mm, at), bench.load(mm, at)]).toEqual(['present', 5]);
      expect(bench.page(parent, at)).toBe(bench.page(child, at));
    }));

  it('fork in the middle of a migration: the entry is copied and comes back in both', () =>
    withKernel(addressing, (bench) => {
      const parent = bench.mm();
      const at = bench.mmap(parent, 1);
      const driver = bench.driver();
      bench.store(parent, at, 5);
      run(driver.toDevice(parent, at, 1));
      driver.gate = { open: false };
      const eviction = driver.evict([bench.page(parent, at)]);
      const seen: string[] = [];
      let child: MmStruct | undefined;
      function* forking(): ReturnType<typeof forkMm> {
        yield { what: 'the eviction', ready: () => bench.kind(parent, at).startsWith('migration') };
        child = yield* forkMm(bench.kernel, parent, ++pid);
        seen.push(bench.kind(parent, at), bench.kind(child!, at));
        driver.gate.open = true;
        return child;
      }
      runAll(eviction, forking());
      const family = addressing === 'offset' ? 'migration-device-private-read' : 'migration-read';
      expect(seen).toEqual([family, family]);
      for (const mm of [parent, child!]) expect([bench.kind(mm, at), bench.load(mm, at)]).toEqual(['present', 5]);
      expect([parent.rssAnon, child!.rssAnon]).toEqual([1, 1]);
      expect(exclusive(bench, parent, at)).toBe(false);
    }));

  it('a pinned page is copied at once', () =>
    withKernel(addressing, (bench) => {
      const { kernel } = bench;
      const parent = bench.mm();
      const at = bench.mmap(parent, 1);
      bench.store(parent, at, 5);
      const page = bench.page(parent, at);
      pageRefAdd(kernel.memmap.words, page, GUP_PIN_COUNTING_BIAS);
      pagePincountAdd(kernel.memmap.words, page, 1);
      const child = fork(bench, parent);
      expect([bench.page(parent, at), exclusive(bench, parent, at)]).toEqual([page, true]);
      expect([pteWrite(bench.pte(parent, at)), pteWrite(bench.pte(child, at))]).toEqual([true, true]);
      expect([bench.load(child, at), exclusive(bench, child, at)]).toEqual([5, true]);
      pagePincountAdd(kernel.memmap.words, page, -1);
      pageRefAdd(kernel.memmap.words, page, 1 - GUP_PIN_COUNTING_BIAS);
      putPage(kernel, page);
      expectAtRest(bench, child, at);
    }));

  it('no RAM: nothing of the child is left', () =>
    withKernel(addressing, (bench) => {
      const parent = bench.mm();
      const at = bench.mmap(parent, 1);
      bench.store(parent, at, 5);
      const taken: ReturnType<typeof bench.kernel.buddy.allocPages>[] = [];
      while (bench.free > 2) taken.push(bench.kernel.buddy.allocPages(0));
      expect(run(forkMm(bench.kernel, parent, ++pid))).toBeUndefined();
      expect([bench.free, bench.kernel.mms.size]).toEqual([2, 1]);
      for (const page of taken) putPage(bench.kernel, page);
      bench.store(parent, at as VirtAddr, 6);
      expectAtRest(bench, parent, at);
    }));
});
