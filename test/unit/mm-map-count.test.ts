/** vm.max_map_count: what would make one mapping too many fails, and what it had done before stays. */
import { expect, it } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { boot } from '#src/check/boot';
import type { Kernel } from '#src/mm/kernel';
import { doMadvise } from '#src/mm/madvise';
import { doMlock } from '#src/mm/mlock';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap, type Protection } from '#src/mm/mmap';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { createUserfaultfd, userfaultfdRegister, userfaultfdUnregister } from '#src/mm/userfaultfd';
import { type Bench, describeEach, PAGE, run, withKernel } from './mm-fixture';

const BASE = 2 ** 30;
const page = (at: number): VirtAddr => (BASE + at * PAGE) as VirtAddr;

/** A process with ten pages, and calls on some of them. */
function tenPages(bench: Bench) {
  const { kernel } = bench;
  const mm = bench.mm();
  bench.mmap(mm, 10, 'rw', BASE);
  return {
    mm,
    protect: (at: number, pages: number, prot: Protection = 'r') =>
      run(doMprotect(kernel, mm, page(at), pages * PAGE, prot)),
    unmap: (at: number, pages: number) => run(doMunmap(kernel, mm, page(at), pages * PAGE)),
    map: (at: number, pages: number) =>
      run(doMmap(kernel, mm, { addr: page(at), length: pages * PAGE, prot: 'none', fixed: true })),
    move: (at: number, pages: number, to: number, dontunmap = false) =>
      run(doMremap(kernel, mm, page(at), pages * PAGE, pages * PAGE, { maymove: true, fixedAt: page(to), dontunmap })),
  };
}

const limit = (kernel: Kernel, mappings: number): void => {
  kernel.maxMapCount = mappings;
};
const ranges = (mm: MmStruct): [number, number][] =>
  [...mm.vmas].map(({ start, end }) => [(start - BASE) / PAGE, (end - start) / PAGE]);

describeEach('max_map_count', (addressing) => {
  it('is 65530, unless the machine says otherwise', async () => {
    withKernel(addressing, ({ kernel }) => expect(kernel.maxMapCount).toBe(65530));
    const machine = await boot({ addressing, executor: 'inline', maxMapCount: 2 });
    const process = await machine.process();
    const { start } = await process.mmap({ length: 10 * PAGE });
    const inside = { start: (start + 2 * PAGE) as VirtAddr, length: PAGE };
    await expect(process.mprotect(inside, 'r')).rejects.toMatchObject({ code: 'ERR_PFNLESS_ERRNO', errno: 'ENOMEM' });
    await expect(process.madvise(inside, 'NOHUGEPAGE')).rejects.toMatchObject({ errno: 'EAGAIN' });
    await expect(process.munmap(inside)).resolves.toBeUndefined();
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  });

  it('mprotect: the first of two splits stays when there is no room for the second', () =>
    withKernel(addressing, (bench) => {
      const { mm, protect } = tenPages(bench);
      limit(bench.kernel, 1);
      expect([protect(2, 2), protect(0, 2), ranges(mm)]).toEqual(['ENOMEM', 'ENOMEM', [[0, 10]]]);
      limit(bench.kernel, 2);
      expect([protect(2, 2), ranges(mm)]).toEqual([
        'ENOMEM',
        [
          [0, 2],
          [2, 8],
        ],
      ]);
      limit(bench.kernel, 3);
      expect([protect(2, 2), mm.vmas.size]).toEqual([0, 3]);
    }));

  it('mprotect: what becomes part of its neighbour needs no room', () =>
    withKernel(addressing, (bench) => {
      const { mm, protect } = tenPages(bench);
      protect(0, 2);
      limit(bench.kernel, 2);
      expect([protect(2, 3), protect(6, 2), protect(4, 1, 'rw'), ranges(mm)]).toEqual([
        ...[0, 'ENOMEM', 0],
        [
          [0, 4],
          [4, 6],
        ],
      ]);
    }));

  it('mmap may go one beyond it; munmap and mmap inside of a mapping may not make two of it', () =>
    withKernel(addressing, (bench) => {
      const { mm, map, unmap } = tenPages(bench);
      limit(bench.kernel, 1);
      expect([unmap(2, 2), map(2, 2), mm.vmas.size]).toEqual(['ENOMEM', 'ENOMEM', 1]);
      expect([map(20, 1), map(30, 1), mm.vmas.size]).toEqual([page(20), 'ENOMEM', 2]);
      expect([unmap(0, 2), unmap(9, 1), unmap(20, 1), ranges(mm)]).toEqual([0, 0, 0, [[2, 7]]]);
    }));

  it('mlock says ENOMEM, madvise EAGAIN, and so do userfaultfds', () =>
    withKernel(addressing, (bench) => {
      const { mm } = tenPages(bench);
      const { kernel } = bench;
      const uffd = createUserfaultfd(mm, {});
      limit(kernel, 1);
      expect(run(doMlock(kernel, mm, page(2), PAGE, true))).toBe('ENOMEM');
      expect(run(doMadvise(kernel, mm, page(0), PAGE, 'NOHUGEPAGE'))).toBe('EAGAIN');
      expect(run(userfaultfdRegister(kernel, uffd, page(0), PAGE))).toBe('ENOMEM');
      expect(run(userfaultfdRegister(kernel, uffd, page(0), 10 * PAGE))).toBe(0);
      expect(run(userfaultfdUnregister(kernel, uffd, page(0), PAGE))).toBe('ENOMEM');
      expect(mm.vmas.size).toBe(1);
    }));

  it('mremap wants room for four more before it looks at anything, and then for two', () =>
    withKernel(addressing, (bench) => {
      const { mm, move } = tenPages(bench);
      limit(bench.kernel, 4);
      expect([move(2, 2, 20), move(50, 1, 60)]).toEqual(['ENOMEM', 'ENOMEM']);
      limit(bench.kernel, 5);
      expect([move(50, 1, 60), move(2, 2, 20, true)]).toEqual(['EFAULT', 'ENOMEM']);
      expect([move(2, 2, 20), ranges(mm)]).toEqual([
        page(20),
        [
          [0, 2],
          [4, 6],
          [20, 2],
        ],
      ]);
    }));
});
