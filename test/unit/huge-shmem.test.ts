/** Shared memory of which MADV_COLLAPSE has made huge pages: what maps it, what takes it apart, and who sees what. */
import { describe, expect, test } from 'vitest';
import type { Process, VirtRange } from '#src/machine/types';
import { HUGE, type HugeRig, PAGE, part, withHuge } from './huge-rig';

const PRESENT = 1n << 63n;
const FILE = 1n << 61n;
const EXCLUSIVE = 1n << 56n;
/** Where it lies, so that 2 MiB of the object are 2 MiB of addresses. */
const START = 2 ** 40;
const BYTES = HUGE * PAGE;

/** Shared memory of so many times 2 MiB of which some pages have contents: page i is full of `1000 + i`. */
async function shared(rig: HugeRig, touched: readonly (readonly [number, number])[], huges = 1): Promise<VirtRange> {
  const range = await rig.process.mmap({ at: START, length: huges * BYTES, shared: true });
  for (const [first, pages] of touched) await rig.fill(part(range, first, pages), 1000 + first);
  return range;
}

/** All of it touched, and one page. */
async function collapsed(rig: HugeRig): Promise<VirtRange> {
  const range = await shared(rig, [[0, HUGE]]);
  await rig.process.madvise(range, 'COLLAPSE');
  return range;
}

const residency = async (process: Process, range: VirtRange) => {
  const { rss, ahp, shmem_pmd, shc, shd, prc, prd } = await process.smaps(range);
  return { rss: rss / 4, ahp, huge: shmem_pmd / 2048, shared: (shc + shd) / 4, private: (prc + prd) / 4 };
};
const WHOLE = { rss: HUGE, ahp: 0, huge: 1, shared: 0, private: HUGE };
const NOTHING = { rss: 0, ahp: 0, huge: 0, shared: 0, private: 0 };
const small = (pages: number) => ({ ...NOTHING, rss: pages, private: pages });

describe.each(['legacy', 'offset'] as const)('huge pages of shared memory (%s)', (addressing) => {
  const run = (body: (rig: HugeRig) => Promise<void>) => withHuge({ addressing }, body);

  test('COLLAPSE keeps what there is, and fills the holes with zeroes', () =>
    run(async (rig) => {
      const range = await shared(rig, [
        [3, 2],
        [500, 1],
      ]);
      const free = (await rig.machine.stats()).freeRamPages;
      await rig.process.madvise(range, 'COLLAPSE');
      expect(await residency(rig.process, range)).toEqual(WHOLE);
      const counts = { AnonHugePages: 0, Shmem: 2048, ShmemHugePages: 2048, ShmemPmdMapped: 2048, Mapped: 2048 };
      expect(rig.machine.meminfo()).toMatchObject(counts);
      expect(rig.machine.vmstat()).toMatchObject({ nr_shmem_hugepages: 1, nr_shmem_pmdmapped: 1 });
      // Three pages and a page table less, 512 pages more.
      expect(free - (await rig.machine.stats()).freeRamPages).toBe(HUGE - 4);
      expect([...new Set((await rig.process.pagemap(range)).map((entry) => entry >> 56n))]).toEqual([
        (PRESENT | FILE | EXCLUSIVE) >> 56n,
      ]);
      expect([...new Set(await rig.process.mincore(range))]).toEqual([1]);
      await rig.expectFilled(part(range, 3, 2), 1003);
      await rig.expectFilled(part(range, 500, 1), 1500);
      for (const [first, pages] of [
        [0, 3],
        [5, 495],
        [501, 11],
      ] as const)
        await rig.expectFilled(part(range, first, pages), null);
      await rig.process.madvise(range, 'COLLAPSE');
      expect(await residency(rig.process, range)).toEqual(WHOLE);
    }));

  test('COLLAPSE of nothing, of what may not be huge, and of what somebody holds is refused', () =>
    run(async (rig) => {
      const range = await shared(rig, []);
      const collapse = (of = range) => rig.process.madvise(of, 'COLLAPSE');
      await expect(collapse()).rejects.toMatchObject({ errno: 'EINVAL' });
      await rig.fill(part(range, 7, 2), 1007);
      await rig.process.madvise(range, 'NOHUGEPAGE');
      await expect(collapse()).rejects.toMatchObject({ errno: 'EINVAL' });
      await rig.process.madvise(range, 'HUGEPAGE');
      const pin = await rig.process.pin(part(range, 8, 1));
      await expect(collapse()).rejects.toMatchObject({ errno: 'EAGAIN' });
      await rig.expectFilled(part(range, 7, 2), 1007);
      await pin.release();
      const odd = await rig.process.mmap({ at: START + 8 * BYTES - PAGE, length: 2 * BYTES, shared: true });
      await rig.fill(part(odd, 0, 4), 1);
      await expect(collapse(part(odd, 1, HUGE))).rejects.toMatchObject({ errno: 'EINVAL' });
      await rig.check();
      await collapse();
      await rig.expectFilled(part(range, 7, 2), 1007);
    }));

  test('without a block of 2 MiB it is ENOMEM, and everything is as it was', () =>
    run(async (rig) => {
      const range = await shared(rig, [[0, 2]]);
      await rig.fragment(40);
      await expect(rig.process.madvise(range, 'COLLAPSE')).rejects.toMatchObject({ errno: 'ENOMEM' });
      await rig.expectFilled(part(range, 0, 2), 1000);
      await rig.check();
    }));

  test('takes it from everybody who maps it; each maps all of it at the next touch', () =>
    run(async (rig) => {
      const range = await shared(rig, [[0, 40]]);
      const child = await rig.process.fork();
      await rig.expectFilled(part(range, 0, 40), 1000, child);
      const tables = (await rig.machine.stats()).freeRamPages;
      await rig.process.madvise(range, 'COLLAPSE');
      expect(await residency(child, range)).toEqual(NOTHING);
      // The child's page table has gone as well as the parent's.
      expect(tables - (await rig.machine.stats()).freeRamPages).toBe(HUGE - 40 - 2);
      await rig.expectFilled(part(range, 10, 1), 1010, child);
      expect(await residency(child, range)).toEqual({ ...WHOLE, shared: HUGE, private: 0 });
      expect(await residency(rig.process, range)).toEqual({ ...WHOLE, shared: HUGE, private: 0 });
      await rig.fill(part(range, 300, 1), 7, child);
      await rig.expectFilled(part(range, 300, 1), 7);
      await rig.check();
      await child.exit();
      expect(await residency(rig.process, range)).toEqual(WHOLE);
    }));

  test('a part that goes takes the entry along; what is left comes back by small ones', () =>
    run(async (rig) => {
      const range = await collapsed(rig);
      const rest = part(range, 8, HUGE - 8);
      await rig.process.munmap(part(range, 0, 8));
      expect(await residency(rig.process, rest)).toEqual(NOTHING);
      expect([...new Set(await rig.process.mincore(rest))]).toEqual([1]);
      await rig.fill(part(range, 100, 1), 9);
      expect(await residency(rig.process, rest)).toEqual(small(1));
      await rig.expectFilled(part(range, 200, 1), 1200);
      expect(await residency(rig.process, rest)).toEqual(small(17));
      await rig.expectFilled(part(range, 101, HUGE - 101), 1101);
      await rig.check();
    }));

  test.each(['DONTNEED', 'mprotect'] as const)('%s of a part, and of the whole', (kind) =>
    run(async (rig) => {
      const range = await collapsed(rig);
      const change = (of: VirtRange) =>
        kind === 'DONTNEED' ? rig.process.madvise(of, kind) : rig.process.mprotect(of, 'r');
      await change(range);
      expect(await residency(rig.process, range)).toEqual(kind === 'DONTNEED' ? NOTHING : WHOLE);
      if (kind === 'mprotect') {
        await expect(rig.fill(part(range, 1, 1), 2)).rejects.toMatchObject({ signal: 'SIGSEGV' });
        await rig.process.mprotect(range, 'rw');
      }
      await rig.fill(part(range, 9, 1), 1009);
      expect(await residency(rig.process, range)).toEqual(WHOLE);
      await change(part(range, 4, 4));
      expect(await residency(rig.process, range)).toEqual(NOTHING);
      await rig.expectFilled(range, 1000);
      expect((await residency(rig.process, range)).huge).toBe(kind === 'DONTNEED' ? 1 : 0);
      await rig.check();
    }),
  );

  test('moves as one where it fits, and by small pages where it does not', () =>
    run(async (rig) => {
      const range = await collapsed(rig);
      const there = await rig.process.mremap(range, { to: START + 2 ** 30 + 2 ** 39 });
      expect(await residency(rig.process, there)).toEqual(WHOLE);
      await rig.check();
      const odd = await rig.process.mremap(there, { to: START + 16 * BYTES + 3 * PAGE });
      expect(await residency(rig.process, odd)).toEqual(NOTHING);
      await rig.expectFilled(odd, 1000);
      expect((await residency(rig.process, odd)).huge).toBe(0);
      expect(await residency(rig.process, odd)).toEqual(small(HUGE));
      await rig.check();
    }));

  test('exclusive access is refused, and leaves small entries for all of it', () =>
    run(async (rig) => {
      const range = await collapsed(rig);
      expect(await rig.mirror.exclusive(part(range, 5, 2))).toMatchObject({ errno: 'EOPNOTSUPP' });
      expect(await residency(rig.process, range)).toEqual(small(HUGE));
      await rig.check();
      await rig.process.madvise(range, 'COLLAPSE');
      expect(await residency(rig.process, range)).toEqual(WHOLE);
      await rig.expectFilled(range, 1000);
    }));

  test('a device reads and writes it where it is', () =>
    run(async (rig) => {
      const range = await collapsed(rig);
      expect([...new Set(await rig.mirror.snapshot(range))]).toEqual([0x06]);
      expect(await rig.mirror.readPages(part(range, 3, 2))).toMatchObject({ errno: 0 });
      await rig.mirror.writePages(part(range, 4, 1), [5n]);
      expect((await rig.process.read(range.start + 4 * PAGE, 8))[0]).toBe(5);
      expect(await residency(rig.process, range)).toEqual(WHOLE);
      await rig.process.madvise(part(range, 0, 1), 'DONTNEED');
      expect(await rig.mirror.peekPages(part(range, 3, 1))).toMatchObject({ errno: 'ENOENT' });
      await rig.check();
    }));

  test('stays in RAM: whole when a device wants all of it, in single pages when it wants a part', () =>
    run(async (rig) => {
      const range = await collapsed(rig);
      expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ migrated: 0 });
      expect(await residency(rig.process, range)).toEqual(WHOLE);
      await rig.check();
      expect(await rig.mirror.migrate(part(range, 10, 3), 'device')).toMatchObject({ migrated: 0 });
      expect(await residency(rig.process, range)).toEqual(NOTHING);
      expect([...new Set(await rig.process.mincore(range))]).toEqual([1]);
      await rig.check();
      // Single pages of the page cache by now: a store maps one of them.
      await rig.fill(part(range, 20, 1), 1020);
      expect(await residency(rig.process, range)).toEqual(small(1));
      await rig.expectFilled(range, 1000);
      await rig.process.madvise(range, 'COLLAPSE');
      expect(await residency(rig.process, range)).toEqual(WHOLE);
      await rig.expectFilled(range, 1000);
    }));

  test('small entries of a huge page: a device that wants some splits it for all', () =>
    run(async (rig) => {
      const range = await collapsed(rig);
      const child = await rig.process.fork();
      await rig.expectFilled(part(range, 0, 1), 1000, child);
      await rig.mirror.exclusive(part(range, 5, 1));
      expect(await rig.mirror.migrate(part(range, 7, 2), 'device')).toMatchObject({ migrated: 0 });
      expect(await residency(rig.process, range)).toEqual(NOTHING);
      expect(await residency(child, range)).toEqual(NOTHING);
      await rig.expectFilled(range, 1000, child);
      await rig.check();
      await child.exit();
    }));

  test('a pin keeps it whole', () =>
    run(async (rig) => {
      const range = await collapsed(rig);
      const pin = await rig.process.pin(part(range, 30, 2), { write: true });
      await rig.mirror.migrate(part(range, 0, 1), 'device');
      await rig.check();
      await rig.process.munmap(range);
      await rig.check();
      await pin.release();
    }));

  test('watched for soft-dirty, a store makes it writable again', () =>
    run(async (rig) => {
      const SOFT_DIRTY = 1n << 55n;
      const range = await collapsed(rig);
      await rig.process.clearRefs('soft-dirty');
      expect((await rig.process.pagemap(part(range, 5, 1)))[0]! & SOFT_DIRTY).toBe(0n);
      await rig.fill(part(range, 6, 1), 1006);
      expect((await rig.process.pagemap(part(range, 5, 1)))[0]! & SOFT_DIRTY).toBe(SOFT_DIRTY);
      expect(await residency(rig.process, range)).toEqual(WHOLE);
      await rig.check();
    }));

  test('a userfaultfd protects single pages of it', () =>
    run(async (rig) => {
      const range = await collapsed(rig);
      const userfaultfd = await rig.process.userfaultfd();
      await userfaultfd.register(range);
      await userfaultfd.protect(part(range, 5, 2));
      expect(await residency(rig.process, range)).toEqual(NOTHING);
      await rig.expectFilled(part(range, 5, 1), 1005);
      await rig.fill(part(range, 40, 1), 1040);
      await expect(rig.process.madvise(range, 'COLLAPSE')).rejects.toMatchObject({ errno: 'EINVAL' });
      const store = rig.fill(part(range, 5, 1), 77);
      while (userfaultfd.waiting === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      expect((await userfaultfd.read())[0]).toMatchObject({ address: range.start + 5 * PAGE });
      await userfaultfd.resolve(part(range, 5, 2));
      await store;
      await userfaultfd.close();
      await rig.expectFilled(part(range, 5, 1), 77);
      await rig.check();
    }));

  test('one page of it fails: the others live on', () =>
    withHuge(
      { addressing },
      async (rig) => {
        const range = await collapsed(rig);
        await rig.process.madvise(part(range, 9, 1), 'HWPOISON');
        await expect(rig.process.read(range.start + 9 * PAGE, 1)).rejects.toMatchObject({ signal: 'SIGBUS' });
        await rig.expectFilled(part(range, 0, 9), 1000);
        await rig.expectFilled(part(range, 10, HUGE - 10), 1010);
        await rig.check();
      },
      1,
    ));
});
