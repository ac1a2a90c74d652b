/** Userfaultfd write protection through the public API: machines at rest with accesses asleep, devices, huge pages. */
import { describe, expect, it, test } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { boot } from '#src/check/boot';
import type { Process, VirtRange } from '#src/machine/types';
import { HUGE, PAGE, part, withHuge } from './huge-rig';

const at = (range: VirtRange, page: number): VirtAddr => (range.start + page * PAGE) as VirtAddr;

/** pagemap's bit 57 of each page. */
const protectedPages = async (process: Process, range: VirtRange): Promise<number[]> =>
  [...(await process.pagemap(range))].map((word) => Number((word >> 57n) & 1n));
const firstOnly = (pages: number, count: number): number[] =>
  Array.from({ length: pages }, (_, i) => (i < count ? 1 : 0));

describe.each(['inline', 'threads'] as const)('userfaultfd (%s)', (executor) => {
  test('a machine is at rest while a store sleeps, and the store goes on when it may', async () => {
    await using machine = await boot({ executor, memory: { ram: '16MiB' }, devices: [{ memory: '4MiB' }] });
    const process = await machine.process();
    const range = await process.mmap({ length: 4 * PAGE });
    await process.write(range.start, new Uint8Array(4 * PAGE).fill(1));
    await using mirror = await process.mirror(0);
    const uffd = await process.userfaultfd();
    await uffd.register(range);
    await uffd.protect(part(range, 0, 2));
    expect(await process.proc('smaps')).toContain(' uw ');
    await mirror.migrate(range, 'device');
    expect(await protectedPages(process, range)).toEqual([1, 1, 0, 0]);
    let done = false;
    const store = process.write(at(range, 1), Uint8Array.of(9)).then(() => (done = true));
    while (uffd.waiting === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(await uffd.read()).toEqual([{ address: at(range, 1), write: true, wp: true }]);
    await machine.settle();
    expect(await machine.check()).toEqual([]);
    // A device does not wait.
    await expect(
      mirror.launch('fill', { lanes: 1, args: { target: range.start, count: 1, value: 3, step: 0 } }),
    ).rejects.toMatchObject({
      code: 'ERR_PFNLESS_FAULT',
    });
    expect(await mirror.read(at(range, 1), 1)).toEqual(Uint8Array.of(1));
    expect(done).toBe(false);
    await uffd.resolve(part(range, 1, 1));
    await store;
    expect(await process.read(at(range, 1), 1)).toEqual(Uint8Array.of(9));
    expect(await protectedPages(process, range)).toEqual([1, 0, 0, 0]);
    await uffd.close();
    expect(await protectedPages(process, range)).toEqual([0, 0, 0, 0]);
    expect(await machine.check()).toEqual([]);
    await expect(uffd.read()).rejects.toMatchObject({ code: 'ERR_PFNLESS_DISPOSED' });
  });

  test('a list that sleeps leaves its CPU to others, and goes on where it was', async () => {
    await using machine = await boot({ executor, memory: { ram: '16MiB' }, devices: [], cpus: 1 });
    const [process, other] = [await machine.process(), await machine.process()];
    const range = await process.mmap({ length: 3 * PAGE });
    const elsewhere = await other.mmap({ length: PAGE });
    await process.writeArray('i32', range.start, new Int32Array(3 * 1024).fill(1));
    const uffd = await process.userfaultfd();
    await uffd.register(range);
    await uffd.protect(part(range, 1, 1));
    const store = (page: number) => ({ kind: 'store' as const, address: at(range, page), value: 5 });
    const sleeper = process.execute(1, [store(0), store(1), store(2)]);
    while (uffd.waiting === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    for (let round = 0; round < 3; round++) {
      const [add] = await other.execute(1, [{ kind: 'add', address: elsewhere.start, value: 1 }]);
      expect(add).toEqual({ outcome: 'done', found: round });
      await machine.settle();
      expect(await machine.check()).toEqual([]);
    }
    expect([...(await process.readArray('i32', range.start, 3 * 1024))].filter((_, i) => i % 1024 === 0)).toEqual([
      5, 1, 1,
    ]);
    await uffd.resolve(range);
    expect((await sleeper).map(({ outcome }) => outcome)).toEqual(['done', 'done', 'done']);
    expect([...(await process.readArray('i32', range.start, 3 * 1024))].filter((_, i) => i % 1024 === 0)).toEqual([
      5, 5, 5,
    ]);
    expect(await machine.check()).toEqual([]);
  });

  test("a process's exit lets those go who sleep", async () => {
    await using machine = await boot({ executor, memory: { ram: '16MiB' }, devices: [] });
    const process = await machine.process();
    const range = await process.mmap({ length: PAGE });
    await process.write(range.start, Uint8Array.of(1));
    const uffd = await process.userfaultfd();
    await uffd.register(range);
    await uffd.protect(range);
    const store = process.write(range.start, Uint8Array.of(2));
    while (uffd.waiting === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const leaving = process.exit();
    // With its userfaultfd the protection goes: the store is done before the memory goes as well.
    await expect(store).resolves.toBeUndefined();
    expect(uffd.waiting).toBe(0);
    await leaving;
    expect(await machine.check()).toEqual([]);
  });

  test('a machine that is disposed of lets them go as well', async () => {
    const machine = await boot({ executor, memory: { ram: '16MiB' }, devices: [] });
    const process = await machine.process();
    const range = await process.mmap({ length: PAGE });
    await process.write(range.start, Uint8Array.of(1));
    const uffd = await process.userfaultfd();
    await uffd.register(range);
    await uffd.protect(range);
    const store = process.write(range.start, Uint8Array.of(2));
    while (uffd.waiting === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    await machine.dispose();
    await store;
  });
});

it('says what is wrong with its arguments', async () => {
  await using machine = await boot({ executor: 'inline', memory: { ram: '16MiB' }, devices: [], hugetlbPages: 1 });
  const process = await machine.process();
  const argument = { code: 'ERR_PFNLESS_ARGUMENT' };
  await expect(process.userfaultfd({ wpAsnyc: true } as never)).rejects.toMatchObject(argument);
  await expect(process.userfaultfd({ wpAsync: 1 } as never)).rejects.toMatchObject(argument);
  const uffd = await process.userfaultfd();
  await expect(uffd.protect({ start: 1 as VirtAddr, length: PAGE })).rejects.toMatchObject(argument);
  const pool = await process.mmap({ length: 2 ** 21, hugetlb: true });
  await expect(uffd.register(pool)).rejects.toMatchObject({ errno: 'EINVAL' });
  const range = await process.mmap({ length: PAGE });
  await expect(uffd.protect(range)).rejects.toMatchObject({ errno: 'ENOENT' });
  await uffd.register(range);
  const other = await process.userfaultfd();
  await expect(other.register(range)).rejects.toMatchObject({ errno: 'EBUSY' });
});

describe('userfaultfd and huge pages', () => {
  it('a huge page is protected whole; of a part of one only that part', () =>
    withHuge({}, async ({ process, ...rig }) => {
      const range = await process.mmap({ length: 2 * HUGE * PAGE });
      await process.madvise(range, 'HUGEPAGE');
      for (const page of [0, HUGE]) await process.write(at(range, page), Uint8Array.of(1));
      const uffd = await process.userfaultfd();
      await uffd.register(range);
      await uffd.protect(part(range, 0, HUGE + 2));
      // The second was split for its two pages.
      expect((await process.smaps(range)).ahp).toBe(2048);
      expect(await protectedPages(process, range)).toEqual(firstOnly(2 * HUGE, HUGE + 2));
      const store = process.write(at(range, 7), Uint8Array.of(3));
      while (uffd.waiting === 0) await new Promise((resolve) => setTimeout(resolve, 1));
      expect(await uffd.read()).toEqual([{ address: at(range, 7), write: true, wp: true }]);
      // A border in the middle of it: every part keeps the bit.
      await uffd.unregister(part(range, 8, 2 * HUGE - 8));
      expect(await protectedPages(process, range)).toEqual(firstOnly(2 * HUGE, 8));
      await uffd.resolve(part(range, 7, 1));
      await store;
      expect(await protectedPages(process, range)).toEqual(firstOnly(2 * HUGE, 7));
      expect(await rig.machine.check()).toEqual([]);
    }));

  it('it goes to the device and comes back as one, with its protection', () =>
    withHuge({}, async (rig) => {
      const range = await rig.filled();
      const uffd = await rig.process.userfaultfd();
      await uffd.register(range);
      await uffd.protect(range);
      expect((await rig.mirror.migrate(range, 'device')).folios).toBe(1);
      expect(await protectedPages(rig.process, range)).toEqual(firstOnly(HUGE, HUGE));
      await rig.check();
      expect(await rig.process.read(at(range, 9), 8)).toEqual(new Uint8Array(Float64Array.of(1009).buffer));
      expect(await rig.hugePages(range)).toBe(1);
      expect(await protectedPages(rig.process, range)).toEqual(firstOnly(HUGE, HUGE));
      await rig.check();
      // Protected while it is there, and moved: without the bit that is resolved meanwhile.
      await rig.mirror.migrate(range, 'device');
      await uffd.resolve(range);
      await uffd.protect(range);
      await uffd.resolve(range);
      await rig.fill(range, 50);
      await rig.expectFilled(range, 50);
      const moved = await rig.process.mremap(range, { to: (range.start - 2 ** 30) as VirtAddr });
      expect(await protectedPages(rig.process, moved)).toEqual(firstOnly(HUGE, 0));
    }));

  it('mremap moves a huge page without its protection, as one', () =>
    withHuge({}, async (rig) => {
      const range = await rig.filled();
      const uffd = await rig.process.userfaultfd();
      await uffd.register(range);
      await uffd.protect(range);
      const to = (range.start - 2 ** 30) as VirtAddr;
      const moved = await rig.process.mremap(range, { to });
      expect(await rig.hugePages(moved)).toBe(1);
      expect(await protectedPages(rig.process, moved)).toEqual(firstOnly(HUGE, 0));
      await rig.fill(moved, 5);
      await rig.check();
    }));

  it('wpAsync: a store splits it, and one small page is protected no more; it does not collapse before all is resolved', () =>
    withHuge({}, async (rig) => {
      const range = await rig.filled();
      const uffd = await rig.process.userfaultfd({ wpAsync: true });
      await uffd.register(range);
      await uffd.protect(range);
      await rig.process.write(at(range, 5), Uint8Array.of(3));
      expect(await protectedPages(rig.process, range)).toEqual(
        Array.from({ length: HUGE }, (_, i) => (i === 5 ? 0 : 1)),
      );
      await expect(rig.process.madvise(range, 'COLLAPSE')).rejects.toMatchObject({ errno: 'EINVAL' });
      await uffd.resolve(range);
      await rig.process.madvise(range, 'COLLAPSE');
      expect(await rig.hugePages(range)).toBe(1);
      // Where nothing is mapped it hears of everything, so nothing is put there unasked.
      const other = await rig.area();
      await rig.process.madvise(other, 'NOHUGEPAGE');
      await rig.process.write(other.start, Uint8Array.of(1));
      await rig.process.madvise(other, 'HUGEPAGE');
      await uffd.register(other);
      await expect(rig.process.madvise(other, 'COLLAPSE')).rejects.toMatchObject({ errno: 'EBUSY' });
    }));

  it('what is protected behind the end of a file is no page, and stays protected when the file becomes shorter', () =>
    withHuge({}, async (rig) => {
      const file = await rig.machine.file({ size: 4 * PAGE });
      const range = await rig.process.mmap({ length: 8 * PAGE, file, shared: true });
      const uffd = await rig.process.userfaultfd({ wpAsync: true });
      await uffd.register(range);
      await uffd.protect(range);
      expect(await protectedPages(rig.process, range)).toEqual(firstOnly(8, 8));
      await rig.check();
      await file.truncate(PAGE);
      expect(await protectedPages(rig.process, range)).toEqual(firstOnly(8, 8));
      await rig.check();
      await rig.process.munmap(range);
      await file.close();
    }));

  it('unregister is for what could have been registered without wpAsync, or was', () =>
    withHuge({}, async (rig) => {
      const file = await rig.machine.file({ size: PAGE });
      const range = await rig.process.mmap({ length: 2 * PAGE });
      await rig.process.mmap({ at: range.start + PAGE, length: PAGE, file, shared: true });
      const uffd = await rig.process.userfaultfd({ wpAsync: true });
      await uffd.register(part(range, 0, 1));
      await expect(uffd.unregister(range)).rejects.toMatchObject({ errno: 'EINVAL' });
      await uffd.register(range);
      await uffd.unregister(range);
      await rig.process.munmap(range);
      await file.close();
    }));

  it('the huge zero page keeps the bit in its parts', () =>
    withHuge({}, async (rig) => {
      const range = await rig.area();
      await rig.process.read(range.start, 1);
      const uffd = await rig.process.userfaultfd({ wpAsync: true });
      await uffd.register(range);
      await uffd.protect(range);
      expect(await protectedPages(rig.process, range)).toEqual(firstOnly(HUGE, HUGE));
      await rig.process.write(range.start, Uint8Array.of(1));
      expect(await protectedPages(rig.process, range)).toEqual([0, ...firstOnly(HUGE - 1, HUGE - 1)]);
      await rig.check();
    }));
});
