/**
 * What a mirror forgets, and what it keeps, where no golden trace looks: each case is a few lines of Linux 7.2 (mm/memory.c unmap_vmas(),
 * lib/test_hmm.c dmirror_devmem_fault_alloc_and_copy(), kernel/exit.c do_exit()), and beside them two of anonymous memory.
 */
import { describe, expect, test } from 'vitest';
import type { Mirror, Process, VirtRange } from '#src/machine/types';
import { HUGE, mirroredTwice, PAGE } from './mirror-rig';

async function scene(addressing: 'legacy' | 'offset') {
  const rig = await mirroredTwice(addressing, '8MiB');
  return { ...rig, range: await rig.process.mmap({ length: 2 * HUGE }) };
}

/** Pages `first` to `first + count - 1` of a range. */
const pages = (range: VirtRange, first: number, count = 1): VirtRange => ({
  start: (range.start + first * PAGE) as VirtRange['start'],
  length: count * PAGE,
});
const write = (mirror: Mirror, range: VirtRange) =>
  mirror.writePages(
    range,
    Array.from({ length: range.length / PAGE }, (_, at) => BigInt(at + 1)),
  );
const faultsOf = async (mirror: Mirror, range: VirtRange): Promise<number> => (await mirror.readPages(range)).faults;
const touch = (process: Process, range: VirtRange) => process.write(range.start, Uint8Array.of(1));

describe.each(['legacy', 'offset'] as const)('%s', (addressing) => {
  test('munmap tells of all that it was asked for, so the page behind a hole at its end is forgotten', async () => {
    const { process, range, mirror } = await scene(addressing);
    await write(mirror, pages(range, 0, 9));
    await process.munmap(pages(range, 5));
    await write(mirror, pages(range, 6, 3));
    await process.munmap(pages(range, 4, 2));
    expect(await faultsOf(mirror, pages(range, 7))).toBe(0);
    expect(await faultsOf(mirror, pages(range, 6))).toBe(1);
    // Where there was nothing, nobody is told.
    await process.munmap(pages(range, 4, 2));
    expect(await faultsOf(mirror, pages(range, 6))).toBe(0);
  });

  test("a child's fault on a page makes its creator forget the address, whatever is there by now", async () => {
    const { process, range, mirror } = await scene(addressing);
    await write(mirror, pages(range, 0, 4));
    await mirror.migrate(pages(range, 0, 4), 'device');
    const child = await process.fork();
    await process.madvise(pages(range, 1), 'DONTNEED');
    await write(mirror, pages(range, 1));
    expect(await faultsOf(mirror, pages(range, 2))).toBe(1);
    await child.read(pages(range, 1).start, 1);
    expect(await faultsOf(mirror, pages(range, 2))).toBe(0);
    expect(await faultsOf(mirror, pages(range, 1))).toBe(1);
  });

  test('a process gives up its memory before its files: nobody hears of pages that only it had', async () => {
    const { process, range, mirror, other } = await scene(addressing);
    await write(mirror, pages(range, 0, 4));
    await mirror.migrate(pages(range, 1), 'device');
    const child = await process.fork();
    await mirror.close();
    await process.madvise(pages(range, 1), 'DONTNEED');
    await write(other, pages(range, 1, 2));
    await child.exit();
    expect([await faultsOf(other, pages(range, 1)), await faultsOf(other, pages(range, 2))]).toEqual([0, 0]);
  });

  test('what a process that ends has written does not count as written by who is left', async () => {
    const { process, range } = await scene(addressing);
    await process.write(range.start, new Uint8Array(2 * PAGE).fill(1));
    const child = await process.fork();
    await process.madvise(pages(range, 0, 2), 'FREE');
    await child.exit();
    expect(await process.smaps(pages(range, 0, 2))).toMatchObject({ prc: 8, prd: 0 });
  });

  test('the last page of a large folio is copied, not taken over', async () => {
    const { process, range, mirror } = await scene(addressing);
    const huge = { start: (Math.ceil(range.start / HUGE) * HUGE) as VirtRange['start'], length: HUGE };
    await process.madvise(huge, 'HUGEPAGE');
    await touch(process, huge);
    const child = await process.fork();
    await process.munmap(pages(huge, 0, 100));
    await process.munmap(pages(huge, 101, 411));
    await child.exit();
    expect(await faultsOf(mirror, pages(huge, 100))).toBe(1);
    await touch(process, pages(huge, 100));
    expect(await faultsOf(mirror, pages(huge, 100))).toBe(1);
  });

  test('a pin goes on behind an allocation that fails once, as who asks for it tries again', async () => {
    const { process, range, mirror, machine } = await scene(addressing);
    await process.write(range.start, new Uint8Array(4 * PAGE).fill(1));
    await mirror.migrate(pages(range, 1, 3), 'device');
    await mirror.failNextAllocation();
    await using pin = await process.pin(pages(range, 0, 4), { write: true });
    expect(pin.pages).toBe(4);
    expect((await machine.stats()).migratedToRam).toBe(3);
  });

  test('a first page that cannot be had ends a pin, and nothing stays pinned', async () => {
    const { process, range, mirror } = await scene(addressing);
    await touch(process, range);
    await mirror.migrate(pages(range, 0), 'device');
    await mirror.failNextAllocation();
    await expect(process.pin(pages(range, 0, 2))).rejects.toMatchObject({ errno: 'ENOMEM' });
    await process.munmap(pages(range, 3));
    await expect(process.pin(pages(range, 1, 4))).rejects.toMatchObject({ errno: 'EFAULT' });
    // The first is there already.
    expect(await mirror.migrate(pages(range, 0, 3), 'device')).toMatchObject({ migrated: 2 });
  });

  test('references are taken of what is mapped, also where the process may only write', async () => {
    const { process, range } = await scene(addressing);
    await process.write(range.start, new Uint8Array(2 * PAGE).fill(1));
    await process.mprotect(pages(range, 0, 4), 'w');
    await using held = await process.pin(pages(range, 0, 4), { kind: 'get' });
    expect(held.pages).toBe(2);
    await process.mprotect(pages(range, 0, 4), 'none');
    await expect(process.pin(pages(range, 0), { kind: 'get' })).rejects.toMatchObject({ errno: 'EFAULT' });
    await expect(process.pin(pages(range, 0))).rejects.toMatchObject({ errno: 'EFAULT' });
  });

  test('a migration home that fails has looked no further than its round of 512', async () => {
    const { process, range, mirror, other } = await scene(addressing);
    await write(mirror, pages(range, 0, 4));
    await mirror.migrate(pages(range, 0, 4), 'device');
    await write(other, pages(range, 600, 4));
    await mirror.failNextAllocation();
    expect(await mirror.migrate(pages(range, 0, 1024), 'system')).toMatchObject({ errno: 'ENOMEM' });
    expect(await faultsOf(other, pages(range, 600, 4))).toBe(0);
    expect(await process.read(range.start, 1)).toEqual(Uint8Array.of(1));
  });

  test('MADV_COLLAPSE: of shared memory that could be huge, and under PROT_NONE', async () => {
    const { process, range, mirror } = await scene(addressing);
    const start = (Math.ceil(range.start / HUGE) * HUGE - 2 * HUGE) as VirtRange['start'];
    const shared = await process.mmap({ at: start, length: HUGE, shared: true });
    await process.madvise(pages(shared, 1, 5), 'COLLAPSE');
    // There is nothing in it (SCAN_TRUNCATED).
    await expect(process.madvise(shared, 'COLLAPSE')).rejects.toMatchObject({ errno: 'EINVAL' });
    await process.madvise(shared, 'NOHUGEPAGE');
    await expect(process.madvise(pages(shared, 1, 5), 'COLLAPSE')).rejects.toMatchObject({ errno: 'EINVAL' });
    const odd = await process.mmap({
      at: (start - 2 * HUGE - PAGE) as VirtRange['start'],
      length: 2 * HUGE,
      shared: true,
    });
    await expect(process.madvise(pages(odd, 1, 5), 'COLLAPSE')).rejects.toMatchObject({ errno: 'EINVAL' });
    const small = { start: (Math.ceil(range.start / HUGE) * HUGE) as VirtRange['start'], length: HUGE };
    await process.madvise(small, 'NOHUGEPAGE');
    await touch(process, small);
    await mirror.migrate(pages(small, 0), 'device');
    await process.madvise(small, 'HUGEPAGE');
    await process.mprotect(small, 'none');
    await process.madvise(small, 'COLLAPSE');
    expect(await process.smaps(small)).toMatchObject({ ahp: 2048 });
  });
});
