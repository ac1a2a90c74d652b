/** Shared anonymous memory: an object that every mapping sees, and that goes with the last. */
import { expect, it } from 'vitest';
import { VM_FAULT_SIGBUS, VM_FAULT_SIGSEGV } from '#src/abi/errno';
import { PTE_ACCESSED, PTE_MKDIRTY, PTE_PRESENT, PTE_USER, PTE_WRITE } from '#src/abi/pte';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { VirtAddr } from '#src/base/brand';
import { vmFileGet } from '#src/mm/filemap';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap, type Protection } from '#src/mm/mmap';
import { VmArea, vmaLookup } from '#src/mm/vma';
import { type Bench, describeEach, PAGE, refCount, run, runUntilBlocked, withKernel } from './mm-fixture';

const READ = PTE_PRESENT | PTE_USER | PTE_ACCESSED;

function mapShared(bench: Bench, mm: MmStruct, pages: number, prot: Protection = 'rw'): VirtAddr {
  const start = run(doMmap(bench.kernel, mm, { length: pages * PAGE, prot, fixed: false, kind: 'shared' }));
  if (typeof start === 'string') throw new Error(start);
  return start;
}

/** What fork does with a shared VMA: the same object, and no entries. */
function inherit(child: MmStruct, vma: VmArea): void {
  vmFileGet(vma.file);
  child.vmas.insert(vma.start, vma.end, new VmArea(child, vma.start, vma.end, vma.flags, vma.pgoff, vma.file));
}

describeEach('shared anonymous memory', (addressing) => {
  it('a read maps a page writable and clean, a write dirties page and entry', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = mapShared(bench, mm, 4);
      expect(bench.load(mm, at)).toBe(0);
      expect(bench.pte(mm, at) & 0xfffn).toBe(READ | PTE_WRITE);
      expect(bench.field(bench.page(mm, at), 'flags') & PAGE_FLAGS.PG_dirty).toBe(0);
      bench.store(mm, at + PAGE, 3);
      expect(bench.pte(mm, at + PAGE) & 0xfffn).toBe(READ | PTE_WRITE | PTE_MKDIRTY);
      const page = bench.page(mm, at + PAGE);
      expect(bench.field(page, 'flags') & PAGE_FLAGS.PG_dirty).not.toBe(0);
      expect({ refs: refCount(bench.kernel, page), mapcount: bench.field(page, 'mapcount') + 1 }).toEqual({
        refs: 2,
        mapcount: 1,
      });
      expect({ anon: mm.rssAnon, shmem: mm.rssShmem }).toEqual({ anon: 0, shmem: 2 });
    }));

  it('two processes see one memory; it lives as long as one of them maps it', () =>
    withKernel(addressing, (bench) => {
      const [parent, child] = [bench.mm(), bench.mm()];
      const free = bench.free;
      const at = mapShared(bench, parent, 40);
      for (let i = 0; i < 40; i++) bench.store(parent, at + i * PAGE, i + 1);
      inherit(child, vmaLookup(parent, at)!);
      bench.store(child, at, 99);
      expect(bench.load(parent, at)).toBe(99);
      expect(bench.page(parent, at)).toBe(bench.page(child, at));
      expect(refCount(bench.kernel, bench.page(child, at))).toBe(3);
      // A write maps its page alone, a read what is there of the 64 KiB around.
      expect(child.rssShmem).toBe(1);
      expect(bench.load(child, at + 20 * PAGE)).toBe(21);
      expect(child.rssShmem).toBeGreaterThan(1);
      expect(child.rssShmem).toBeLessThanOrEqual(1 + 16);

      run(doMunmap(bench.kernel, parent, at, 40 * PAGE));
      expect({ rss: parent.rssShmem, files: [...bench.kernel.files].length }).toEqual({ rss: 0, files: 1 });
      expect(bench.load(child, at + 39 * PAGE)).toBe(40);
      run(doMunmap(bench.kernel, child, at, 40 * PAGE));
      expect([...bench.kernel.files]).toEqual([]);
      expect(bench.free).toBe(free);
    }));

  it('unmapping a part keeps the contents of the object', () =>
    withKernel(addressing, (bench) => {
      const [mm, other] = [bench.mm(), bench.mm()];
      const at = mapShared(bench, mm, 6);
      inherit(other, vmaLookup(mm, at)!);
      for (let i = 0; i < 6; i++) bench.store(mm, at + i * PAGE, i + 1);
      run(doMunmap(bench.kernel, mm, (at + 2 * PAGE) as VirtAddr, 2 * PAGE));
      expect([...bench.kernel.files].map((file) => file.users)).toEqual([3]);
      expect(mm.rssShmem).toBe(4);
      expect([2, 3].map((i) => bench.load(other, at + i * PAGE))).toEqual([3, 4]);
      expect([0, 1, 4, 5].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 2, 5, 6]);
    }));

  it('protection and the end of the object', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = mapShared(bench, mm, 2, 'r');
      expect(bench.load(mm, at)).toBe(0);
      expect(bench.pte(mm, at) & 0xfffn).toBe(READ);
      expect(bench.store(mm, at, 1).fault).toBe(VM_FAULT_SIGSEGV);
      const vma = vmaLookup(mm, at)!;
      const longer = mm.vmas.highestGap(4 * PAGE, 0x10000, 2 ** 40, PAGE)! as VirtAddr;
      vmFileGet(vma.file);
      const end = (longer + 4 * PAGE) as VirtAddr;
      mm.vmas.insert(longer, end, new VmArea(mm, longer, end, vma.flags | 2, 0, vma.file));
      expect(bench.store(mm, longer + PAGE, 1).fault).toBe(0);
      expect(bench.store(mm, longer + 2 * PAGE, 1).fault).toBe(VM_FAULT_SIGBUS);
    }));

  it('is collected, wherever it is mapped, and always goes back to where it was', () =>
    withKernel(addressing, (bench) => {
      const [mm, other] = [bench.mm(), bench.mm()];
      const driver = bench.driver();
      const at = mapShared(bench, mm, 3);
      inherit(other, vmaLookup(mm, at)!);
      bench.store(mm, at, 7);
      bench.store(mm, at + PAGE, 8);
      bench.load(other, at);
      const before = [mm, other].flatMap((each) => [bench.pte(each, at), bench.pte(each, at + PAGE)]);
      driver.gate.open = false;
      const migration = driver.toDevice(mm, at, 3);
      expect(runUntilBlocked(migration)).toBe('the copy');
      // A page for each was asked for, as Linux does: only the next step finds that they cannot move.
      expect(driver.used).toBe(2);
      expect([bench.kind(mm, at), bench.kind(other, at)]).toEqual(['migration-write', 'migration-write']);
      driver.gate.open = true;
      expect(run(migration)).toBe(0);
      expect(driver.used).toBe(0);
      expect([mm, other].flatMap((each) => [bench.pte(each, at), bench.pte(each, at + PAGE)])).toEqual(before);
      expect(bench.field(bench.page(mm, at), 'flags') & PAGE_FLAGS.PG_anon_exclusive).toBe(0);
      expect(refCount(bench.kernel, bench.page(mm, at))).toBe(3);
      expect([mm.rssShmem, other.rssShmem]).toEqual([2, 2]);
    }));

  it('a mapping that goes in the middle of a migration', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = mapShared(bench, mm, 2);
      bench.store(mm, at, 7);
      driver.gate.open = false;
      const src = driver.toDevice(mm, at, 2);
      expect(runUntilBlocked(src)).toBe('the copy');
      const other = bench.mm();
      inherit(other, vmaLookup(mm, at)!);
      expect(bench.load(other, at + PAGE)).toBe(0);
      run(doMunmap(bench.kernel, other, at, 2 * PAGE));
      driver.gate.open = true;
      expect(run(src)).toBe(0);
      expect(bench.load(mm, at)).toBe(7);
    }));

  it('never migrates', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const driver = bench.driver();
      const at = mapShared(bench, mm, 4);
      bench.store(mm, at, 7);
      expect(run(driver.toDevice(mm, at, 4))).toBe(0);
      expect(bench.kind(mm, at)).toBe('present');
      expect(bench.kind(mm, at + PAGE)).toBe('none');
      expect(bench.load(mm, at)).toBe(7);
      expect(refCount(bench.kernel, bench.page(mm, at))).toBe(2);
    }));
});
