/** System calls with ranges that are no ranges: what they say, and what they have done all the same. As recorded from Linux. */
import { describe, expect, it } from 'vitest';
import { TASK_SIZE } from '#src/abi/address';
import type { VirtAddr } from '#src/base/brand';
import type { DriverMirror } from '#src/drivers/driver';
import { bootWithState } from '#src/machine/boot';
import { doMadvise } from '#src/mm/madvise';
import { doMlock, doMunlock } from '#src/mm/mlock';
import { mmOfPid } from '#src/mm/mm-struct';
import { doMmap } from '#src/mm/mmap';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { doMsync } from '#src/mm/page-writeback';
import { createUserfaultfd, userfaultfdRegister } from '#src/mm/userfaultfd';
import { VM_LOCKED, VM_MIXEDMAP, VM_NOHUGEPAGE, VM_UFFD_WP, VM_WRITE, vmaLookup } from '#src/mm/vma';
import type { Sleeps } from '#src/sync/task';
import { type Bench, describeEach, PAGE, run, withKernel } from './mm-fixture';

const BASE = 2 ** 44;
const WRAPPING = 2 ** 64 - PAGE;
const at = (page: number, bytes = 0): VirtAddr => (BASE + page * PAGE + bytes) as VirtAddr;

/** Four pages. */
function fourPages(bench: Bench) {
  const mm = bench.mm();
  bench.mmap(mm, 4, 'rw', BASE);
  return { kernel: bench.kernel, mm, flags: () => vmaLookup(mm, BASE)!.flags };
}

describeEach('ranges beyond the end of the address space', (addressing) => {
  it('mprotect, mlock, munlock: up to the hole they are done', () =>
    withKernel(addressing, (bench) => {
      const { kernel, mm, flags } = fourPages(bench);
      expect(run(doMprotect(kernel, mm, at(0), 2 ** 52, 'r'))).toBe('ENOMEM');
      expect(flags() & VM_WRITE).toBe(0);
      expect(run(doMlock(kernel, mm, at(0), 2 ** 52, true))).toBe('ENOMEM');
      expect(flags() & VM_LOCKED).toBe(VM_LOCKED);
      expect(run(doMunlock(kernel, mm, at(0), 2 ** 52))).toBe('ENOMEM');
      expect(flags() & VM_LOCKED).toBe(0);
    }));

  it('madvise, msync: what is mapped is done', () =>
    withKernel(addressing, (bench) => {
      const { kernel, mm, flags } = fourPages(bench);
      expect(run(doMadvise(kernel, mm, at(0), 2 ** 52, 'NOHUGEPAGE'))).toBe('ENOMEM');
      expect(flags() & VM_NOHUGEPAGE).toBe(VM_NOHUGEPAGE);
      expect(run(doMsync(kernel, mm, at(0), 2 ** 52))).toBe('ENOMEM');
    }));

  it('madvise HWPOISON: a page that is nowhere is EFAULT', () =>
    withKernel(addressing, (bench) => {
      const { kernel, mm } = fourPages(bench);
      expect(run(doMadvise(kernel, mm, TASK_SIZE as VirtAddr, PAGE, 'HWPOISON'))).toBe('EFAULT');
    }));

  it('mmap: room comes before alignment', () =>
    withKernel(addressing, (bench) => {
      const { kernel, mm } = fourPages(bench);
      const map = (addr: number) =>
        run(doMmap(kernel, mm, { addr: addr as VirtAddr, length: PAGE, prot: 'rw', fixed: true }));
      expect([map(TASK_SIZE + 1), map(TASK_SIZE), map(BASE + 1)]).toEqual(['ENOMEM', 'ENOMEM', 'EINVAL']);
    }));

  it('mremap: nothing shrinks from beyond it, but the place is clear by then', () =>
    withKernel(addressing, (bench) => {
      const { kernel, mm } = fourPages(bench);
      bench.mmap(mm, 1, 'rw', at(8));
      expect(run(doMremap(kernel, mm, at(0), 2 ** 47, PAGE, { maymove: false }))).toBe('EINVAL');
      expect(mm.vmas.size).toBe(2);
      expect(run(doMremap(kernel, mm, at(0), 2 ** 47, PAGE, { maymove: true, fixedAt: at(8) }))).toBe('EINVAL');
      expect(mm.vmas.size).toBe(2);
      expect(run(doMremap(kernel, mm, at(0), WRAPPING, PAGE, { maymove: true, fixedAt: at(8) }))).toBe('EINVAL');
      expect(mm.vmas.size).toBe(1);
    }));

  it('mremap: below the lowest address that may be mapped is EPERM, once there is something to move', () =>
    withKernel(addressing, (bench) => {
      const { kernel, mm } = fourPages(bench);
      const low = { maymove: true, fixedAt: 0 as VirtAddr };
      expect(run(doMremap(kernel, mm, at(20), PAGE, PAGE, low))).toBe('EFAULT');
      expect(run(doMremap(kernel, mm, at(0), PAGE, PAGE, low))).toBe('EPERM');
    }));
});

describeEach('ranges that wrap', (addressing) => {
  it('are ENOMEM to mprotect and msync, EINVAL to madvise, mlock and munlock', () =>
    withKernel(addressing, (bench) => {
      const { kernel, mm, flags } = fourPages(bench);
      const before = flags();
      expect(run(doMprotect(kernel, mm, at(0), WRAPPING, 'r'))).toBe('ENOMEM');
      expect(run(doMsync(kernel, mm, at(0), WRAPPING))).toBe('ENOMEM');
      expect(run(doMadvise(kernel, mm, at(0), WRAPPING, 'NOHUGEPAGE'))).toBe('EINVAL');
      expect(run(doMlock(kernel, mm, at(0), WRAPPING, true))).toBe('EINVAL');
      expect(run(doMunlock(kernel, mm, at(0), WRAPPING))).toBe('EINVAL');
      expect(flags()).toBe(before);
    }));

  it('mlock from inside of a page: one page more, and of that much none is left', () =>
    withKernel(addressing, (bench) => {
      const { kernel, mm, flags } = fourPages(bench);
      expect(run(doMlock(kernel, mm, at(0, 8), WRAPPING, true))).toBe(0);
      expect(flags() & VM_LOCKED).toBe(0);
      expect(run(doMlock(kernel, mm, at(0, 8), 0, true))).toBe(0);
      expect([...mm.vmas].map(({ value }) => value.flags & VM_LOCKED)).toEqual([VM_LOCKED, 0]);
    }));
});

describeEach('userfaultfd', (addressing) => {
  it('registers from the first address on, and what a driver maps by itself not at all', () =>
    withKernel(addressing, (bench) => {
      const { kernel, mm, flags } = fourPages(bench);
      const uffd = createUserfaultfd(mm, { wpAsync: true });
      vmaLookup(mm, BASE)!.flags |= VM_MIXEDMAP;
      expect(run(userfaultfdRegister(kernel, uffd, 0 as VirtAddr, BASE + PAGE))).toBe('EINVAL');
      vmaLookup(mm, BASE)!.flags &= ~VM_MIXEDMAP;
      expect(run(userfaultfdRegister(kernel, uffd, 0 as VirtAddr, BASE + PAGE))).toBe(0);
      expect(flags() & VM_UFFD_WP).toBe(VM_UFFD_WP);
    }));
});

describe.each(['legacy', 'offset'] as const)('ioctls of the test driver (%s)', (addressing) => {
  const mirrored = async (body: (mirror: DriverMirror, call: <T>(task: Sleeps<T>) => Promise<T>) => Promise<void>) => {
    const { machine, state } = await bootWithState({ addressing, executor: 'inline' }, []);
    const process = await machine.process();
    await process.mmap({ at: BASE, length: 4 * PAGE });
    await process.write(BASE, new Uint8Array(4 * PAGE).fill(1));
    const call = <T>(task: Sleeps<T>): Promise<T> => state.executor.run('call', task);
    const mirror = await call(
      state.devices[0]!.driver.open(mmOfPid(state.kernel, process.pid)!, { onFault: 'mirror' }),
    );
    await body(mirror, call);
    await call(mirror.close());
    await machine.dispose();
  };

  it.each([
    ['in the middle of a page', at(0, 8), 2],
    ['of no pages', at(0), 0],
    ['that wraps', at(0), WRAPPING / PAGE],
  ])('a range %s is EINVAL, before anything is done', (_, start, pages) =>
    mirrored(async (mirror, call) => {
      const end = (start + pages * PAGE) as VirtAddr;
      expect((await call(mirror.migrateToDevice(start, end))).errno).toBe('EINVAL');
      expect((await call(mirror.migrateToSystem(start, end))).errno).toBe('EINVAL');
      expect((await call(mirror.deviceRead(start, pages))).errno).toBe('EINVAL');
      expect((await call(mirror.deviceWrite(start, pages, []))).errno).toBe('EINVAL');
      expect((await call(mirror.exclusive(start, pages))).errno).toBe('EINVAL');
      expect(mirror.checkExclusive(start, pages)).toBe('EINVAL');
      expect(await call(mirror.snapshot(start, end))).toBe('EINVAL');
      expect((await call(mirror.deviceRead(at(0), 4))).faults).toBe(1);
    }),
  );

  it('behind the end of the address space nothing is mapped, and a snapshot shows it', () =>
    mirrored(async (mirror, call) => {
      const [start, end] = [TASK_SIZE as VirtAddr, (TASK_SIZE + 2 * PAGE) as VirtAddr];
      expect(await call(mirror.snapshot(start, end))).toEqual(Uint8Array.of(255, 255));
      expect((await call(mirror.migrateToDevice(start, end))).errno).toBe('EINVAL');
      expect((await call(mirror.deviceRead(start, 2))).errno).toBe('EFAULT');
      expect((await call(mirror.exclusive(start, 2))).errno).toBe('EFAULT');
      expect(mirror.checkExclusive(start, 2)).toBe(0);
    }));
});
