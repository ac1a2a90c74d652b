/** CPU faults, mapping and unmapping, and the TLB. */
import { expect, it } from 'vitest';
import { MMAP_MIN_ADDR, TASK_SIZE } from '#src/abi/address';
import { VM_FAULT_OOM, VM_FAULT_SIGSEGV } from '#src/abi/errno';
import { PTE_ACCESSED, PTE_DIRTY, PTE_MKDIRTY, PTE_PRESENT, PTE_SPECIAL, PTE_USER, PTE_WRITE } from '#src/abi/pte';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { VirtAddr } from '#src/base/brand';
import { exitMm } from '#src/mm/mm-struct';
import { doMmap, doMunmap } from '#src/mm/mmap';
import { copyFromUser } from '#src/mm/uaccess';
import { Bench, describeEach, PAGE, refCount, run, runAll, withKernel } from './mm-fixture';

const FLAGS = PTE_PRESENT | PTE_USER | PTE_ACCESSED;
const flagsOf = (pte: bigint): bigint => pte & 0xfffn;

describeEach('demand faults', (addressing) => {
  it('a read maps the zero page, a write after it a page of its own', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      expect(bench.load(mm, at)).toBe(0);
      expect(bench.page(mm, at)).toBe(bench.kernel.zeroPage);
      expect(flagsOf(bench.pte(mm, at))).toBe(FLAGS | PTE_SPECIAL);
      expect(mm.rssAnon).toBe(0);

      bench.store(mm, at, 7);
      expect(bench.load(mm, at)).toBe(7);
      expect(bench.page(mm, at)).not.toBe(bench.kernel.zeroPage);
      expect(flagsOf(bench.pte(mm, at))).toBe(FLAGS | PTE_WRITE | PTE_MKDIRTY);
      expect(mm.rssAnon).toBe(1);
      expect(refCount(bench.kernel, bench.kernel.zeroPage)).toBe(1);
    }));

  it('a first write maps a zeroed page, exclusive, with one reference and one mapping', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      bench.store(mm, at + PAGE + 5, 9);
      expect(bench.load(mm, at + PAGE + 4)).toBe(0);
      expect(bench.load(mm, at + PAGE + 5)).toBe(9);
      const page = bench.page(mm, at + PAGE);
      expect(refCount(bench.kernel, page)).toBe(1);
      expect(bench.field(page, 'mapcount')).toBe(0);
      const { PG_anon_exclusive, PG_lru, PG_swapbacked } = PAGE_FLAGS;
      const wanted = PG_anon_exclusive | PG_lru | PG_swapbacked;
      expect(bench.field(page, 'flags') & wanted).toBe(wanted);
      expect(mm.rssAnon).toBe(1);
      expect(bench.kind(mm, at)).toBe('none');
    }));

  it('accesses across pages fault one page after the other', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 3);
      expect(bench.store(mm, at + PAGE - 1, 1, 2)).toEqual({ copied: 2, fault: 0, address: at + PAGE - 1 });
      expect([bench.load(mm, at + PAGE - 1), bench.load(mm, at + PAGE)]).toEqual([1, 2]);
      expect(mm.rssAnon).toBe(2);
    }));

  it('says how far an access got', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2);
      run(doMunmap(bench.kernel, mm, (at + PAGE) as VirtAddr, PAGE));
      const outcome = bench.store(mm, at + PAGE - 2, 1, 2, 3);
      expect(outcome).toEqual({ copied: 2, fault: VM_FAULT_SIGSEGV, address: at + PAGE });
    }));

  it('protection: what a VMA does not allow is SIGSEGV, and maps nothing', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const [none, readable, writable] = [bench.mmap(mm, 1, 'none'), bench.mmap(mm, 1, 'r'), bench.mmap(mm, 1, 'w')];
      const read = (addr: VirtAddr) => run(copyFromUser(bench.kernel, mm, addr, new Uint8Array(1))).fault;
      expect(read(none)).toBe(VM_FAULT_SIGSEGV);
      expect(bench.store(mm, none, 1).fault).toBe(VM_FAULT_SIGSEGV);
      expect(read(readable)).toBe(0);
      expect(bench.store(mm, readable, 1).fault).toBe(VM_FAULT_SIGSEGV);
      // x86 cannot take reading away from what may be written.
      expect(read(writable)).toBe(0);
      expect(bench.store(mm, writable, 1).fault).toBe(0);
      expect(read((MMAP_MIN_ADDR + 5) as VirtAddr)).toBe(VM_FAULT_SIGSEGV);
      expect(read(TASK_SIZE as VirtAddr)).toBe(VM_FAULT_SIGSEGV);
      expect(read((2 ** 52) as VirtAddr)).toBe(VM_FAULT_SIGSEGV);
      expect(bench.kind(mm, none)).toBe('none');
    }));

  it('out of RAM is VM_FAULT_OOM, and what was mapped stays', () =>
    withKernel(
      addressing,
      (bench) => {
        const mm = bench.mm();
        const at = bench.mmap(mm, 4096);
        let stored = 0;
        while (bench.store(mm, at + stored * PAGE, 5).fault === 0) stored++;
        expect(bench.store(mm, at + stored * PAGE, 5).fault).toBe(VM_FAULT_OOM);
        expect(bench.free).toBe(0);
        expect(mm.rssAnon).toBe(stored);
        expect(bench.load(mm, at + (stored - 1) * PAGE)).toBe(5);
        expect(bench.load(mm, at + (stored - (stored % 512) + 1) * PAGE)).toBe(5);
      },
      4,
    ));

  it('two tasks that fault on one page get the same page', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.preemption.on = true;
      const out = [new Uint8Array(1), new Uint8Array(1)];
      runAll(...out.map((bytes) => copyFromUser(bench.kernel, mm, at, bytes)));
      bench.store(mm, at, 3);
      expect(mm.rssAnon).toBe(1);
      expect(mm.mmapLock.locked).toBe(false);
    }));

  it('an access to an address space that is gone is SIGSEGV', () => {
    const bench = new Bench(addressing);
    const mm = bench.mm();
    const at = bench.mmap(mm, 2);
    bench.store(mm, at, 1);
    bench.preemption.on = true;
    const access = copyFromUser(bench.kernel, mm, at, new Uint8Array(2 * PAGE));
    access.next();
    run(exitMm(bench.kernel, mm));
    expect(run(access)).toMatchObject({ fault: VM_FAULT_SIGSEGV });
    bench.finish();
  });
});

describeEach('mmap and munmap', (addressing) => {
  it('places mappings top down, and aligned to 2 MiB those that are nothing but huge pages', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const first = bench.mmap(mm, 1);
      expect(first + PAGE).toBe(0x7fff_f7ff_f000);
      const second = bench.mmap(mm, 3);
      expect(second + 3 * PAGE).toBe(first);
      const odd = bench.mmap(mm, 600);
      expect(odd + 600 * PAGE).toBe(second);
      const huge = bench.mmap(mm, 1024);
      expect(huge % 2 ** 21).toBe(0);
      expect(huge + 1024 * PAGE).toBeLessThanOrEqual(odd);
      const shared = run(doMmap(bench.kernel, mm, { length: 512 * PAGE, prot: 'rw', fixed: false, kind: 'shared' }));
      expect(shared).toBe(huge - 512 * PAGE);
      // There is room above the huge pages, which were aligned, but not as much.
      expect(bench.mmap(mm, 1) + PAGE).toBe(odd);
    }));

  it('errno', () =>
    withKernel(addressing, (bench) => {
      const { kernel } = bench;
      const mm = bench.mm();
      const mmap = (length: number, addr?: number) =>
        run(
          doMmap(kernel, mm, {
            length,
            prot: 'rw',
            fixed: addr !== undefined,
            ...(addr === undefined ? {} : { addr: addr as VirtAddr }),
          }),
        );
      expect(mmap(0)).toBe('EINVAL');
      expect(mmap(2 ** 48)).toBe('ENOMEM');
      expect(mmap(PAGE, 0x20001)).toBe('EINVAL');
      expect(mmap(PAGE, 0x1000)).toBe('EPERM');
      expect(mmap(PAGE, TASK_SIZE)).toBe('ENOMEM');
      const munmap = (start: number, length: number) => run(doMunmap(kernel, mm, start as VirtAddr, length));
      expect(munmap(0x20001, PAGE)).toBe('EINVAL');
      expect(munmap(0x20000, 0)).toBe('EINVAL');
      expect(munmap(TASK_SIZE, PAGE)).toBe('EINVAL');
      expect(munmap(0x20000, PAGE)).toBe(0);
    }));

  it('a fixed mapping replaces what is there', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      for (let i = 0; i < 4; i++) bench.store(mm, at + i * PAGE, i + 1);
      bench.mmap(mm, 2, 'r', at + PAGE);
      expect([0, 1, 2, 3].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 0, 0, 4]);
      expect(mm.rssAnon).toBe(2);
      expect([...mm.vmas].map(({ start, end }) => [(start - at) / PAGE, (end - at) / PAGE])).toEqual([
        [0, 1],
        [1, 3],
        [3, 4],
      ]);
    }));

  it('a hole in the middle splits the VMA; reverse map and contents of both sides stay right', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 5);
      for (let i = 0; i < 5; i++) bench.store(mm, at + i * PAGE, i + 1);
      const free = bench.free;
      run(doMunmap(bench.kernel, mm, (at + 2 * PAGE) as VirtAddr, PAGE));
      expect(bench.free).toBe(free + 1);
      expect(mm.rssAnon).toBe(4);
      expect([...bench.kernel.anonVmas].map(({ users }) => users)).toEqual([2]);
      const driver = bench.driver();
      const page = bench.page(mm, at + 4 * PAGE);
      expect(run(driver.toDevice(mm, at + 3 * PAGE, 2))).toBe(2);
      expect(run(driver.evict([bench.page(mm, at + 4 * PAGE), bench.page(mm, at + 3 * PAGE)]))).toBe(2);
      expect(bench.page(mm, at + 4 * PAGE)).not.toBe(page);
      expect([0, 1, 3, 4].map((i) => bench.load(mm, at + i * PAGE))).toEqual([1, 2, 4, 5]);
    }));

  it('page tables go with what they map, and not before', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const free = bench.free;
      expect(mm.tables).toBe(1);
      const low = bench.mmap(mm, 1, 'rw', 2 ** 30);
      const high = bench.mmap(mm, 1, 'rw', 2 ** 30 + 2 ** 21);
      bench.store(mm, low, 1);
      bench.store(mm, high, 1);
      expect(mm.tables).toBe(5);
      run(doMunmap(bench.kernel, mm, high, PAGE));
      expect(mm.tables).toBe(4);
      expect(bench.load(mm, low)).toBe(1);
      run(doMunmap(bench.kernel, mm, low, PAGE));
      expect(mm.tables).toBe(1);
      expect(bench.free).toBe(free);
    }));

  it('a leaf table shared by two mappings survives the end of one', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const [one, two] = [bench.mmap(mm, 1), bench.mmap(mm, 1)];
      bench.store(mm, one, 1);
      bench.store(mm, two, 2);
      run(doMunmap(bench.kernel, mm, one, PAGE));
      expect(bench.load(mm, two)).toBe(2);
      expect(mm.tables).toBe(4);
    }));

  it('unmapping a large range that is hardly populated is quick', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 2 ** 26);
      bench.store(mm, at, 1);
      bench.store(mm, at + 2 ** 37, 1);
      expect(run(doMunmap(bench.kernel, mm, at, 2 ** 38))).toBe(0);
      expect(mm.tables).toBe(1);
    }));
});

describeEach('the TLB', (addressing) => {
  it('does not translate after munmap', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 1);
      run(doMunmap(bench.kernel, mm, at, PAGE));
      expect(bench.store(mm, at, 2).fault).toBe(VM_FAULT_SIGSEGV);
    }));

  it('does not show the zero page after a write has replaced it', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      expect(bench.load(mm, at)).toBe(0);
      bench.store(mm, at, 5);
      expect(bench.load(mm, at)).toBe(5);
    }));

  it('does not reach the old page while it migrates or after', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 5);
      const driver = bench.driver();
      run(driver.toDevice(mm, at, 1));
      const faults = bench.kernel.stats.cpuFaults;
      bench.store(mm, at, 6);
      expect(bench.kernel.stats.cpuFaults).toBeGreaterThan(faults);
      expect(bench.load(mm, at)).toBe(6);
    }));

  it('sets dirty on the first store through a clean translation', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 5);
      const driver = bench.driver();
      run(driver.toDevice(mm, at, 1));
      bench.load(mm, at);
      expect(flagsOf(bench.pte(mm, at)) & PTE_DIRTY).toBe(0n);
      bench.store(mm, at, 6);
      expect(flagsOf(bench.pte(mm, at)) & PTE_DIRTY).toBe(PTE_DIRTY);
    }));

  it('belongs to one address space at a time', () =>
    withKernel(addressing, (bench) => {
      const [a, b] = [bench.mm(), bench.mm()];
      const at = bench.mmap(a, 1);
      expect(bench.mmap(b, 1)).toBe(at);
      bench.store(a, at, 1);
      bench.store(b, at, 2);
      expect([bench.load(a, at), bench.load(b, at)]).toEqual([1, 2]);
    }));
});
