/** Two tasks at a time: each test stops one of them in the middle and lets the other go. */
import { expect, it } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { exitMm, type MmStruct } from '#src/mm/mm-struct';
import { doMunmap } from '#src/mm/mmap';
import { mmuIntervalNotifierInsert, mmuIntervalNotifierRemove, mmuIntervalSetSeq } from '#src/mm/mmu-notifier';
import { copyFromUser, copyToUser } from '#src/mm/uaccess';
import type { Sleeps } from '#src/sync/task';
import {
  type Bench,
  describeEach,
  type FakeDriver,
  PAGE,
  run,
  runAll,
  runUntilBlocked,
  withKernel,
} from './mm-fixture';

/** One page on the device, with contents. */
function onDevice(bench: Bench, pages = 1): { mm: MmStruct; at: VirtAddr; driver: FakeDriver } {
  const mm = bench.mm();
  const at = bench.mmap(mm, pages);
  for (let i = 0; i < pages; i++) bench.store(mm, at + i * PAGE, i + 1);
  const driver = bench.driver();
  run(driver.toDevice(mm, at, pages));
  return { mm, at, driver };
}

/** Start a task whose copy waits. */
function stopInCopy(driver: FakeDriver, task: Sleeps<unknown>): void {
  driver.gate.open = false;
  expect(runUntilBlocked(task)).toBe('the copy');
}

const load = (bench: Bench, mm: MmStruct, addr: number, out = new Uint8Array(1)) => ({
  out,
  task: copyFromUser(bench.kernel, mm, addr as VirtAddr, out),
});

/** A device that takes its time to forget. */
function slowDevice(mm: MmStruct) {
  const gate = { open: false };
  const notifier = mmuIntervalNotifierInsert(mm, 0, 2 ** 47, {
    *invalidate(self, _range, curSeq) {
      mmuIntervalSetSeq(self, curSeq);
      while (!gate.open) yield { what: 'the device', ready: () => gate.open };
    },
  });
  return { gate, notifier };
}

describeEach('a migration to the device and', (addressing) => {
  it('a CPU access: it waits on the migration entry, then brings the page back', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 5);
      const driver = bench.driver();
      const migration = driver.toDevice(mm, at, 1);
      stopInCopy(driver, migration);
      const access = load(bench, mm, at);
      expect(runUntilBlocked(access.task)).toContain('end of the migration');
      driver.gate.open = true;
      expect(run(migration)).toBe(1);
      run(access.task);
      expect(access.out[0]).toBe(5);
      expect(driver.used).toBe(0);
    }));

  it('munmap: it waits for mmap_lock', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 5);
      const driver = bench.driver();
      const migration = driver.toDevice(mm, at, 1);
      stopInCopy(driver, migration);
      const unmap = doMunmap(bench.kernel, mm, at, PAGE);
      expect(runUntilBlocked(unmap)).toContain('mmap_lock');
      driver.gate.open = true;
      run(migration);
      expect(driver.used).toBe(1);
      run(unmap);
      expect(driver.used).toBe(0);
    }));

  it.each(['hole', 'zero page'])('a store to a %s that was to migrate: the store wins', (what) =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      if (what === 'zero page') bench.load(mm, at);
      const driver = bench.driver();
      const migration = driver.toDevice(mm, at, 2);
      stopInCopy(driver, migration);
      bench.store(mm, at, 9);
      driver.gate.open = true;
      expect(run(migration)).toBe(1);
      expect(driver.used).toBe(1);
      expect(bench.kind(mm, at)).toBe('present');
      expect(bench.load(mm, at)).toBe(9);
      expect(mm.rssAnon).toBe(2);
    }),
  );

  it('a load of a hole that was to migrate: the device page replaces the zero page', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      const driver = bench.driver();
      const migration = driver.toDevice(mm, at, 1);
      stopInCopy(driver, migration);
      expect(bench.load(mm, at)).toBe(0);
      driver.gate.open = true;
      expect(run(migration)).toBe(1);
      const page = bench.page(mm, at);
      driver.contents.get(page)![0] = 3;
      expect(bench.load(mm, at)).toBe(3);
    }));

  it('another migration of the same pages: the second finds nothing', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      const [a, b] = [bench.driver(), bench.driver()];
      const first = a.toDevice(mm, at, 2);
      stopInCopy(a, first);
      // The page is locked; the hole is still one, and belongs to whoever fills it first.
      expect(run(b.toDevice(mm, at, 2))).toBe(1);
      a.gate.open = true;
      expect(run(first)).toBe(1);
      expect([a.used, b.used]).toEqual([1, 1]);
      expect([bench.load(mm, at), bench.load(mm, at + PAGE)]).toEqual([1, 0]);
    }));

  it('a copy on write of the zero page that sleeps meanwhile: the entry has changed, the access starts over', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.load(mm, at);
      const { gate, notifier } = slowDevice(mm);
      const store = copyToUser(bench.kernel, mm, at, Uint8Array.of(4));
      expect(runUntilBlocked(store)).toBe('the device');
      const driver = bench.driver();
      const migration = driver.toDevice(mm, at, 1);
      runUntilBlocked(migration);
      gate.open = true;
      run(migration);
      expect(bench.kind(mm, at)).toBe('device-private-write');
      run(store);
      expect(bench.load(mm, at)).toBe(4);
      expect([driver.used, mm.rssAnon]).toEqual([0, 1]);
      run(mmuIntervalNotifierRemove(notifier));
    }));
});

describeEach('a CPU fault on a device page and', (addressing) => {
  it('another fault on it: one brings it home, the other waits', () =>
    withKernel(addressing, (bench) => {
      const { mm, at, driver } = onDevice(bench);
      const [one, two] = [load(bench, mm, at), load(bench, mm, at)];
      stopInCopy(driver, one.task);
      expect(runUntilBlocked(two.task)).toContain('end of the migration');
      driver.gate.open = true;
      runAll(one.task, two.task);
      expect([one.out[0], two.out[0]]).toEqual([1, 1]);
      expect(bench.kernel.stats.migratedToRam).toBe(1);
    }));

  it('eviction: it passes over the locked page', () =>
    withKernel(addressing, (bench) => {
      const { mm, at, driver } = onDevice(bench, 2);
      const pages = [bench.page(mm, at), bench.page(mm, at + PAGE)];
      const access = load(bench, mm, at);
      stopInCopy(driver, access.task);
      const eviction = driver.evict(pages);
      runUntilBlocked(eviction);
      driver.gate.open = true;
      runAll(eviction, access.task);
      expect(access.out[0]).toBe(1);
      expect(driver.used).toBe(0);
      expect(bench.load(mm, at + PAGE)).toBe(2);
    }));

  it('bulk migration home: it passes over the locked page', () =>
    withKernel(addressing, (bench) => {
      const { mm, at, driver } = onDevice(bench, 3);
      const access = load(bench, mm, at + PAGE);
      stopInCopy(driver, access.task);
      const home = driver.toSystem(mm, at, 3);
      runUntilBlocked(home);
      driver.gate.open = true;
      expect(runAll(home, access.task)[0]).toBe(2);
      expect([0, 1, 2].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 2, 3]);
    }));

  it('munmap: it waits for mmap_lock', () =>
    withKernel(addressing, (bench) => {
      const { mm, at, driver } = onDevice(bench);
      const access = load(bench, mm, at);
      stopInCopy(driver, access.task);
      const unmap = doMunmap(bench.kernel, mm, at, PAGE);
      expect(runUntilBlocked(unmap)).toContain('mmap_lock');
      driver.gate.open = true;
      runAll(access.task, unmap);
      expect(driver.used).toBe(0);
      expect(mm.rssAnon).toBe(0);
    }));
});

describeEach('an eviction and', (addressing) => {
  it('a CPU access: it waits for the page', () =>
    withKernel(addressing, (bench) => {
      const { mm, at, driver } = onDevice(bench);
      const eviction = driver.evict([bench.page(mm, at)]);
      stopInCopy(driver, eviction);
      expect(bench.kind(mm, at)).toBe(addressing === 'legacy' ? 'migration-write' : 'migration-device-private-write');
      const access = load(bench, mm, at);
      expect(runUntilBlocked(access.task)).toContain('end of the migration');
      driver.gate.open = true;
      runAll(eviction, access.task);
      expect(access.out[0]).toBe(1);
      expect(bench.kernel.stats.migratedToRam).toBe(1);
    }));

  it('another eviction of the same pages', () =>
    withKernel(addressing, (bench) => {
      const { mm, at, driver } = onDevice(bench, 4);
      const pages = [0, 1, 2, 3].map((i) => bench.page(mm, at + i * PAGE));
      bench.preemption.on = true;
      const moved = runAll(driver.evict(pages), driver.evict(pages)) as number[];
      bench.preemption.on = false;
      expect(moved[0]! + moved[1]!).toBe(4);
      expect([0, 1, 2, 3].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 2, 3, 4]);
    }));

  it('munmap, which does not wait: the page is dropped, the eviction finds nobody to give it to', () =>
    withKernel(addressing, (bench) => {
      const { mm, at, driver } = onDevice(bench, 2);
      const eviction = driver.evict([bench.page(mm, at), bench.page(mm, at + PAGE)]);
      stopInCopy(driver, eviction);
      run(doMunmap(bench.kernel, mm, at, PAGE));
      expect(mm.rssAnon).toBe(1);
      expect(driver.used).toBe(2);
      driver.gate.open = true;
      run(eviction);
      expect(driver.used).toBe(0);
      expect(bench.load(mm, at + PAGE)).toBe(2);
    }));

  it('the exit of the process', () =>
    withKernel(addressing, (bench) => {
      const { mm, at, driver } = onDevice(bench);
      const eviction = driver.evict([bench.page(mm, at)]);
      stopInCopy(driver, eviction);
      run(exitMm(bench.kernel, mm));
      driver.gate.open = true;
      run(eviction);
      expect(driver.used).toBe(0);
    }));

  it('the exit of the process while the device is still forgetting: its page tables are not looked into', () =>
    withKernel(addressing, (bench) => {
      const { mm, at, driver } = onDevice(bench);
      const { gate, notifier } = slowDevice(mm);
      const eviction = driver.evict([bench.page(mm, at)]);
      expect(runUntilBlocked(eviction)).toBe('the device');
      const exit = exitMm(bench.kernel, mm);
      expect(runUntilBlocked(exit)).toBe('the device');
      gate.open = true;
      // The exit runs to its end first: page tables, VMA and anon_vma are gone when the eviction wakes up.
      run(exit);
      run(eviction);
      expect(driver.used).toBe(0);
      run(mmuIntervalNotifierRemove(notifier));
    }));

  it('a munmap that splits the VMA while the device is still forgetting', () =>
    withKernel(addressing, (bench) => {
      const { mm, at, driver } = onDevice(bench, 3);
      const { gate, notifier } = slowDevice(mm);
      const eviction = driver.evict([bench.page(mm, at + 2 * PAGE)]);
      expect(runUntilBlocked(eviction)).toBe('the device');
      const unmap = doMunmap(bench.kernel, mm, (at + PAGE) as VirtAddr, PAGE);
      runUntilBlocked(unmap);
      gate.open = true;
      run(unmap);
      expect(run(eviction)).toBe(1);
      expect([bench.load(mm, at), bench.load(mm, at + 2 * PAGE)]).toEqual([1, 3]);
      run(mmuIntervalNotifierRemove(notifier));
    }));
});
