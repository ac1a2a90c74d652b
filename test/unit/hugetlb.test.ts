/** Memory from the pool of huge pages: reservations, copy-on-write, and what the kernel's calls answer. */
import { describe, expect, it } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import type { Process } from '#src/machine/types';
import { smapsText } from '#src/mm/proc-smaps';
import { HUGE, type HugeRig, PAGE, part, withHuge } from './huge-rig';

const POOL = 4;
const BYTES = HUGE * PAGE;

describe.each(['legacy', 'offset'] as const)('hugetlb, %s addressing', (addressing) => {
  const test = (name: string, body: (rig: HugeRig) => Promise<void>): void => {
    it(name, () => withHuge({ addressing, hugetlbPages: POOL }, body));
  };
  const map = ({ process }: HugeRig, pages = 1) => process.mmap({ length: pages * BYTES, hugetlb: true });
  const pool = async ({ machine }: HugeRig): Promise<readonly [free: number, reserved: number]> => {
    const { free, reserved } = (await machine.stats()).hugetlb;
    return [free, reserved];
  };
  const sums = ({ state }: HugeRig, { pid }: Process): number[] => {
    const mm = [...state.kernel.mms].find((each) => each.pid === pid)!;
    const text = smapsText(state.kernel, mm);
    return ['Private_Hugetlb', 'Shared_Hugetlb'].map((name) => {
      return [...text.matchAll(new RegExp(`${name}: *(\\d+) kB`, 'g'))].reduce((sum, [, kib]) => sum + Number(kib), 0);
    });
  };
  const SIGBUS = { signal: 'SIGBUS' };

  test('a mapping reserves all of its pages, takes them as they are touched, and gives back both', async (rig) => {
    const range = await rig.process.mmap({ length: 2 * BYTES + 1, hugetlb: true });
    expect([range.length, range.start % BYTES]).toEqual([3 * BYTES, 0]);
    expect(await pool(rig)).toEqual([4, 3]);
    await rig.expectFilled(part(range, HUGE, 4), null);
    await rig.fill(part(range, HUGE + 9, 1), 5);
    expect(await pool(rig)).toEqual([3, 2]);
    expect(sums(rig, rig.process)).toEqual([2048, 0]);
    await rig.check();
    // What nobody may have is not there: two of the three that are free are promised.
    await expect(map(rig, 2)).rejects.toMatchObject({ errno: 'ENOMEM' });
    const other = await map(rig);
    await rig.process.munmap(part(range, 0, HUGE));
    expect(await pool(rig)).toEqual([3, 2]);
    await rig.process.munmap(range);
    await rig.process.munmap(other);
    expect(await pool(rig)).toEqual([4, 0]);
    await rig.check();
  });

  test('a page that was used before is zeroed', async (rig) => {
    for (let round = 0; round < POOL + 1; round++) {
      const range = await map(rig);
      await rig.expectFilled(range, null);
      await rig.fill(range, 1);
      await rig.process.munmap(range);
    }
  });

  test('half of a page cannot be unmapped, protected, moved, advised or mapped over', async (rig) => {
    const range = await map(rig, 2);
    await rig.fill(range, 1000);
    const { process } = rig;
    const half = part(range, 0, HUGE / 2);
    const across = part(range, HUGE / 2, HUGE);
    for (const bad of [half, across]) {
      await expect(process.munmap(bad)).rejects.toMatchObject({ errno: 'EINVAL' });
      await expect(process.mprotect(bad, 'r')).rejects.toMatchObject({ errno: 'EINVAL' });
      await expect(process.madvise(bad, 'NOHUGEPAGE')).rejects.toMatchObject({ errno: 'EINVAL' });
      await expect(process.mmap({ length: bad.length, at: bad.start })).rejects.toMatchObject({ errno: 'EINVAL' });
    }
    await expect(process.mremap(across, { to: (range.start - 8 * BYTES) as VirtAddr })).rejects.toMatchObject({
      errno: 'EINVAL',
    });
    await expect(process.madvise(across, 'DONTNEED')).rejects.toMatchObject({ errno: 'EINVAL' });
    for (const advice of ['FREE', 'COLLAPSE'] as const) {
      await expect(process.madvise(range, advice)).rejects.toMatchObject({ errno: 'EINVAL' });
    }
    await expect(process.mremap(range, { length: 3 * BYTES })).rejects.toMatchObject({ errno: 'EINVAL' });
    await expect(process.mmap({ length: BYTES, at: half.start, hugetlb: true, shared: true })).rejects.toThrow(
      /private/,
    );
    await expect(process.mmap({ length: BYTES, at: part(range, 1, 1).start, hugetlb: true })).rejects.toMatchObject({
      errno: 'EINVAL',
    });
    // It ends inside of a page: that page stays.
    await process.madvise(part(range, 0, HUGE + 7), 'DONTNEED');
    await rig.check();
    await rig.expectFilled(part(range, 0, HUGE), null);
    await rig.expectFilled(part(range, HUGE, HUGE), 1000 + HUGE);
  });

  test('mprotect takes rights away at once, and a store brings the right to write back', async (rig) => {
    const range = await map(rig, 2);
    await rig.fill(range, 1000);
    await rig.process.mprotect(part(range, 0, HUGE), 'none');
    await expect(rig.expectFilled(part(range, 3, 1), 0)).rejects.toMatchObject({ signal: 'SIGSEGV' });
    await rig.expectFilled(part(range, HUGE, 1), 1000 + HUGE);
    await rig.process.mprotect(range, 'r');
    await expect(rig.fill(range, 1)).rejects.toMatchObject({ signal: 'SIGSEGV' });
    await rig.process.mprotect(range, 'rw');
    await rig.expectFilled(range, 1000);
    await rig.fill(range, 2000);
    await rig.expectFilled(range, 2000);
    expect(await pool(rig)).toEqual([2, 0]);
  });

  test('mremap moves whole pages, touched or not, and the reservation with them', async (rig) => {
    const range = await map(rig, 3);
    await rig.fill(part(range, HUGE, HUGE), 1000);
    const to = (range.start - 2 ** 30) as VirtAddr;
    await rig.process.mremap(range, { to });
    await rig.check();
    expect(await pool(rig)).toEqual([3, 2]);
    const moved = { start: to, length: range.length };
    await rig.expectFilled(part(moved, HUGE, HUGE), 1000);
    await rig.process.mremap(moved, { length: 2 * BYTES });
    expect(await pool(rig)).toEqual([3, 1]);
    await rig.fill(part(moved, 0, HUGE), 7);
    expect(await pool(rig)).toEqual([2, 0]);
    // Lengths are rounded up to whole pages.
    expect(await rig.process.mremap(part(moved, 0, 2 * HUGE), { length: BYTES + PAGE })).toEqual(
      part(moved, 0, 2 * HUGE),
    );
    expect(await rig.process.mremap(part(moved, 0, 1), { to: range.start })).toEqual(part(range, 0, HUGE));
    await rig.expectFilled(part(range, 0, HUGE), 7);
    await rig.process.mremap(part(range, 0, 1), { to });
    await expect(rig.process.mremap(part(moved, 0, HUGE), { dontUnmap: true })).rejects.toMatchObject({
      errno: 'EINVAL',
    });
  });

  test('fork shares; whoever writes copies; the last one keeps', async (rig) => {
    const range = await map(rig);
    await rig.fill(range, 1000);
    const child = await rig.process.fork();
    expect(await pool(rig)).toEqual([3, 0]);
    expect([sums(rig, rig.process), sums(rig, child)]).toEqual([
      [0, 2048],
      [0, 2048],
    ]);
    await rig.fill(range, 2000, child);
    expect(await pool(rig)).toEqual([2, 0]);
    expect(sums(rig, child)).toEqual([2048, 0]);
    await rig.expectFilled(range, 1000);
    await rig.check();
    await rig.fill(range, 3000);
    await rig.expectFilled(range, 2000, child);
    expect(await pool(rig)).toEqual([2, 0]);
    await child.exit();
    expect(await pool(rig)).toEqual([3, 0]);
  });

  test('an empty pool: SIGBUS for a child’s copy, and for what DONTNEED dropped', async (rig) => {
    const range = await map(rig);
    await rig.fill(range, 1000);
    const child = await rig.process.fork();
    const rest = await map(rig, 3);
    await expect(rig.fill(part(range, 0, 1), 1, child)).rejects.toMatchObject(SIGBUS);
    await rig.expectFilled(range, 1000, child);
    await child.exit();
    await rig.process.madvise(range, 'DONTNEED');
    expect(await pool(rig)).toEqual([4, 3]);
    // Somebody else is faster.
    const thief = await rig.process.mmap({ length: BYTES, hugetlb: true });
    await rig.fill(thief, 1);
    await expect(rig.expectFilled(part(range, 0, 1), null)).rejects.toMatchObject(SIGBUS);
    await rig.fill(rest, 4);
    await rig.check();
  });

  test('an empty pool: the owner takes the page from its child, which may not touch it any more', async (rig) => {
    const range = await map(rig, 4);
    await rig.fill(range, 1000);
    const child = await rig.process.fork();
    expect(await pool(rig)).toEqual([0, 0]);
    await rig.fill(part(range, 5, 1), 2005);
    await rig.check();
    await rig.expectFilled(part(range, HUGE, HUGE), 1000 + HUGE, child);
    await expect(rig.expectFilled(part(range, 0, 1), 1000, child)).rejects.toMatchObject(SIGBUS);
    await rig.process.munmap(part(range, 2 * HUGE, HUGE));
    // There is a page, but zeroes would not be what was there.
    await expect(rig.fill(part(range, 0, 1), 1, child)).rejects.toMatchObject(SIGBUS);
    await rig.expectFilled(part(range, 5, 1), 2005);
    await rig.check();
    await child.exit();
  });

  test('pins hold the page for whoever wrote it; fork copies it at once, or fails', async (rig) => {
    const range = await map(rig);
    await rig.fill(range, 1000);
    const pin = await rig.process.pin(part(range, 40, 2), { write: true });
    const child = await rig.process.fork();
    expect(await pool(rig)).toEqual([2, 0]);
    await rig.fill(range, 2000);
    expect(new Float64Array((await pin.read()).buffer)[0]).toBe(2040);
    await rig.expectFilled(range, 1000, child);
    await child.exit();
    const rest = await map(rig, 3);
    await expect(rig.process.fork()).rejects.toMatchObject({ errno: 'ENOMEM' });
    await rig.check();
    await pin.release();
    await rig.process.munmap(rest);
  });

  test('a reference outlives the mapping, and the page is the pool’s again afterwards', async (rig) => {
    const range = await map(rig);
    await rig.fill(range, 1000);
    const held = await rig.process.pin(part(range, 511, 1), { kind: 'get' });
    await rig.process.munmap(range);
    expect(await pool(rig)).toEqual([3, 0]);
    await rig.check();
    await held.release();
    expect(await pool(rig)).toEqual([4, 0]);
  });

  test('devices use it where it is: no migration, no exclusive access', async (rig) => {
    const range = await map(rig);
    await rig.fill(range, 1000);
    const migrating = await rig.process.mirror(0);
    await migrating.launch('increment', { lanes: 4, args: { target: range.start, count: 64, stride: PAGE, by: 0 } });
    expect(await rig.used()).toBe(0);
    expect(await migrating.exclusive(part(range, 0, 1))).toMatchObject({ errno: 'EOPNOTSUPP' });
    const atomics = migrating.launch('atomic-increment', {
      lanes: 1,
      args: { target: range.start, count: 1, stride: 4, by: 1 },
    });
    await expect(atomics).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT' });
    await rig.check();
    await rig.expectFilled(range, 1000);
    await migrating.close();
  });

  test('mlock locks no mapping of it, but takes its pages', async (rig) => {
    const range = await map(rig);
    await rig.process.mlock(range);
    expect([...new Set(await rig.process.mincore(range))]).toEqual([1]);
    expect(await rig.process.proc('status')).toMatch(/^VmLck:\s+0 kB$/m);
    await rig.check();
  });

  it('a pool that RAM has no room for is as large as it can be, and the kernel says so', () =>
    withHuge({ addressing, hugetlbPages: 15, memory: { ram: '16MiB' } }, async ({ machine }) => {
      expect((await machine.check()).map(({ message }) => message)).toEqual([
        expect.stringMatching(/^HugeTLB: .* Only allocated \d+/),
      ]);
      expect((await machine.stats()).hugetlb.total).toBeLessThan(9);
    }));

  it('without a pool there is nothing to map', () =>
    withHuge({ addressing }, async (rig) => {
      await expect(map(rig)).rejects.toMatchObject({ errno: 'ENOMEM' });
      await rig.check();
    }));
});
