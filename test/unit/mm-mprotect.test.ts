/** mprotect: borders of VMAs, entries of every kind, and what cannot be had back. */
import { expect, it } from 'vitest';
import type { Result } from '#src/abi/errno';
import { VM_FAULT_SIGSEGV } from '#src/abi/errno';
import { pteHardwarePresent, ptePresent, pteWrite } from '#src/abi/pte';
import type { VirtAddr } from '#src/base/brand';
import { forkMm } from '#src/mm/fork';
import type { MmStruct } from '#src/mm/mm-struct';
import type { Protection } from '#src/mm/mmap';
import { doMunmap } from '#src/mm/mmap';
import { type MmuNotifierRange, mmuIntervalNotifierInsert, mmuIntervalSetSeq } from '#src/mm/mmu-notifier';
import { doMprotect } from '#src/mm/mprotect';
import { type Bench, changePte, describeEach, expectAtRest, PAGE, run, withKernel } from './mm-fixture';

const protect = (bench: Bench, mm: MmStruct, at: number, pages: number, prot: Protection): Result =>
  run(doMprotect(bench.kernel, mm, at as VirtAddr, pages * PAGE, prot));
const vmas = (mm: MmStruct, from: number): [number, number, number][] =>
  [...mm.vmas].map(({ start, end, value }) => [(start - from) / PAGE, (end - start) / PAGE, value.flags & 3]);

describeEach('mprotect', (addressing) => {
  it('splits VMAs and merges them again', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 8);
      bench.store(mm, at, 1);
      expect(protect(bench, mm, at + 2 * PAGE, 4, 'r')).toBe(0);
      expect(vmas(mm, at)).toEqual([
        [0, 2, 3],
        [2, 4, 1],
        [6, 2, 3],
      ]);
      bench.store(mm, at + 7 * PAGE, 1);
      expect(protect(bench, mm, at + 3 * PAGE, 1, 'none')).toBe(0);
      expect(protect(bench, mm, at, 8, 'rw')).toBe(0);
      expect(vmas(mm, at)).toEqual([[0, 8, 3]]);
      expect([bench.load(mm, at), bench.load(mm, at + 7 * PAGE)]).toEqual([1, 1]);
    }));

  it('what was mapped read-only does not merge with what became so, unless nothing was written', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2, 'rw', 2 ** 30);
      bench.mmap(mm, 2, 'r', at + 2 * PAGE);
      bench.store(mm, at, 1);
      protect(bench, mm, at, 2, 'r');
      expect(vmas(mm, at)).toEqual([
        [0, 2, 1],
        [2, 2, 1],
      ]);
      const other = bench.mmap(mm, 2, 'rw', 2 ** 31);
      bench.mmap(mm, 2, 'r', other + 2 * PAGE);
      protect(bench, mm, other, 2, 'r');
      expect(vmas(mm, other).slice(2)).toEqual([[0, 4, 1]]);
    }));

  it('errors: EINVAL, nothing to do, ENOMEM at a hole with the part before it changed', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 6);
      run(doMunmap(bench.kernel, mm, (at + 2 * PAGE) as VirtAddr, PAGE));
      expect(protect(bench, mm, at + 1, 1, 'r')).toBe('EINVAL');
      expect(protect(bench, mm, at, 0, 'r')).toBe(0);
      expect(protect(bench, mm, at + 2 * PAGE, 2, 'r')).toBe('ENOMEM');
      expect(protect(bench, mm, at, 6, 'r')).toBe('ENOMEM');
      expect(vmas(mm, at)).toEqual([
        [0, 2, 1],
        [3, 3, 3],
      ]);
    }));

  it('present pages: write access comes back at once for what is exclusive, by a copy for what is shared', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      bench.load(mm, at + PAGE);
      protect(bench, mm, at, 2, 'r');
      expect(bench.store(mm, at, 2).fault).toBe(VM_FAULT_SIGSEGV);
      expect(pteWrite(bench.pte(mm, at))).toBe(false);
      protect(bench, mm, at, 2, 'rw');
      expect([pteWrite(bench.pte(mm, at)), pteWrite(bench.pte(mm, at + PAGE))]).toEqual([true, false]);
      const child = run(forkMm(bench.kernel, mm, 77))!;
      protect(bench, mm, at, 2, 'r');
      protect(bench, mm, at, 2, 'rw');
      expect(pteWrite(bench.pte(mm, at))).toBe(false);
      bench.store(mm, at, 3);
      expect([bench.load(mm, at), bench.load(child, at)]).toEqual([3, 1]);
    }));

  it('PROT_NONE: the page stays, the hardware does not see it', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      bench.load(mm, at + PAGE);
      protect(bench, mm, at, 2, 'none');
      for (const addr of [at, at + PAGE]) {
        const pte = bench.pte(mm, addr);
        expect([ptePresent(pte), pteHardwarePresent(pte), pte & 0x107n]).toEqual([true, false, 0x100n]);
        expect(() => bench.load(mm, addr)).toThrow('fault');
      }
      expect(mm.rssAnon).toBe(1);
      protect(bench, mm, at, 2, 'rw');
      expect([bench.load(mm, at), bench.load(mm, at + PAGE)]).toEqual([1, 0]);
      // An entry that was left behind is repaired by a fault.
      changePte(bench, mm, at, (pte) => (pte & ~7n) | 0x100n);
      protect(bench, mm, at + PAGE, 1, 'r');
      expect(bench.load(mm, at)).toBe(1);
      expectAtRest(bench, mm, at);
    }));

  it('PROT_NONE and back by way of the device: eviction respects it', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      const driver = bench.driver();
      bench.store(mm, at, 1);
      run(driver.toDevice(mm, at, 1));
      protect(bench, mm, at, 1, 'none');
      expect(() => bench.load(mm, at)).toThrow('fault');
      expect(bench.kind(mm, at)).toBe('device-private-read');
      expect(run(driver.evict([bench.page(mm, at)]))).toBe(1);
      expect([bench.kind(mm, at), pteHardwarePresent(bench.pte(mm, at))]).toEqual(['present', false]);
      protect(bench, mm, at, 1, 'rw');
      expect([pteWrite(bench.pte(mm, at)), bench.load(mm, at)]).toEqual([true, 1]);
    }));

  it('device pages lose their right to write for good', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      const driver = bench.driver();
      bench.store(mm, at, 1);
      run(driver.toDevice(mm, at, 1));
      protect(bench, mm, at, 1, 'r');
      expect(bench.kind(mm, at)).toBe('device-private-read');
      protect(bench, mm, at, 1, 'rw');
      expect(bench.kind(mm, at)).toBe('device-private-read');
      bench.store(mm, at, 2);
      expect([bench.load(mm, at), driver.used]).toEqual([2, 0]);
    }));

  it('migration entries: the page comes back read-only but exclusive', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      const driver = bench.driver();
      bench.store(mm, at, 1);
      run(driver.toDevice(mm, at, 1));
      driver.gate = { open: false };
      const eviction = driver.evict([bench.page(mm, at)]);
      while (!eviction.next().done) if (bench.kind(mm, at).startsWith('migration')) break;
      protect(bench, mm, at, 1, 'r');
      const family = addressing === 'offset' ? 'migration-device-private' : 'migration';
      expect(bench.kind(mm, at)).toBe(`${family}-read-exclusive`);
      protect(bench, mm, at, 1, 'rw');
      expect(bench.kind(mm, at)).toBe(`${family}-read-exclusive`);
      driver.gate.open = true;
      run(eviction);
      expect(pteWrite(bench.pte(mm, at))).toBe(false);
      const page = bench.page(mm, at);
      bench.store(mm, at, 2);
      expect(bench.page(mm, at)).toBe(page);
    }));

  it('notifiers hear of the changed range, not of one where nothing changes', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 8, 'rw', 2 ** 30);
      bench.store(mm, at, 1);
      const heard: [string, number, number][] = [];
      const hear = ({ event, start, end }: MmuNotifierRange): number =>
        heard.push([event, (start - at) / PAGE, (end - start) / PAGE]);
      mmuIntervalNotifierInsert(mm, 0, 2 ** 47, {
        // biome-ignore lint/correctness/useYield: nothing to wait for
        *invalidate(notifier, range, seq) {
          hear(range);
          mmuIntervalSetSeq(notifier, seq);
        },
      });
      protect(bench, mm, at + 2 * PAGE, 4, 'r');
      protect(bench, mm, at, 8, 'r');
      protect(bench, mm, at, 8, 'r');
      expect(heard).toEqual([
        ['MMU_NOTIFY_PROTECTION_VMA', 2, 4],
        ['MMU_NOTIFY_PROTECTION_VMA', 0, 2],
        ['MMU_NOTIFY_PROTECTION_VMA', 6, 2],
      ]);
      // Nothing was ever mapped within this gibibyte.
      const empty = bench.mmap(mm, 2, 'rw', 2 ** 40);
      protect(bench, mm, empty, 1, 'r');
      expect(heard).toHaveLength(3);
    }));
});
