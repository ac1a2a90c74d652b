/** Userfaultfd write protection: the bit in entries of every kind, who is told, who sleeps, and what takes the protection away. */
import { expect, it } from 'vitest';
import { VM_FAULT_SIGBUS } from '#src/abi/errno';
import { HMM_PFN_REQ_FAULT, HMM_PFN_REQ_WRITE, HMM_PFN_VALID, HMM_PFN_WRITE } from '#src/abi/hmm-pfn';
import { PTE_SOFT_DIRTY, PTE_UFFD_WP, PTE_WRITE } from '#src/abi/pte';
import type { VirtAddr } from '#src/base/brand';
import { userfaultfdWp as checker } from '#src/check/userfaultfd-wp';
import type { MachineState } from '#src/machine/state';
import { makeDeviceExclusive } from '#src/mm/device-exclusive';
import { createFile } from '#src/mm/file';
import { vmFilePut } from '#src/mm/filemap';
import { forkMm } from '#src/mm/fork';
import { getUserPages, pinUserPages, putUserPages, unpinUserPages } from '#src/mm/gup';
import { hmmRangeFault } from '#src/mm/hmm';
import { doMunmap } from '#src/mm/mmap';
import {
  mmuIntervalNotifierInsert,
  mmuIntervalNotifierRemove,
  mmuIntervalReadBegin,
  mmuIntervalSetSeq,
} from '#src/mm/mmu-notifier';
import { smapsText } from '#src/mm/proc-smaps';
import { copyToUser } from '#src/mm/uaccess';
import {
  createUserfaultfd,
  releaseUserfaultfd,
  userfaultfdProtect,
  userfaultfdRegister,
  userfaultfdUnregister,
  userfaultfdWake,
} from '#src/mm/userfaultfd';
import type { Userfaultfd } from '#src/mm/userfaultfd-context';
import { vmaLookup } from '#src/mm/vma';
import { folioUnlock } from '#src/sync/page-ref';
import { mapFile } from './file-fixture';
import { describeEach, PAGE, run, runUntilBlocked, withKernel } from './mm-fixture';

import { bits, ELSEWHERE, PLACE, Watched } from './userfaultfd-rig';

describeEach('userfaultfd-wp', (addressing) => {
  it('a store to a protected page sleeps, is told of once, and is made when the page is resolved', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 3);
      expect(w.protect(1, 1)).toBe(0);
      expect(w.protectedPages()).toEqual([0, 1, 0]);
      expect(bench.pte(w.mm, w.addr(1)) & (PTE_WRITE | PTE_UFFD_WP)).toBe(PTE_UFFD_WP);
      // Loads, and stores elsewhere, are nobody's business.
      expect(bench.load(w.mm, w.addr(1))).toBe(2);
      bench.store(w.mm, w.addr(0), 7);
      const store = copyToUser(bench.kernel, w.mm, (w.addr(1) + 8) as VirtAddr, Uint8Array.of(55));
      expect(runUntilBlocked(store)).toContain('userfaultfd');
      expect(w.mm.mmapLock.locked).toBe(false);
      expect(w.uffd.waiting).toBe(1);
      expect(w.uffd.read()).toEqual([{ address: w.addr(1), write: true, wp: true }]);
      expect(w.uffd.read()).toEqual([]);
      expect(w.uffd.waiting).toBe(1);
      expect(bench.load(w.mm, w.addr(1) + 8)).toBe(0);
      const page = bench.page(w.mm, w.addr(1));
      expect(w.resolve(1, 1)).toBe(0);
      expect(run(store)).toMatchObject({ copied: 1, fault: 0 });
      expect(bench.page(w.mm, w.addr(1))).toBe(page);
      expect(bench.load(w.mm, w.addr(1) + 8)).toBe(55);
      expect(w.protectedPages()).toEqual([0, 0, 0]);
      expect(w.uffd.waiting).toBe(0);
      w.check();
    }));

  it('a fault that is woken without being resolved is told of again; DONTWAKE resolves without waking', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 2, { exactAddress: true });
      w.protect();
      const store = copyToUser(bench.kernel, w.mm, (w.at + 5) as VirtAddr, Uint8Array.of(9));
      runUntilBlocked(store);
      expect(w.uffd.read()).toEqual([{ address: w.at + 5, write: true, wp: true }]);
      // Another page's waker leaves it asleep.
      expect(run(userfaultfdWake(w.uffd, w.addr(1), PAGE))).toBe(0);
      expect(runUntilBlocked(store)).toContain('userfaultfd');
      run(userfaultfdWake(w.uffd, w.at, PAGE));
      expect(runUntilBlocked(store)).toContain('userfaultfd');
      expect(w.uffd.read()).toHaveLength(1);
      w.resolve(0, 1, false);
      expect(runUntilBlocked(store)).toContain('userfaultfd');
      run(userfaultfdWake(w.uffd, w.at, PAGE));
      expect(run(store)).toMatchObject({ fault: 0 });
    }));

  it('what can be registered, and what not', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const { kernel } = bench;
      const at = bench.mmap(mm, 4, 'rw', PLACE);
      const readOnly = bench.mmap(mm, 1, 'r', PLACE + 8 * PAGE);
      const [uffd, other] = [createUserfaultfd(mm, {}), createUserfaultfd(mm, {})];
      const register = (ctx: Userfaultfd, start: number, pages: number) =>
        run(userfaultfdRegister(kernel, ctx, start as VirtAddr, pages * PAGE));
      expect(register(uffd, at + 1, 1)).toBe('EINVAL');
      expect(register(uffd, at, 0)).toBe('EINVAL');
      expect(register(uffd, 0, 1)).toBe('EINVAL');
      expect(register(uffd, ELSEWHERE, 4)).toBe('EINVAL');
      // Holes do not matter, and neither does what the mapping allows at the moment.
      expect(register(uffd, at + PAGE, 20)).toBe(0);
      expect(vmaLookup(mm, readOnly)!.userfaultfd).toBe(uffd);
      expect(register(uffd, at + PAGE, 2)).toBe(0);
      expect(register(other, at, 4)).toBe('EBUSY');
      expect(register(other, at, 1)).toBe(0);
      expect(run(userfaultfdUnregister(kernel, uffd, at, 4 * PAGE))).toBe('EINVAL');
      expect(run(userfaultfdProtect(kernel, uffd, ELSEWHERE, PAGE))).toBe('ENOENT');
      expect(smapsText(kernel, mm).match(/ uw /g)).toHaveLength(3);
      expect(run(userfaultfdUnregister(kernel, other, at, PAGE))).toBe(0);
      expect(run(userfaultfdUnregister(kernel, uffd, (at + PAGE) as VirtAddr, 10 * PAGE))).toBe(0);
      // The parts are one mapping again.
      expect([...mm.vmas]).toHaveLength(2);
      const file = createFile(bench.kernel, new Uint8Array(0), PAGE);
      const mapped = mapFile(bench, mm, file, 1);
      expect(register(uffd, mapped, 1)).toBe('EINVAL');
      expect(register(createUserfaultfd(mm, { wpAsync: true }), mapped, 1)).toBe(0);
      vmFilePut(kernel, file);
    }));

  it('protecting stops at what is not registered, with what lies before it done', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4, 'rw', PLACE);
      for (let i = 0; i < 4; i++) bench.store(mm, at + i * PAGE, 1);
      const uffd = createUserfaultfd(mm, {});
      run(userfaultfdRegister(bench.kernel, uffd, at, 2 * PAGE));
      expect(run(userfaultfdProtect(bench.kernel, uffd, at, 4 * PAGE))).toBe('ENOENT');
      expect(bits(bench, mm, at, 4)).toEqual([1, 1, 0, 0]);
      expect(run(userfaultfdUnregister(bench.kernel, uffd, at, 4 * PAGE))).toBe(0);
      expect(bits(bench, mm, at, 4)).toEqual([0, 0, 0, 0]);
      bench.store(mm, at, 2);
    }));

  it('closing wakes everybody and takes every protection away', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 2);
      w.protect();
      const stores = [w.sleeps(0, 41), w.sleeps(1, 42)];
      w.uffd.read();
      run(releaseUserfaultfd(bench.kernel, w.uffd));
      for (const store of stores) expect(run(store)).toMatchObject({ fault: 0 });
      expect([bench.load(w.mm, w.at), bench.load(w.mm, w.addr(1))]).toEqual([41, 42]);
      expect(vmaLookup(w.mm, w.at)!.userfaultfd).toBeNull();
      run(releaseUserfaultfd(bench.kernel, w.uffd));
      w.check();
    }));

  it('unregister takes protection away but leaves those asleep who sleep', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 1);
      w.protect();
      const store = w.sleeps(0);
      run(userfaultfdUnregister(bench.kernel, w.uffd, w.at, PAGE));
      expect(runUntilBlocked(store)).toContain('userfaultfd');
      run(userfaultfdWake(w.uffd, w.at, PAGE));
      expect(run(store)).toMatchObject({ fault: 0 });
    }));

  it('with SIGBUS nobody is told, with WP_ASYNC nobody waits', () =>
    withKernel(addressing, (bench) => {
      const signalled = new Watched(bench, 1, { sigbus: true });
      signalled.protect();
      expect(run(signalled.storing(0, 1))).toMatchObject({ fault: VM_FAULT_SIGBUS });
      expect(signalled.uffd.waiting).toBe(0);
      const w = new Watched(bench, 4, { wpAsync: true });
      w.protect();
      expect(w.protectedPages()).toEqual([1, 1, 1, 1]);
      const page = bench.page(w.mm, w.addr(2));
      bench.store(w.mm, w.addr(2), 3);
      expect(bench.page(w.mm, w.addr(2))).toBe(page);
      // What was written since is what is protected no more.
      expect(w.protectedPages()).toEqual([1, 1, 0, 1]);
      w.protect();
      expect(w.protectedPages()).toEqual([1, 1, 1, 1]);
      w.check();
    }));

  it("hmm_range_fault cannot wait: a device's store fails, its load does not", () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', PLACE);
      bench.store(mm, at, 1);
      const w = new Watched(bench, 2, { wpUnpopulated: true }, at, mm);
      w.protect();
      const notifier = mmuIntervalNotifierInsert(mm, at, (at + 2 * PAGE) as VirtAddr, {
        // biome-ignore lint/correctness/useYield: nothing to wait for
        *invalidate(_notifier, _range, seq) {
          mmuIntervalSetSeq(notifier, seq);
        },
      });
      const fault = (defaultFlags: number) => {
        run(mm.mmapLock.downRead());
        const hmmPfns = new Int32Array(4);
        const notifierSeq = run(mmuIntervalReadBegin(notifier));
        const range = { notifier, notifierSeq, start: at, end: (at + 2 * PAGE) as VirtAddr, hmmPfns };
        const result = run(
          hmmRangeFault(bench.kernel, { ...range, defaultFlags, pfnFlagsMask: 0, devPrivateOwner: null }),
        );
        mm.mmapLock.upRead();
        return { result, flags: [hmmPfns[1], hmmPfns[3]] };
      };
      expect(fault(0)).toEqual({ result: 0, flags: [HMM_PFN_VALID, 0] });
      expect(fault(HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE).result).toBe('EFAULT');
      expect(fault(HMM_PFN_REQ_FAULT)).toEqual({ result: 0, flags: [HMM_PFN_VALID, HMM_PFN_VALID] });
      expect(w.uffd.waiting).toBe(0);
      w.resolve();
      const both = HMM_PFN_VALID | HMM_PFN_WRITE;
      // The zero page gives way to one of the process's own, which is an invalidation.
      expect(fault(HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE).result).toBe('EBUSY');
      expect(fault(HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE)).toEqual({ result: 0, flags: [both, both] });
      run(mmuIntervalNotifierRemove(notifier));
    }));

  it('a pin for writing waits, one for reading keeps the bits; exclusive access cannot wait', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 2);
      w.protect();
      const pin = pinUserPages(bench.kernel, w.mm, w.at, 2, { write: true, longterm: true });
      expect(runUntilBlocked(pin)).toContain('userfaultfd');
      expect(w.mm.mmapLock.locked).toBe(false);
      w.resolve(0, 1);
      expect(runUntilBlocked(pin)).toContain('userfaultfd');
      // Meanwhile the second page goes: there is nothing to pin.
      run(doMunmap(bench.kernel, w.mm, w.addr(1), PAGE));
      run(userfaultfdWake(w.uffd, w.addr(1), PAGE));
      expect(run(pin)).toBe('EFAULT');
      w.protect(0, 1);
      run(w.mm.mmapLock.downRead());
      expect(run(makeDeviceExclusive(bench.kernel, w.mm, w.at, null))).toBe('EFAULT');
      w.mm.mmapLock.upRead();
      const got = run(getUserPages(bench.kernel, w.mm, w.at, 1));
      expect(got.errno).toBe(0);
      putUserPages(bench.kernel, got.pages);
      // A read pin of a shared page makes it the process's own, with what the entry said.
      const child = run(forkMm(bench.kernel, w.mm, 9))!;
      const shared = bench.page(w.mm, w.at);
      const pages = run(pinUserPages(bench.kernel, w.mm, w.at, 1, { write: false, longterm: true }));
      expect(bench.page(w.mm, w.at)).not.toBe(shared);
      expect(bench.page(child, w.at)).toBe(shared);
      const flags = PTE_WRITE | PTE_UFFD_WP | PTE_SOFT_DIRTY;
      expect(bench.pte(w.mm, w.at) & flags).toBe(PTE_UFFD_WP | PTE_SOFT_DIRTY);
      unpinUserPages(bench.kernel, pages as never);
      w.check();
    }));

  it('what a device has exclusively is protected when the CPU takes it back', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 1);
      run(w.mm.mmapLock.downRead());
      const page = run(makeDeviceExclusive(bench.kernel, w.mm, w.at, null)) as never;
      w.mm.mmapLock.upRead();
      folioUnlock(bench.kernel.memmap.words, page);
      putUserPages(bench.kernel, [page]);
      w.protect();
      expect(bench.kind(w.mm, w.at)).toBe('device-exclusive');
      expect(bench.load(w.mm, w.at)).toBe(1);
      expect(bench.pte(w.mm, w.at) & (PTE_WRITE | PTE_UFFD_WP)).toBe(PTE_UFFD_WP);
    }));

  it('the checker sees a protected entry that is writable, and one that nobody protects', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 2);
      const { words } = bench.kernel.ram;
      const at = words.indexOf(bench.pte(w.mm, w.at));
      const intact = words[at]!;
      words[at] = intact | PTE_UFFD_WP;
      const found = () => [...checker.look({ kernel: bench.kernel } as MachineState)];
      expect(found()[0]).toContain('protected and writable');
      const vma = vmaLookup(w.mm, w.at)!;
      const { flags } = vma;
      vma.flags &= ~0x1000;
      expect(found().join()).toContain('not registered with its userfaultfd');
      expect(found().join()).toContain('protected by nobody');
      vma.flags = flags;
      words[at] = intact;
    }));
});
