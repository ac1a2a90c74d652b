/** A whole machine whose RAM is too small: swap, devices and their drivers together. */

import { boot, parseMachineSpec } from 'pfnless';
import { describe, expect, test } from 'vitest';

const PAGE = 4096;
const PAGES = 5000;

describe.each(['legacy', 'offset'] as const)('20 MiB of memory in 16 MiB of RAM (%s)', (addressing) => {
  test.each([
    ['inline', 'never'],
    ['inline', 'always'],
    ['threads', 'always'],
  ] as const)('every page reads back, those on the device too (%s, huge pages %s)', async (executor, hugePages) => {
    const machine = await boot({
      addressing,
      executor,
      hugePages,
      memory: { ram: '16MiB' },
      swap: ['4MiB', '12MiB'],
      devices: [{ memory: '4MiB' }],
    });
    const process = await machine.process();
    const { start, length } = await process.mmap({ length: PAGES * PAGE });
    const mirror = await process.mirror(0);
    const expected = Int32Array.from({ length: length / 4 }, (_, i) => i * 7);
    const half = expected.length / 2;
    await process.writeArray('i32', start, expected.slice(0, half));
    const moved = await mirror.migrate({ start, length: 300 * PAGE }, 'device');
    expect(moved.migrated).toBeGreaterThan(0);
    await process.writeArray('i32', (start + half * 4) as typeof start, expected.slice(half));
    expect(machine.meminfo().SwapTotal - machine.meminfo().SwapFree).toBeGreaterThan(2 * 1024);
    const child = await process.fork();
    await child.write(start, Uint8Array.of(1, 2, 3, 4));
    expect(await machine.check()).toEqual([]);
    expect(
      Buffer.compare(
        Buffer.from((await process.readArray('i32', start, expected.length)).buffer),
        Buffer.from(expected.buffer),
      ),
    ).toBe(0);
    const bytes = await mirror.read(start, 64 * PAGE);
    expect(Buffer.compare(bytes, Buffer.from(expected.buffer, 0, 64 * PAGE))).toBe(0);
    expect(machine.vmstat().pswpin).toBeGreaterThan(500);
    expect(await machine.check()).toEqual([]);
    await child.exit();
    await process.exit();
    expect(machine.meminfo()).toMatchObject({ AnonPages: 0, SwapCached: 0 });
    expect(machine.meminfo().SwapFree).toBe(machine.meminfo().SwapTotal);
    await machine.dispose();
  });
});

test.each([
  { swap: '4MiB', kib: 2048 },
  { swap: '3MiB', kib: 12 },
])(
  'a huge page is paged out as one, or in single pages without those that are zero (swap of $swap)',
  async ({ swap, kib }) => {
    const machine = await boot({ executor: 'inline', memory: { ram: '16MiB' }, swap: [swap], devices: [] });
    const process = await machine.process();
    const range = await process.mmap({ length: 2 ** 21 });
    await process.madvise(range, 'HUGEPAGE');
    for (const page of [0, 5, 511])
      await process.write((range.start + page * PAGE) as typeof range.start, Uint8Array.of(page));
    await process.write(range.start, Uint8Array.of(7));
    expect((await process.smaps(range)).ahp).toBe(2048);
    await process.madvise(range, 'PAGEOUT');
    expect(await process.smaps(range)).toMatchObject({ ahp: 0, rss: 0, swap: kib });
    expect(machine.meminfo().AnonPages).toBe(0);
    const first = async (page: number): Promise<number> =>
      (await process.read((range.start + page * PAGE) as typeof range.start, 1))[0]!;
    expect([await first(0), await first(1), await first(5), await first(511)]).toEqual([7, 0, 5, 255]);
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  },
);

test('swap in a spec: a list of sizes', () => {
  expect(parseMachineSpec({ swap: ['1MiB', 8192] }).swap).toEqual([2 ** 20, 8192]);
  expect(parseMachineSpec({}).swap).toEqual([]);
  expect(() => parseMachineSpec({ swap: '1MiB' as never })).toThrow('must be a list of the sizes');
  expect(() => parseMachineSpec({ swap: [4096] })).toThrow('must be from 8 KiB to 16 GiB');
  expect(() => parseMachineSpec({ swap: Array(22).fill('1MiB') })).toThrow('0 to 21 swap areas');
});
