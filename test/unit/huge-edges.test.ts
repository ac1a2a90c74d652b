/** Huge pages where they come apart, are held, shared or made: the edges of each operation of the kernel's. */
import { describe, expect, it } from 'vitest';
import { DMIRROR_PROT } from '#src/abi/dmirror';
import { mmuIntervalNotifierInsert, mmuIntervalNotifierRemove, mmuIntervalSetSeq } from '#src/mm/mmu-notifier';
import { SCHEDULE_POINT } from '#src/sync/task';
import { HUGE, type HugeRig, PAGE, part, withHuge } from './huge-rig';

const { PMD, WRITE, READ } = DMIRROR_PROT;
/** Parts of a huge page: at its borders, across its middle, almost all of it. */
const PARTS = [
  [0, 1],
  [511, 1],
  [1, 511],
  [3, 300],
] as const;

describe.each(['legacy', 'offset'] as const)('huge pages, %s addressing', (addressing) => {
  const test = (name: string, body: (rig: HugeRig) => Promise<void>): void => {
    it(name, () => withHuge({ addressing }, body));
  };

  describe.each(['RAM', 'the device'] as const)('parts of one in %s', (place) => {
    const prepare = async (rig: HugeRig) => {
      const range = await rig.filled();
      if (place !== 'RAM') expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ folios: 1, errno: 0 });
      expect(await rig.hugePages(range)).toBe(1);
      return range;
    };
    const restOf = (first: number, pages: number) =>
      [
        [0, first],
        [first + pages, HUGE - first - pages],
      ].filter((each): each is [number, number] => each[1]! > 0);

    it.each(PARTS)('munmap at %i, %i pages', (first, pages) =>
      withHuge({ addressing }, async (rig) => {
        const range = await prepare(rig);
        await rig.process.munmap(part(range, first, pages));
        await rig.check();
        for (const [at, count] of restOf(first, pages)) await rig.expectFilled(part(range, at, count), 1000 + at);
        expect(await rig.rss(range)).toBe(HUGE - pages);
      }),
    );

    it.each(PARTS)('mprotect at %i, %i pages', (first, pages) =>
      withHuge({ addressing }, async (rig) => {
        const range = await prepare(rig);
        const middle = part(range, first, pages);
        await rig.process.mprotect(middle, 'r');
        await rig.check();
        expect(await rig.hugePages(range)).toBe(0);
        await expect(rig.fill(middle, 1)).rejects.toMatchObject({ signal: 'SIGSEGV' });
        for (const [at, count] of restOf(first, pages)) await rig.fill(part(range, at, count), 2000 + at);
        await rig.expectFilled(middle, 1000 + first);
        for (const [at, count] of restOf(first, pages)) await rig.expectFilled(part(range, at, count), 2000 + at);
        await rig.process.mprotect(middle, 'none');
        await rig.process.mprotect(range, 'rw');
        await rig.fill(range, 3000);
        await rig.expectFilled(range, 3000);
      }),
    );

    it.each(PARTS)('mremap at %i, %i pages', (first, pages) =>
      withHuge({ addressing }, async (rig) => {
        const range = await prepare(rig);
        const target = await rig.filled(2 * HUGE, 5000);
        const to = part(target, 77, pages);
        await rig.process.mremap(part(range, first, pages), { to: to.start });
        await rig.check();
        await rig.expectFilled(to, 1000 + first);
        await rig.expectFilled(part(target, 0, 77), 5000);
        await rig.expectFilled(part(target, 77 + pages, 2 * HUGE - 77 - pages), 5000 + 77 + pages);
        for (const [at, count] of restOf(first, pages)) await rig.expectFilled(part(range, at, count), 1000 + at);
        await rig.fill(to, 9);
        await rig.expectFilled(to, 9);
      }),
    );

    it.each(PARTS)('DONTNEED and FREE at %i, %i pages', (first, pages) =>
      withHuge({ addressing }, async (rig) => {
        const range = await prepare(rig);
        const middle = part(range, first, pages);
        await rig.process.madvise(middle, 'FREE');
        await rig.check();
        await rig.expectFilled(range, 1000);
        await rig.process.madvise(middle, 'DONTNEED');
        await rig.check();
        expect(await rig.rss(range)).toBe(HUGE - pages);
        await rig.expectFilled(middle, null);
        for (const [at, count] of restOf(first, pages)) await rig.expectFilled(part(range, at, count), 1000 + at);
      }),
    );

    it.each(PARTS)('migrate at %i, %i pages', (first, pages) =>
      withHuge({ addressing }, async (rig) => {
        const range = await prepare(rig);
        const to = place === 'RAM' ? 'device' : 'system';
        const moved = { migrated: pages, folios: pages, errno: 0 };
        expect(await rig.mirror.migrate(part(range, first, pages), to)).toMatchObject(moved);
        await rig.check();
        expect(await rig.used()).toBe(place === 'RAM' ? pages : HUGE - pages);
        await rig.expectFilled(range, 1000);
      }),
    );
  });

  describe('held by others', () => {
    test('one pinned page keeps all of a huge page in RAM, as one', async (rig) => {
      const range = await rig.filled();
      const pin = await rig.process.pin(part(range, 300, 1), { write: true });
      expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ migrated: 0, errno: 'ENOENT' });
      expect(await rig.hugePages(range)).toBe(1);
      // Nor can a part of it go: it does not come apart.
      expect(await rig.mirror.migrate(part(range, 0, 8), 'device')).toMatchObject({ migrated: 0, errno: 'ENOENT' });
      await rig.check();
      await rig.fill(range, 2000);
      expect(new Float64Array((await pin.read()).buffer)[0]).toBe(2300);
      await pin.release();
      expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ migrated: HUGE, errno: 0 });
      await rig.expectFilled(range, 2000);
    });

    test('a plain reference does so too, and outlives the mapping', async (rig) => {
      const range = await rig.filled();
      const held = await rig.process.pin(part(range, 7, 2), { kind: 'get' });
      expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ migrated: 0, errno: 'ENOENT' });
      await rig.process.munmap(part(range, 5, 300));
      await rig.check();
      await rig.process.munmap(range);
      await rig.check();
      expect(new Float64Array((await held.read()).buffer)[512]).toBe(1008);
      await held.release();
    });

    test('fork copies a pinned huge page at once, page by page; the pin goes on seeing what the parent writes', async (rig) => {
      const range = await rig.filled();
      const pin = await rig.process.pin(part(range, 10, 4), { write: true });
      const child = await rig.process.fork();
      await rig.check();
      expect([await rig.rss(range), await rig.rss(range, child)]).toEqual([HUGE, HUGE]);
      await rig.fill(range, 2000);
      expect(new Float64Array((await pin.read()).buffer)[0]).toBe(2010);
      await rig.expectFilled(range, 1000, child);
      await pin.release();
      await rig.check();
      await child.exit();
    });

    test('a read pin of a shared huge page makes it this process’s own first', async (rig) => {
      const range = await rig.filled();
      const child = await rig.process.fork();
      const pin = await child.pin(part(range, 100, 2), {});
      await rig.check();
      await rig.fill(range, 3000, child);
      expect(new Float64Array((await pin.read()).buffer)[0]).toBe(3100);
      await rig.expectFilled(range, 1000);
      await pin.release();
      await child.exit();
    });
  });

  describe('shared after fork', () => {
    test('the last user of a huge page takes it over, read-write and as one', async (rig) => {
      const range = await rig.filled();
      const child = await rig.process.fork();
      expect(await rig.hugePages(range, child)).toBe(1);
      await rig.process.munmap(range);
      await rig.fill(range, 2000, child);
      expect(await rig.hugePages(range, child)).toBe(1);
      await rig.check();
      await child.exit();
    });

    test('a page of one that two mappings share is taken over by the one that writes; the other still finds its pages', async (rig) => {
      const range = await rig.filled();
      // Two mappings before the fork: the child's have an anon_vma each.
      await rig.process.mprotect(part(range, HUGE / 2, HUGE / 2), 'r');
      const child = await rig.process.fork();
      await rig.process.munmap(range);
      await rig.fill(part(range, 0, 2), 2000, child);
      await rig.check();
      const own = await child.mirror(0, { onFault: 'mirror' });
      expect((await own.migrate(range, 'device')).errno).toBe(0);
      await rig.check();
      await rig.expectFilled(part(range, 2, HUGE - 2), 1002, child);
      await rig.expectFilled(part(range, 0, 2), 2000, child);
      await child.exit();
    });

    test('one that is huge to the parent and small to the child moves, and comes back to both as it was', async (rig) => {
      const range = await rig.filled();
      const child = await rig.process.fork();
      await child.mprotect(part(range, 9, 1), 'none');
      expect([await rig.hugePages(range), await rig.hugePages(range, child)]).toEqual([1, 0]);
      expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ folios: 1, errno: 0 });
      await rig.check();
      expect(await rig.used()).toBe(HUGE);
      expect([await rig.hugePages(range), await rig.hugePages(range, child)]).toEqual([1, 0]);
      await rig.expectFilled(part(range, 10, 100), 1010, child);
      await rig.check();
      await rig.expectFilled(range, 1000);
      await child.exit();
    });
  });

  describe('the huge zero page', () => {
    const zero = async (rig: HugeRig) => {
      const range = await rig.area();
      await rig.expectFilled(range, null);
      expect([...new Set(await rig.mirror.snapshot(range))]).toEqual([READ | PMD]);
      expect(await rig.rss(range)).toBe(0);
      return range;
    };

    test('is one for all, goes with its last user', async (rig) => {
      const before = rig.state.kernel.buddy.freePagesCount;
      const range = await zero(rig);
      const other = await rig.machine.process();
      await rig.expectFilled(await rig.area(HUGE, other), null, other);
      const child = await rig.process.fork();
      await rig.expectFilled(range, null, child);
      // One block, and tables of three processes.
      expect(before - rig.state.kernel.buddy.freePagesCount).toBeLessThan(HUGE + 24);
      await rig.fill(part(range, 5, 1), 1, child);
      await rig.expectFilled(range, null);
      await rig.check();
      await other.exit();
      await child.exit();
    });

    test('a store replaces all of it, or where RAM has no block one page of it', async (rig) => {
      const range = await zero(rig);
      const more = await zero(rig);
      await rig.fill(part(range, 100, 1), 8);
      expect(await rig.hugePages(range)).toBe(1);
      const hog = await rig.fragment(100);
      await rig.fill(part(more, 100, 1), 9);
      expect([await rig.hugePages(more), await rig.rss(more)]).toEqual([0, 1]);
      await rig.expectFilled(part(more, 0, 100), null);
      await rig.expectFilled(part(more, 101, 411), null);
      await rig.check();
      await rig.process.munmap(hog);
    });

    test('a reference on it outlives the process', async (rig) => {
      const other = await rig.machine.process();
      const range = await rig.area(HUGE, other);
      await rig.expectFilled(range, null, other);
      const held = await other.pin(part(range, 3, 1), { kind: 'get' });
      await rig.check();
      await other.munmap(range);
      await rig.check();
      expect((await held.read()).every((byte) => byte === 0)).toBe(true);
      await held.release();
      await other.exit();
    });

    test('a long-term pin gets a page of the process’s own', async (rig) => {
      const range = await zero(rig);
      const pin = await rig.process.pin(part(range, 200, 2), {});
      await rig.fill(part(range, 200, 2), 42);
      expect(new Float64Array((await pin.read()).buffer)[0]).toBe(42);
      await rig.check();
      await pin.release();
    });

    it.each(PARTS)('comes apart where a part of it changes: %i, %i pages', (first, pages) =>
      withHuge({ addressing }, async (rig) => {
        const range = await zero(rig);
        const again = await zero(rig);
        await rig.process.mprotect(part(range, first, pages), 'r');
        expect(await rig.mirror.migrate(part(again, first, pages), 'device')).toMatchObject({
          migrated: pages,
          errno: 0,
        });
        await rig.check();
        expect([await rig.rss(range), await rig.rss(again)]).toEqual([0, pages]);
        await rig.expectFilled(range, null);
        await rig.expectFilled(again, null);
        await rig.process.munmap(part(again, first, pages));
      }),
    );

    test('moves with mremap, goes with DONTNEED, is collapsed as it is', async (rig) => {
      const range = await zero(rig);
      const to = await rig.area();
      await rig.process.madvise(range, 'COLLAPSE');
      await rig.process.madvise(range, 'FREE');
      await rig.process.mremap(range, { to: to.start });
      await rig.expectFilled(to, null);
      expect(await rig.rss(to)).toBe(0);
      await rig.process.madvise(to, 'DONTNEED');
      await rig.fill(to, 3);
      expect(await rig.hugePages(to)).toBe(1);
    });
  });

  describe('COLLAPSE', () => {
    const small = async (rig: HugeRig) => {
      const range = await rig.process.mmap({ length: HUGE * PAGE });
      await rig.fill(range, 1000);
      expect(await rig.hugePages(range)).toBe(0);
      return range;
    };
    const collapse = (
      rig: HugeRig,
      range: { start: never; length: number } | Parameters<typeof rig.process.madvise>[0],
    ) => rig.process.madvise(range, 'COLLAPSE');

    test('over holes and zero pages', async (rig) => {
      const range = await rig.process.mmap({ length: HUGE * PAGE });
      await rig.fill(part(range, 3, 5), 1003);
      await rig.expectFilled(part(range, 100, 20), null);
      await collapse(rig, range);
      expect([await rig.hugePages(range), await rig.rss(range)]).toEqual([1, HUGE]);
      await rig.expectFilled(part(range, 0, 3), null);
      await rig.expectFilled(part(range, 3, 5), 1003);
      await rig.expectFilled(part(range, 8, HUGE - 8), null);
    });

    test('brings pages of devices and exclusive ones home first', async (rig) => {
      const range = await small(rig);
      expect(await rig.mirrors[0]!.migrate(part(range, 0, 40), 'device')).toMatchObject({ errno: 0 });
      expect(await rig.mirrors[1]!.migrate(part(range, 40, 40), 'device')).toMatchObject({ errno: 0 });
      expect(await rig.mirrors[1]!.exclusive(part(range, 100, 9))).toMatchObject({ errno: 0 });
      await collapse(rig, range);
      await rig.check();
      expect(await rig.hugePages(range)).toBe(1);
      expect([await rig.used(0), await rig.used(1)]).toEqual([0, 0]);
      await rig.expectFilled(range, 1000);
    });

    test('of pages that are held is EAGAIN, whichever way', async (rig) => {
      for (const kind of ['longterm', 'get'] as const) {
        const range = await small(rig);
        const held = await rig.process.pin(part(range, 17, 1), { kind });
        await expect(collapse(rig, range)).rejects.toMatchObject({ errno: 'EAGAIN' });
        expect(await rig.hugePages(range)).toBe(0);
        await held.release();
        await collapse(rig, range);
        expect(await rig.hugePages(range)).toBe(1);
        await rig.expectFilled(range, 1000);
        await rig.process.munmap(range);
      }
    });

    test('of what came apart makes it huge again', async (rig) => {
      const range = await rig.filled();
      await rig.process.mprotect(part(range, 100, 1), 'r');
      await rig.process.mprotect(part(range, 100, 1), 'rw');
      expect(await rig.hugePages(range)).toBe(0);
      await collapse(rig, range);
      expect(await rig.hugePages(range)).toBe(1);
      await rig.check();
      await rig.expectFilled(range, 1000);
    });

    test('of pages that a child shares leaves the child its own', async (rig) => {
      const range = await small(rig);
      const child = await rig.process.fork();
      await collapse(rig, range);
      expect([await rig.hugePages(range), await rig.hugePages(range, child)]).toEqual([1, 0]);
      await rig.fill(range, 2000);
      await rig.expectFilled(range, 1000, child);
      await rig.check();
      await child.exit();
    });

    test('is refused where it may not be, and fails where RAM has no block', async (rig) => {
      const range = await small(rig);
      const shared = await rig.process.mmap({ length: HUGE * PAGE, shared: true });
      await expect(collapse(rig, shared)).rejects.toMatchObject({ errno: 'EINVAL' });
      await expect(collapse(rig, await rig.process.mmap({ length: HUGE * PAGE }))).rejects.toMatchObject({
        errno: 'EINVAL',
      });
      await rig.process.madvise(range, 'NOHUGEPAGE');
      await expect(collapse(rig, range)).rejects.toMatchObject({ errno: 'EINVAL' });
      await rig.process.madvise(range, 'HUGEPAGE');
      const hog = await rig.fragment(1000);
      await expect(collapse(rig, range)).rejects.toMatchObject({ errno: 'ENOMEM' });
      await rig.process.munmap(hog);
      await collapse(rig, range);
      await rig.expectFilled(range, 1000);
    });
  });

  it.each([true, false])('DONTNEED of a part while all of it is dropped, the part first: %s', (partFirst) =>
    withHuge({ addressing }, async (rig) => {
      const range = await rig.filled();
      const [mm] = rig.state.kernel.mms;
      // Somebody who takes time to forget what is mapped: the split of the part is told of twice.
      const slow = mmuIntervalNotifierInsert(mm!, 0, 2 ** 47, {
        *invalidate(self, _range, seq) {
          mmuIntervalSetSeq(self, seq);
          for (let turn = 0; turn < 10; turn++) yield SCHEDULE_POINT;
        },
      });
      const advise = (what = range) => rig.process.madvise(what, 'DONTNEED');
      const some = part(range, 30, 99);
      await Promise.all(partFirst ? [advise(some), advise()] : [advise(), advise(some)]);
      await rig.state.executor.run('forget', mmuIntervalNotifierRemove(slow));
      await rig.check();
      expect(await rig.rss(range)).toBe(0);
      await rig.expectFilled(range, null);
    }),
  );

  test('RAM without a block of 2 MiB: faults take single pages', async (rig) => {
    const range = await rig.area();
    const hog = await rig.fragment(600);
    await rig.fill(range, 4000);
    expect([await rig.hugePages(range), await rig.rss(range)]).toEqual([0, HUGE]);
    await rig.expectFilled(range, 4000);
    await rig.check();
    await rig.process.munmap(hog);
  });

  it.each([
    ['always', 'NOHUGEPAGE', 1, 0],
    ['never', 'HUGEPAGE', 0, 0],
  ] as const)('hugePages: %s', (hugePages, advice, plain, advised) =>
    withHuge({ addressing, hugePages }, async (rig) => {
      const range = await rig.process.mmap({ length: HUGE * PAGE });
      await rig.fill(range, 1);
      expect(await rig.hugePages(range)).toBe(plain);
      await rig.process.madvise(range, 'DONTNEED');
      await rig.process.madvise(range, advice);
      await rig.fill(range, 1);
      expect(await rig.hugePages(range)).toBe(advised);
    }),
  );

  test('a snapshot says of a huge page that it is writable, and nothing else', async (rig) => {
    const range = await rig.filled();
    expect([...new Set(await rig.mirror.snapshot(part(range, 17, 30)))]).toEqual([WRITE | PMD]);
  });

  test('a migration that is called off leaves a huge page soft-dirty that was written before, and small ones as they were', async (rig) => {
    const range = await rig.filled(2 * HUGE);
    await rig.process.madvise(part(range, HUGE, HUGE), 'NOHUGEPAGE');
    await rig.process.mprotect(part(range, HUGE, 1), 'r');
    await rig.process.mprotect(part(range, HUGE, 1), 'rw');
    expect(await rig.hugePages(range)).toBe(1);
    await rig.process.clearRefs('soft-dirty');
    const held = await rig.process.pin(range, { kind: 'get' });
    expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ migrated: 0 });
    const softDirty = Array.from(await rig.process.pagemap(range), (word) => Number((word >> 55n) & 1n));
    expect(softDirty).toEqual([...Array(HUGE).fill(1), ...Array(HUGE).fill(0)]);
    await held.release();
  });
});
