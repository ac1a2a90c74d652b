/** The protection of a userfaultfd goes along with a page: devices, swap, fork, mremap, mprotect, markers. */
import { expect, it } from 'vitest';
import { PTE_UFFD_WP, PTE_WRITE } from '#src/abi/pte';
import { SWP_UFFD_WP } from '#src/abi/softleaf';
import { createFile } from '#src/mm/file';
import { vmFilePut } from '#src/mm/filemap';
import { forkMm } from '#src/mm/fork';
import { doMunmap } from '#src/mm/mmap';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { mincore } from '#src/mm/proc-pagemap';
import { smapsText } from '#src/mm/proc-smaps';
import { truncateSetsize } from '#src/mm/truncate';
import { releaseUserfaultfd } from '#src/mm/userfaultfd';
import { vmaLookup } from '#src/mm/vma';
import { mapFile } from './file-fixture';
import { describeEach, PAGE, run, runUntilBlocked, withKernel } from './mm-fixture';

import { advise, ELSEWHERE, PLACE, shared, Watched } from './userfaultfd-rig';

describeEach('the bit of a userfaultfd', (addressing) => {
  it('the bit goes to the device and back, and the store that comes then sleeps', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 3);
      const driver = bench.driver();
      w.protect(0, 2);
      expect(run(driver.toDevice(w.mm, w.at, 3))).toBe(3);
      expect([0, 1, 2].map((i) => bench.kind(w.mm, w.addr(i)))).toEqual([
        'device-private-read',
        'device-private-read',
        'device-private-write',
      ]);
      expect(w.protectedPages()).toEqual([1, 1, 0]);
      w.check();
      // The CPU's fault brings the page home before it is known what for.
      const store = w.sleeps(0);
      expect(bench.kind(w.mm, w.addr(0))).toBe('present');
      expect(w.protectedPages()).toEqual([1, 1, 0]);
      w.resolve(0, 1);
      run(store);
      expect(bench.load(w.mm, w.addr(0))).toBe(99);
      expect(bench.load(w.mm, w.addr(1))).toBe(2);
      expect(bench.pte(w.mm, w.addr(1)) & (PTE_UFFD_WP | PTE_WRITE)).toBe(PTE_UFFD_WP);
    }));

  it('protection reaches what is on a device, and leaves it readable there when it goes', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 1);
      const driver = bench.driver();
      run(driver.toDevice(w.mm, w.at, 1));
      expect(bench.kind(w.mm, w.at)).toBe('device-private-write');
      w.protect();
      expect(bench.kind(w.mm, w.at)).toBe('device-private-read');
      expect(bench.pte(w.mm, w.at) & SWP_UFFD_WP).toBe(SWP_UFFD_WP);
      w.resolve();
      expect(bench.kind(w.mm, w.at)).toBe('device-private-read');
      expect(w.protectedPages()).toEqual([0]);
      bench.store(w.mm, w.at, 5);
      expect(bench.load(w.mm, w.at)).toBe(5);
    }));

  it('a page that is being moved is protected and resolved too', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 2);
      const driver = bench.driver();
      driver.gate = { open: false };
      const moving = driver.toDevice(w.mm, w.at, 2);
      expect(runUntilBlocked(moving)).toBe('the copy');
      expect(bench.kind(w.mm, w.at)).toBe('migration-write');
      w.protect();
      expect(bench.kind(w.mm, w.at)).toBe('migration-read-exclusive');
      w.resolve(1, 1);
      driver.gate.open = true;
      run(moving);
      expect([0, 1].map((i) => bench.kind(w.mm, w.addr(i)))).toEqual(['device-private-read', 'device-private-read']);
      expect(w.protectedPages()).toEqual([1, 0]);
      w.check();
    }));

  it('a protected zero page is forgotten by a migration, as Linux has it', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const w = new Watched(bench, 1, { wpUnpopulated: true }, bench.mmap(mm, 1, 'rw', PLACE), mm);
      w.protect();
      bench.load(mm, w.at);
      expect(w.protectedPages()).toEqual([1]);
      const driver = bench.driver();
      expect(run(driver.toDevice(mm, w.at, 1))).toBe(1);
      expect(w.protectedPages()).toEqual([0]);
    }));

  it('swap: out with the bit, in with the bit', () =>
    withKernel(addressing, (bench) => {
      expect(bench.kernel.swap.swapon(2 ** 20)).toBe(0);
      const w = new Watched(bench, 2);
      w.protect(0, 1);
      expect(advise(bench, w.mm, w.at, 2, 'PAGEOUT')).toBe(0);
      expect(bench.kind(w.mm, w.at)).toBe('swap');
      expect(w.protectedPages()).toEqual([1, 0]);
      const store = w.sleeps(0);
      expect(bench.kind(w.mm, w.at)).toBe('present');
      w.resolve();
      run(store);
      advise(bench, w.mm, w.at, 2, 'PAGEOUT');
      w.protect(1, 1);
      expect(w.protectedPages()).toEqual([0, 1]);
      w.check();
    }));

  it('unpopulated memory is protected only where that was asked for', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const plain = new Watched(bench, 2, {}, bench.mmap(mm, 2, 'rw', PLACE), mm);
      plain.protect();
      expect(plain.protectedPages()).toEqual([0, 0]);
      bench.store(mm, plain.at, 1);
      const other = bench.mmap(mm, 3, 'rw', ELSEWHERE);
      const w = new Watched(bench, 3, { wpUnpopulated: true }, other, mm);
      w.protect();
      expect([0, 1, 2].map((i) => bench.kind(mm, w.addr(i)))).toEqual(['marker', 'marker', 'marker']);
      expect(w.protectedPages()).toEqual([1, 1, 1]);
      expect(mincore(bench.kernel, mm, w.at)).toBe(0);
      // A load gets the zero page, a store a page of its own; both are protected.
      expect(bench.load(mm, w.at)).toBe(0);
      const [first, second] = [w.sleeps(0), w.sleeps(1)];
      expect(w.protectedPages()).toEqual([1, 1, 1]);
      w.resolve();
      expect(w.protectedPages()).toEqual([0, 0, 0]);
      expect(bench.kind(mm, w.addr(2))).toBe('none');
      for (const store of [first, second]) run(store);
      w.protect();
      // Anonymous memory that is discarded is discarded with its protection.
      advise(bench, mm, w.at, 3, 'DONTNEED');
      expect(w.protectedPages()).toEqual([0, 0, 0]);
      w.check();
    }));

  it('shared memory keeps its protection while its pages come and go', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = shared(bench, mm, 3);
      bench.store(mm, at, 1);
      const w = new Watched(bench, 3, {}, at, mm);
      w.protect();
      expect(w.protectedPages()).toEqual([1, 1, 1]);
      expect([0, 1].map((i) => bench.kind(mm, w.addr(i)))).toEqual(['present', 'marker']);
      advise(bench, mm, at, 3, 'DONTNEED');
      expect([0, 1, 2].map((i) => bench.kind(mm, w.addr(i)))).toEqual(['marker', 'marker', 'marker']);
      expect(bench.load(mm, at)).toBe(1);
      // A fault brings one page, not those around it, which would be unheard of.
      expect([0, 1].map((i) => bench.kind(mm, w.addr(i)))).toEqual(['present', 'marker']);
      const store = w.sleeps(1, 8);
      w.resolve(1, 1);
      run(store);
      expect(bench.load(mm, w.addr(1))).toBe(8);
      expect(w.protectedPages()).toEqual([1, 0, 1]);
      w.check();
      expect(run(doMunmap(bench.kernel, mm, at, 3 * PAGE))).toBe(0);
    }));

  it('of files the marker outlives truncate, and private copies', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const file = createFile(bench.kernel, new Uint8Array(0), 3 * PAGE);
      const at = mapFile(bench, mm, file, 3, { shared: false, addr: PLACE });
      bench.store(mm, at, 9);
      bench.load(mm, at + PAGE);
      const w = new Watched(bench, 3, { wpAsync: true }, at, mm);
      w.protect();
      run(truncateSetsize(bench.kernel, file, 0));
      expect([0, 1, 2].map((i) => bench.kind(mm, w.addr(i)))).toEqual(['marker', 'marker', 'marker']);
      run(truncateSetsize(bench.kernel, file, 3 * PAGE));
      bench.store(mm, at, 1);
      expect(w.protectedPages()).toEqual([0, 1, 1]);
      w.check();
      run(doMunmap(bench.kernel, mm, at, 3 * PAGE));
      vmFilePut(bench.kernel, file);
    }));

  it('fork: the child has the pages, without a protection', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 4, { wpUnpopulated: true });
      const driver = bench.driver();
      run(driver.toDevice(w.mm, w.addr(1), 1));
      advise(bench, w.mm, w.addr(2), 1, 'DONTNEED');
      w.protect();
      const child = run(forkMm(bench.kernel, w.mm, 9))!;
      expect(w.protectedPages()).toEqual([1, 1, 1, 1]);
      expect(w.protectedPages(child)).toEqual([0, 0, 0, 0]);
      expect(vmaLookup(child, w.at)!.userfaultfd).toBeNull();
      expect(smapsText(bench.kernel, child)).not.toContain(' uw ');
      bench.store(child, w.at, 77);
      expect(bench.load(child, w.addr(1))).toBe(2);
      w.check();
      // Copy-on-write comes after the protection has gone, and is not one.
      const store = w.sleeps(0, 66);
      w.resolve();
      run(store);
      expect([bench.load(w.mm, w.at), bench.load(child, w.at)]).toEqual([66, 77]);
    }));

  it('mremap: what moves leaves its protection behind, markers too', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 3, { wpUnpopulated: true });
      const driver = bench.driver();
      run(driver.toDevice(w.mm, w.addr(1), 1));
      advise(bench, w.mm, w.addr(2), 1, 'DONTNEED');
      w.protect();
      const flags = { maymove: true, fixedAt: ELSEWHERE, dontunmap: true };
      expect(run(doMremap(bench.kernel, w.mm, w.at, 3 * PAGE, 3 * PAGE, flags))).toBe(ELSEWHERE);
      expect(w.protectedPages(w.mm, ELSEWHERE)).toEqual([0, 0, 0]);
      expect(bench.kind(w.mm, ELSEWHERE + 2 * PAGE)).toBe('none');
      expect(vmaLookup(w.mm, ELSEWHERE)!.userfaultfd).toBeNull();
      // The old place, which is empty now, is still watched.
      expect(vmaLookup(w.mm, w.at)!.userfaultfd).toBe(w.uffd);
      bench.store(w.mm, ELSEWHERE, 4);
      expect(bench.load(w.mm, ELSEWHERE + PAGE)).toBe(2);
      w.check();
    }));

  it('mprotect keeps the bit, and gives no right to write past it', () =>
    withKernel(addressing, (bench) => {
      const w = new Watched(bench, 2);
      w.protect(0, 1);
      run(doMprotect(bench.kernel, w.mm, w.at, 2 * PAGE, 'r'));
      run(doMprotect(bench.kernel, w.mm, w.at, 2 * PAGE, 'rw'));
      expect([0, 1].map((i) => bench.pte(w.mm, w.addr(i)) & (PTE_WRITE | PTE_UFFD_WP))).toEqual([
        PTE_UFFD_WP,
        PTE_WRITE,
      ]);
      // Nobody may write at all: that comes first.
      run(doMprotect(bench.kernel, w.mm, w.at, 2 * PAGE, 'none'));
      run(doMprotect(bench.kernel, w.mm, w.at, 2 * PAGE, 'rw'));
      run(w.sleeps(0) && releaseUserfaultfd(bench.kernel, w.uffd));
      w.check();
    }));
});
