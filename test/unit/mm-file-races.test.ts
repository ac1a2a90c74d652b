/** Files whose pages are wanted by several at once: read-in, write-back, truncate, migration and faults in each other's way. */
import { expect, it } from 'vitest';
import { VM_FAULT_SIGBUS } from '#src/abi/errno';
import { pteWrite } from '#src/abi/pte';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { VirtAddr } from '#src/base/brand';
import { fileRead, fileSync, fileTruncate, fileWrite } from '#src/mm/file';
import { vmFilePut } from '#src/mm/filemap';
import { forkMm } from '#src/mm/fork';
import { createMm, type MmStruct } from '#src/mm/mm-struct';
import { doMunmap } from '#src/mm/mmap';
import { mmuIntervalNotifierInsert, mmuIntervalNotifierRemove, mmuIntervalSetSeq } from '#src/mm/mmu-notifier';
import { doMremap } from '#src/mm/mremap';
import { doMsync } from '#src/mm/page-writeback';
import { copyFromUser, copyToUser, type UserAccess } from '#src/mm/uaccess';
import type { Sleeps } from '#src/sync/task';
import { at, filledPages, mapFile, violations, withFile } from './file-fixture';
import { type Bench, describeEach, PAGE, run, runAll, runUntilBlocked } from './mm-fixture';

const { PG_dirty, PG_writeback } = PAGE_FLAGS;

/** A device's mirror that is slow to forget: whoever invalidates waits until the gate is open. */
function slowMirror(mm: MmStruct) {
  const gate = { open: false, asked: 0 };
  const notifier = mmuIntervalNotifierInsert(mm, 0, 2 ** 47, {
    *invalidate(self, _range, curSeq) {
      mmuIntervalSetSeq(self, curSeq);
      gate.asked++;
      while (!gate.open) yield { what: 'the slow mirror', ready: () => gate.open };
    },
  });
  return { gate, close: () => run(mmuIntervalNotifierRemove(notifier)) };
}

/** Step a task up to its next schedule point or wait; `false` when it has ended. */
const step = (task: Sleeps<unknown>): boolean => !task.next().done;

const loadTask = (bench: Bench, mm: MmStruct, addr: number, out: Uint8Array): Sleeps<UserAccess> =>
  copyFromUser(bench.kernel, mm, addr as VirtAddr, out);

describeEach('races for pages of files', (addressing) => {
  it('who comes while a page is read in waits for it, and sees what was read', () =>
    withFile(addressing, filledPages(2), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 2);
      const own = mapFile(bench, mm, file, 2, { shared: false });
      bench.preemption.on = true;
      const reader = fileRead(bench.kernel, file, 0, 1);
      expect(step(reader)).toBe(true);
      expect(file.pages.size).toBe(1);
      bench.preemption.on = false;
      const [a, b] = [new Uint8Array(1), new Uint8Array(1)];
      const others = [loadTask(bench, mm, start, a), loadTask(bench, mm, own, b)];
      for (const task of others) expect(runUntilBlocked(task)).toMatch(/lock of page/);
      const store = copyToUser(bench.kernel, mm, at(own, 0), Uint8Array.of(9));
      expect(runUntilBlocked(store)).toMatch(/lock of page/);
      const [bytes] = runAll(reader, ...others, store);
      expect([...(bytes as Uint8Array), ...a]).toEqual([1, 1]);
      expect([1, 9]).toContain(b[0]);
      expect([bench.load(mm, start), bench.load(mm, own)]).toEqual([1, 9]);
    }));

  it('truncate, while a fault waits for the page: SIGBUS, for a load and for a private store', () =>
    withFile(addressing, filledPages(2), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 2);
      const own = mapFile(bench, mm, file, 2, { shared: false });
      bench.preemption.on = true;
      const reader = fileRead(bench.kernel, file, PAGE, 1);
      step(reader);
      bench.preemption.on = false;
      const load = loadTask(bench, mm, at(start, 1), new Uint8Array(1));
      const store = copyToUser(bench.kernel, mm, at(own, 1), Uint8Array.of(9));
      for (const task of [load, store]) expect(runUntilBlocked(task)).toMatch(/lock of page/);
      const truncate = fileTruncate(bench.kernel, file, PAGE);
      expect(runUntilBlocked(truncate)).toMatch(/lock of page/);
      const [bytes, loaded, saved] = runAll(reader, load, store, truncate);
      expect((bytes as Uint8Array).length).toBe(0);
      expect([loaded, saved]).toEqual([
        expect.objectContaining({ fault: VM_FAULT_SIGBUS }),
        expect.objectContaining({ fault: VM_FAULT_SIGBUS }),
      ]);
      expect(file.pages.size).toBe(0);
    }));

  it('a store during write-back makes the page dirty once more', () =>
    withFile(addressing, filledPages(1), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 1);
      bench.store(mm, start, 50);
      bench.preemption.on = true;
      const sync = fileSync(bench.kernel, file);
      expect(step(sync)).toBe(true);
      bench.preemption.on = false;
      const page = file.pages.get(0)!;
      expect(bench.field(page, 'flags') & (PG_writeback | PG_dirty)).toBe(PG_writeback);
      expect(pteWrite(bench.pte(mm, start))).toBe(false);
      bench.store(mm, start, 51);
      // A second one waits for the first, and writes what came after it.
      const again = fileSync(bench.kernel, file);
      expect(runUntilBlocked(again)).toMatch(/write-back of page/);
      // Truncate waits as well: the disk must not get back what it has given up.
      const truncate = fileTruncate(bench.kernel, file, 0);
      expect(runUntilBlocked(truncate)).toMatch(/lock of page|write-back of page/);
      runAll(sync, again, truncate);
      expect([...file.store.bytes(0, 1)]).toEqual([0]);
      expect(file.size).toBe(0);
    }));

  it('truncate waits for write-back, or the disk would get back what it has given up', () =>
    withFile(addressing, filledPages(1), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 1);
      bench.store(mm, start, 50);
      bench.preemption.on = true;
      const sync = fileSync(bench.kernel, file);
      expect(step(sync)).toBe(true);
      bench.preemption.on = false;
      const truncate = fileTruncate(bench.kernel, file, 0);
      expect(runUntilBlocked(truncate)).toMatch(/write-back of page/);
      const longer = fileTruncate(bench.kernel, file, PAGE);
      expect(runUntilBlocked(longer)).toMatch(/lock of file/);
      runAll(truncate, longer, sync);
      expect([...file.store.bytes(0, 1), bench.load(mm, start)]).toEqual([0, 0]);
    }));

  it('write-back follows a mapping that moves while a device forgets the page', () =>
    withFile(addressing, filledPages(1), (bench, file) => {
      const [first, second] = [bench.mm(), bench.mm()];
      const mirror = slowMirror(first);
      const one = mapFile(bench, first, file, 1);
      const two = mapFile(bench, second, file, 1);
      bench.store(first, one, 50);
      bench.store(second, two, 51);
      const sync = fileSync(bench.kernel, file);
      expect(runUntilBlocked(sync)).toBe('the slow mirror');
      const to = (two - 2 ** 22) as VirtAddr;
      expect(run(doMremap(bench.kernel, second, two, PAGE, PAGE, { maymove: true, fixedAt: to }))).toBe(to);
      mirror.gate.open = true;
      run(sync);
      expect([pteWrite(bench.pte(first, one)), pteWrite(bench.pte(second, to))]).toEqual([false, false]);
      bench.store(second, to, 60);
      expect(bench.field(file.pages.get(0)!, 'flags') & PG_dirty).not.toBe(0);
      mirror.close();
    }));

  it('write-back finds a page that came to a mapping which it has seen already', () =>
    withFile(addressing, filledPages(2), (bench, file) => {
      const [first, second] = [bench.mm(), bench.mm()];
      const seen = mapFile(bench, second, file, 2);
      const mirror = slowMirror(first);
      const slow = mapFile(bench, first, file, 1, { pgoff: 1 });
      const mover = mapFile(bench, second, file, 1, { pgoff: 1 });
      bench.store(first, slow, 50);
      bench.store(second, mover, 51);
      const sync = fileSync(bench.kernel, file);
      expect(runUntilBlocked(sync)).toBe('the slow mirror');
      // To where `seen` maps the same page; the two become one mapping.
      const flags = { maymove: true, fixedAt: at(seen, 1) };
      expect(run(doMremap(bench.kernel, second, mover, PAGE, PAGE, flags))).toBe(at(seen, 1));
      expect([...second.vmas].length).toBe(1);
      expect(pteWrite(bench.pte(second, at(seen, 1)))).toBe(true);
      mirror.gate.open = true;
      run(sync);
      expect(pteWrite(bench.pte(second, at(seen, 1)))).toBe(false);
      mirror.close();
    }));

  it('a child that is forked while truncate waits for a device keeps nothing either', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const mm = bench.mm();
      const own = mapFile(bench, mm, file, 4, { shared: false });
      const shared = mapFile(bench, mm, file, 4);
      for (let i = 0; i < 4; i++) bench.store(mm, at(own, i), 50 + i);
      bench.store(mm, at(shared, 2), 9);
      const mirror = slowMirror(mm);
      const truncate = fileTruncate(bench.kernel, file, PAGE);
      expect(runUntilBlocked(truncate)).toBe('the slow mirror');
      const fork = forkMm(bench.kernel, mm, 77);
      expect(runUntilBlocked(fork)).toBe('the slow mirror');
      mirror.gate.open = true;
      const [, child] = runAll(truncate, fork) as [undefined, MmStruct];
      for (const each of [mm, child]) {
        expect([0, 1, 2, 3].map((i) => bench.kind(each, at(own, i)))).toEqual(['present', 'none', 'none', 'none']);
        expect(bench.store(each, at(own, 1), 1).fault).toBe(VM_FAULT_SIGBUS);
      }
      expect(file.pages.size).toBe(1);
      mirror.close();
    }));

  it('a mapping that goes while truncate waits to take its pages', () =>
    withFile(addressing, filledPages(4), (bench, file) => {
      const mm = bench.mm();
      const start = mapFile(bench, mm, file, 4);
      bench.store(mm, at(start, 2), 50);
      const mirror = slowMirror(mm);
      const truncate = fileTruncate(bench.kernel, file, PAGE);
      expect(runUntilBlocked(truncate)).toBe('the slow mirror');
      // Still in the cache, and yet behind the end.
      const other = bench.mm();
      const elsewhere = mapFile(bench, other, file, 4);
      expect(file.pages.has(2)).toBe(true);
      expect(() => bench.load(other, at(elsewhere, 2))).toThrow(`fault ${VM_FAULT_SIGBUS}`);
      const unmap = doMunmap(bench.kernel, mm, start, 4 * PAGE);
      expect(runUntilBlocked(unmap)).toBe('the slow mirror');
      mirror.gate.open = true;
      runAll(unmap, truncate);
      expect([mm.rssFile, [...mm.vmas].length, file.pages.size, other.rssFile]).toEqual([0, 0, 0, 0]);
      mirror.close();
    }));

  it('a page under migration keeps its lock: write-back, truncate and faults wait until it is back', () =>
    withFile(addressing, filledPages(2), (bench, file) => {
      const [mm, other, parent] = [bench.mm(), bench.mm(), bench.mm()];
      const driver = bench.driver();
      const [own, its] = [mm, parent].map((each) => mapFile(bench, each, file, 2, { shared: false })) as [
        VirtAddr,
        VirtAddr,
      ];
      const shared = mapFile(bench, other, file, 2);
      bench.store(other, shared, 50);
      bench.load(mm, own);
      bench.load(parent, its);
      driver.gate.open = false;
      const migration = driver.toDevice(mm, own, 2);
      expect(runUntilBlocked(migration)).toBe('the copy');
      expect([bench.kind(mm, own), bench.kind(other, shared)]).toEqual(['migration-read', 'migration-write']);
      const tasks = [
        fileSync(bench.kernel, file),
        fileWrite(bench.kernel, file, 1, Uint8Array.of(51)),
        copyToUser(bench.kernel, other, shared, Uint8Array.of(60)),
      ];
      for (const task of tasks) expect(runUntilBlocked(task)).toMatch(/page/);
      // Reads through the cache need no lock, and a child takes the entries as they are.
      expect(run(fileRead(bench.kernel, file, 0, 1))).toEqual(Uint8Array.of(50));
      bench.store(parent, at(its, 1), 9);
      const child = run(forkMm(bench.kernel, parent, 77))!;
      expect([child.rssAnon, child.rssFile, bench.kind(child, its)]).toEqual([1, 1, 'migration-read']);
      driver.gate.open = true;
      runAll(migration, ...tasks);
      expect([bench.kind(mm, own), bench.kind(child, its)]).toEqual(['present', 'present']);
      expect([bench.load(mm, own), bench.load(child, its + 1), driver.used]).toEqual([60, 51, 0]);
      expect(violations(bench)).toEqual([]);
    }));

  it('truncate under a migration: entries go at once, the page when it is back', () =>
    withFile(addressing, filledPages(2), (bench, file) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const own = mapFile(bench, mm, file, 2, { shared: false });
      bench.load(mm, own);
      bench.store(mm, at(own, 1), 9);
      driver.gate.open = false;
      const migration = driver.toDevice(mm, own, 2);
      expect(runUntilBlocked(migration)).toBe('the copy');
      const truncate = fileTruncate(bench.kernel, file, 0);
      expect(runUntilBlocked(truncate)).toMatch(/lock of page/);
      expect([mm.rssAnon, mm.rssFile]).toEqual([0, 0]);
      driver.gate.open = true;
      runAll(migration, truncate);
      expect([driver.used, file.pages.size, bench.kind(mm, own), bench.kind(mm, at(own, 1))]).toEqual([
        0,
        0,
        'none',
        'none',
      ]);
    }));

  it('msync holds the file that its mapping lets go', () =>
    withFile(addressing, filledPages(1), (bench, file) => {
      const mm = createMm(bench.kernel, 5)!;
      const start = mapFile(bench, mm, file, 1);
      bench.store(mm, start, 50);
      bench.preemption.on = true;
      const msync = doMsync(bench.kernel, mm, start, PAGE);
      expect(step(msync)).toBe(true);
      bench.preemption.on = false;
      run(doMunmap(bench.kernel, mm, start, PAGE));
      file.users++;
      vmFilePut(bench.kernel, file);
      expect(file.users).toBe(2);
      expect(run(msync)).toBe(0);
      expect([file.users, ...file.store.bytes(0, 1)]).toEqual([1, 50]);
    }));

  it('pwrite and truncate take turns', () =>
    withFile(addressing, 0, (bench, file) => {
      bench.preemption.on = true;
      const write = fileWrite(bench.kernel, file, 0, filledPages(2));
      step(write);
      const truncate = fileTruncate(bench.kernel, file, PAGE);
      expect(runUntilBlocked(truncate)).toMatch(/lock of file/);
      runAll(write, truncate);
      expect([file.size, file.pages.size]).toEqual([PAGE, 1]);
      bench.preemption.on = false;
    }));
});
