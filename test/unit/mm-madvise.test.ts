/** madvise: dropping pages, and advice that only VMAs remember. */
import { expect, it } from 'vitest';
import type { Result } from '#src/abi/errno';
import { PTE_ACCESSED, pteDirty } from '#src/abi/pte';
import type { VirtAddr } from '#src/base/brand';
import { forkMm } from '#src/mm/fork';
import { type Advice, doMadvise } from '#src/mm/madvise';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap } from '#src/mm/mmap';
import { VM_HUGEPAGE, VM_NOHUGEPAGE } from '#src/mm/vma';
import { type Bench, describeEach, PAGE, run, withKernel } from './mm-fixture';

const advise = (bench: Bench, mm: MmStruct, at: number, pages: number, advice: Advice): Result =>
  run(doMadvise(bench.kernel, mm, at as VirtAddr, pages * PAGE, advice));

describeEach('madvise', (addressing) => {
  it('DONTNEED drops pages wherever they are', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      const driver = bench.driver();
      for (let i = 0; i < 4; i++) bench.store(mm, at + i * PAGE, i + 1);
      run(driver.toDevice(mm, at, 2));
      expect(advise(bench, mm, at + PAGE, 2, 'DONTNEED')).toBe(0);
      expect([mm.rssAnon, driver.used, bench.kind(mm, at + PAGE)]).toEqual([2, 1, 'none']);
      expect([0, 1, 2, 3].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 0, 0, 4]);
    }));

  it('DONTNEED across a hole: ENOMEM, and what is mapped is dropped', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      for (let i = 0; i < 4; i++) bench.store(mm, at + i * PAGE, i + 1);
      run(doMunmap(bench.kernel, mm, (at + PAGE) as VirtAddr, PAGE));
      expect(advise(bench, mm, at, 4, 'DONTNEED')).toBe('ENOMEM');
      expect(mm.rssAnon).toBe(0);
      expect(advise(bench, mm, at + PAGE, 1, 'DONTNEED')).toBe('ENOMEM');
      expect(advise(bench, mm, at + 1, 1, 'DONTNEED')).toBe('EINVAL');
      expect(advise(bench, mm, at + PAGE, 0, 'DONTNEED')).toBe(0);
    }));

  it('FREE makes pages of one user clean, leaves shared and device pages', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 3);
      const driver = bench.driver();
      for (let i = 0; i < 3; i++) bench.store(mm, at + i * PAGE, i + 1);
      run(driver.toDevice(mm, at, 1));
      expect(advise(bench, mm, at, 2, 'FREE')).toBe(0);
      const pte = bench.pte(mm, at + PAGE);
      expect([pte & PTE_ACCESSED, pteDirty(pte), bench.kind(mm, at)]).toEqual([0n, false, 'device-private-write']);
      bench.store(mm, at + PAGE, 9);
      expect(pteDirty(bench.pte(mm, at + PAGE))).toBe(true);
      // Dirty by its flag, and somebody else's as well.
      run(driver.toSystem(mm, at, 1));
      run(forkMm(bench.kernel, mm, 50));
      const before = bench.pte(mm, at);
      expect(advise(bench, mm, at, 3, 'FREE')).toBe(0);
      expect([bench.pte(mm, at), bench.load(mm, at), bench.load(mm, at + PAGE)]).toEqual([before, 1, 9]);
    }));

  it('FREE is refused for shared memory, COLLAPSE for all', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = run(doMmap(bench.kernel, mm, { length: PAGE, prot: 'rw', fixed: false, kind: 'shared' })) as VirtAddr;
      bench.store(mm, at, 1);
      expect(advise(bench, mm, at, 1, 'FREE')).toBe('EINVAL');
      expect(advise(bench, mm, at, 1, 'COLLAPSE')).toBe('EINVAL');
      expect(advise(bench, mm, at, 1, 'DONTNEED')).toBe(0);
      expect([mm.rssShmem, bench.load(mm, at)]).toEqual([0, 1]);
    }));

  it('HUGEPAGE and NOHUGEPAGE are flags of VMAs, which split and merge by them', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      expect(advise(bench, mm, at + PAGE, 2, 'HUGEPAGE')).toBe(0);
      const flags = (): number[] => [...mm.vmas].map(({ value }) => value.flags & (VM_HUGEPAGE | VM_NOHUGEPAGE));
      expect(flags()).toEqual([0, VM_HUGEPAGE, 0]);
      expect(advise(bench, mm, at, 4, 'NOHUGEPAGE')).toBe(0);
      expect(flags()).toEqual([VM_NOHUGEPAGE]);
      expect(advise(bench, mm, at, 5, 'HUGEPAGE')).toBe('ENOMEM');
      expect(flags()).toEqual([VM_HUGEPAGE]);
    }));
});
