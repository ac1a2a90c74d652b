/**
 * What one round of a migration, one block of a collapse, one entry of MADV_FREE does to those before it, where no golden trace looks: an
 * oracle that was written from Linux's sources, and fuzzed against this, found each (lib/test_hmm.c dmirror_migrate_to_device(),
 * dmirror_devmem_fault(); mm/khugepaged.c madvise_collapse(); mm/madvise.c madvise_free_pte_range()).
 */
import { describe, expect, test } from 'vitest';
import type { Process, VirtRange } from '#src/machine/types';
import { HUGE, mirroredTwice, PAGE } from './mirror-rig';

async function scene(addressing: 'legacy' | 'offset') {
  const rig = await mirroredTwice(addressing, '16MiB');
  const { process } = rig;
  // 2 MiB aligned, and then gone: tests map what they need of it.
  const arena = await process.mmap({ length: 8 * HUGE });
  const base = Math.ceil(arena.start / HUGE) * HUGE;
  await process.munmap(arena);
  const pages = (first: number, count: number): VirtRange => ({
    start: (base + first * PAGE) as VirtRange['start'],
    length: count * PAGE,
  });
  const map = (first: number, count: number, protection: 'r' | 'rw' = 'rw') =>
    process.mmap({ length: count * PAGE, at: pages(first, count).start, protection });
  return { ...rig, pages, map };
}

/** Something else than zeroes into every page. */
const fill = (process: Process, { start, length }: VirtRange) => process.write(start, new Uint8Array(length).fill(7));

describe.each(['legacy', 'offset'] as const)('%s', (addressing) => {
  test('a folio that comes apart in a later VMA takes what an earlier one has mapped out again', async () => {
    const { process, pages, map, mirror } = await scene(addressing);
    await map(512, 512);
    await process.madvise(pages(512, 512), 'HUGEPAGE');
    await fill(process, pages(512, 512));
    await map(520, 1, 'r');
    // Page 520 is there when everybody is told of [512, 520), and the page behind it goes with that.
    expect(await mirror.migrate(pages(520, 2), 'device')).toMatchObject({ migrated: 2, errno: 'ENOENT' });
    expect(await mirror.peekPages(pages(521, 1))).toMatchObject({ errno: 0 });
    expect(await mirror.peekPages(pages(520, 1))).toMatchObject({ errno: 'ENOENT' });
  });

  test('and in a later round of 512 pages in the same VMA', async () => {
    const { process, pages, map, mirror } = await scene(addressing);
    await map(0, 1024);
    await process.madvise(pages(0, 1024), 'HUGEPAGE');
    await fill(process, pages(512, 512));
    await process.madvise(pages(512, 100), 'DONTNEED');
    expect(await mirror.migrate(pages(100, 800), 'device')).toMatchObject({ errno: 'ENOENT' });
    // The first round was 100..611; the folio of 612 was told of from 512 on.
    expect(await mirror.peekPages(pages(100, 412))).toMatchObject({ errno: 0 });
    expect(await mirror.peekPages(pages(512, 1))).toMatchObject({ errno: 'ENOENT' });
    expect(await mirror.peekPages(pages(611, 1))).toMatchObject({ errno: 'ENOENT' });
    expect(await mirror.peekPages(pages(612, 288))).toMatchObject({ errno: 0 });
  });

  test('rounds that begin with leaf tables go together, and order what they hear as if they did not', async () => {
    const { process, pages, map, mirror } = await scene(addressing);
    await map(2048, 1536);
    await process.madvise(pages(2048, 1536), 'HUGEPAGE');
    await fill(process, pages(2048, 1536));
    // Three folios by small entries, each across the border of two rounds: 256, 768 and 1280. Of the second the first round has nothing.
    await process.mremap(pages(2048, 1536), { to: pages(256, 1536).start });
    await process.madvise(pages(768, 256), 'DONTNEED');
    expect(await mirror.migrate(pages(512, 1024), 'device')).toMatchObject({ errno: 'ENOENT' });
    const there = Array.from({ length: 1024 }, (_, at) => mirror.peekPages(pages(512 + at, 1)));
    const gone = (await Promise.all(there)).flatMap(({ errno }, at) => (errno === 0 ? [] : [512 + at]));
    expect(gone).toEqual(Array.from({ length: 256 }, (_, at) => 768 + at));
  });

  test('a page of another place in the same process is told of where the reverse map leads', async () => {
    const { process, pages, map, mirror } = await scene(addressing);
    await map(0, 8);
    await fill(process, pages(0, 8));
    await process.mremap(pages(0, 4), { to: pages(8, 4).start });
    await map(0, 4);
    await process.fork();
    expect(await mirror.migrate(pages(0, 12), 'device')).toMatchObject({ errno: 'ENOENT' });
    // Pages 8 to 11 might be mapped at 0 to 3, too, for all that the reverse map knows; and 4 is the page behind those.
    const there = Array.from({ length: 12 }, (_, at) => mirror.peekPages(pages(at, 1)));
    expect((await Promise.all(there)).map(({ errno }) => errno)).toEqual([
      ...Array(5).fill('ENOENT'),
      ...Array(7).fill(0),
    ]);
  });

  test('whoever made a huge page is asked for an allocation that fails, by whichever of its pages it is met', async () => {
    const { process, pages, map, mirror, other } = await scene(addressing);
    await map(0, 512);
    await process.madvise(pages(0, 512), 'HUGEPAGE');
    await fill(process, pages(0, 512));
    expect(await mirror.migrate(pages(0, 512), 'device')).toMatchObject({ folios: 1 });
    await process.mprotect(pages(0, 8), 'r');
    await mirror.failNextAllocation();
    expect(await mirror.exclusive(pages(100, 1))).toMatchObject({ errno: 'ENOMEM' });
    await mirror.failNextAllocation();
    expect(await other.readPages(pages(100, 4))).toMatchObject({ errno: 'EFAULT' });
    expect(await other.readPages(pages(100, 4))).toMatchObject({ errno: 0 });
  });

  test('COLLAPSE ends where a page cannot be brought home, and skips what is held', async () => {
    const { process, pages, map, mirror } = await scene(addressing);
    await map(0, 1024);
    await fill(process, pages(0, 1024));
    await mirror.migrate(pages(0, 8), 'device');
    await mirror.failNextAllocation();
    await expect(process.madvise(pages(0, 1024), 'COLLAPSE')).rejects.toMatchObject({ errno: 'EINVAL' });
    expect(await process.smaps(pages(0, 1024))).toMatchObject({ ahp: 0 });
    const held = await process.pin(pages(0, 1), { kind: 'get' });
    await expect(process.madvise(pages(0, 1024), 'COLLAPSE')).rejects.toMatchObject({ errno: 'EAGAIN' });
    expect(await process.smaps(pages(0, 1024))).toMatchObject({ ahp: 2048 });
    await held.release();
  });

  test('MADV_FREE takes a folio apart where it meets it: what it has passed over stays dirty', async () => {
    const { process, pages, map, mirror } = await scene(addressing);
    await map(0, 512);
    await process.madvise(pages(0, 512), 'HUGEPAGE');
    await fill(process, pages(0, 512));
    // A device has the first pages: their entries are not present, so the rest is not all of the folio.
    await process.mprotect(pages(0, 8), 'r');
    await process.mprotect(pages(0, 8), 'rw');
    expect(await mirror.exclusive(pages(0, 64))).toMatchObject({ errno: 0 });
    await process.madvise(pages(0, 512), 'FREE');
    expect(await process.smaps(pages(0, 512))).toMatchObject({ rss: 2048, prd: 256, prc: 1792 });
  });
});
