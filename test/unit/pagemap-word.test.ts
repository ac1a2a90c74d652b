/** The words of `Process.pagemap`, decoded: what machines really show, and every kind that a word may name. */
import { describe, expect, test } from 'vitest';
import { decodePagemap, type PagemapEntry } from '#src/abi/pagemap-word';
import { LEGACY_SWAP_TYPES, SERIES_SWAP_TYPES } from '#src/abi/softleaf';
import { boot } from '#src/check/boot';
import type { MachineSpecInput } from '#src/machine/spec';
import type { Machine, Process, VirtRange } from '#src/machine/types';

const PAGE = 4096;
const HUGE = 2 ** 21;
const TYPES = { legacy: LEGACY_SWAP_TYPES, offset: SERIES_SWAP_TYPES };
/** Every bit of an entry that is clear. */
const PLAIN = {
  present: false,
  swapped: false,
  softDirty: false,
  exclusive: false,
  writeProtected: false,
  file: false,
};

describe.each(['legacy', 'offset'] as const)('pagemap (%s)', (addressing) => {
  async function withProcess(
    body: (machine: Machine, process: Process) => Promise<void>,
    spec: MachineSpecInput = {},
  ): Promise<void> {
    const small = { executor: 'inline', memory: { ram: '16MiB' }, devices: [{ memory: '4MiB' }] } as const;
    await using machine = await boot({ ...small, addressing, ...spec });
    await body(machine, await machine.process());
    expect(await machine.check()).toEqual([]);
  }
  const decoded = async (process: Process, range: VirtRange): Promise<PagemapEntry[]> =>
    Array.from(await process.pagemap(range), (word) => decodePagemap(word, addressing));

  test('present, never touched, and of a file', () =>
    withProcess(async (machine, process) => {
      const range = await process.mmap({ length: 2 * PAGE });
      await process.write(range.start, Uint8Array.of(1));
      const [page, hole] = await decoded(process, range);
      const { number } = page!;
      const present = { ...PLAIN, present: true, exclusive: true, softDirty: true, kind: 'present', type: null };
      expect(page).toEqual({ ...present, number });
      expect([...machine.kpagecount(number!, 1)]).toEqual([1n]);
      expect(hole).toEqual({ ...PLAIN, softDirty: true, kind: 'none', type: null, number: null });
      await process.clearRefs('soft-dirty');
      expect((await decoded(process, range)).map(({ softDirty }) => softDirty)).toEqual([false, false]);
      await using file = await machine.file(new Uint8Array(PAGE));
      const mapped = await process.mmap({ length: PAGE, file, shared: true });
      await process.read(mapped.start, 1);
      expect(await decoded(process, mapped)).toMatchObject([{ kind: 'present', file: true }]);
    }));

  test('on a device: what the CPU may do when it is back, and a number that counts up', () =>
    withProcess(async (_machine, process) => {
      const range = await process.mmap({ length: 2 * PAGE });
      await process.write(range.start, new Uint8Array(2 * PAGE).fill(1));
      const mirror = await process.mirror(0);
      await mirror.migrate(range, 'device');
      const [first, second] = await decoded(process, range);
      const type = { legacy: 28, offset: 25 }[addressing];
      expect(first).toMatchObject({ ...PLAIN, swapped: true, softDirty: true, kind: 'device-private-write', type });
      expect(Math.abs(second!.number! - first!.number!)).toBe(1);
      // Offsets begin at 0; the PFNs of legacy addressing are above those of RAM.
      expect(first!.number! < 1024).toBe(addressing === 'offset');
      await process.fork();
      expect(await decoded(process, range)).toMatchObject([
        { kind: 'device-private-read', type: type + 1, number: first!.number },
        { kind: 'device-private-read', type: type + 1, number: second!.number },
      ]);
    }));

  test('taken by a device for atomics: the PFN stays', () =>
    withProcess(async (_machine, process) => {
      const range = await process.mmap({ length: PAGE });
      await process.write(range.start, Uint8Array.of(1));
      const [before] = await decoded(process, range);
      const mirror = await process.mirror(0);
      expect((await mirror.exclusive(range)).errno).toBe(0);
      const type = { legacy: 30, offset: 27 }[addressing];
      const { number } = before!;
      expect(await decoded(process, range)).toMatchObject([{ swapped: true, kind: 'device-exclusive', type, number }]);
    }));

  test('swapped out: the area and the slot', () =>
    withProcess(
      async (_machine, process) => {
        const range = await process.mmap({ length: 2 * PAGE });
        await process.write(range.start, new Uint8Array(2 * PAGE).fill(1));
        await process.madvise(range, 'PAGEOUT');
        const entries = await decoded(process, range);
        expect(entries).toMatchObject(Array(2).fill({ present: false, swapped: true, kind: 'swap', type: 0 }));
        expect(entries.map(({ number }) => number).sort()).toEqual([1, 2]);
      },
      { swap: ['1MiB'] },
    ));

  test('huge, in RAM and on the device: a number for each page', () =>
    withProcess(async (_machine, process) => {
      const range = await process.mmap({ length: HUGE });
      await process.madvise(range, 'HUGEPAGE');
      await process.write(range.start, Uint8Array.of(1));
      const consecutive = (entries: readonly PagemapEntry[]): boolean =>
        entries.every(({ number }, page) => number === entries[0]!.number! + page);
      const inRam = await decoded(process, range);
      expect(new Set(inRam.map(({ kind }) => kind))).toEqual(new Set(['present']));
      expect(consecutive(inRam)).toBe(true);
      const mirror = await process.mirror(0);
      expect((await mirror.migrate(range, 'device')).folios).toBe(1);
      const onDevice = await decoded(process, range);
      expect(new Set(onDevice.map(({ kind }) => kind))).toEqual(new Set(['device-private-write']));
      expect(consecutive(onDevice)).toBe(true);
    }));

  test('protected by a userfaultfd, touched or not', () =>
    withProcess(async (_machine, process) => {
      const range = await process.mmap({ length: 2 * PAGE });
      await process.write(range.start, Uint8Array.of(1));
      await using uffd = await process.userfaultfd({ wpUnpopulated: true });
      await uffd.register(range);
      await uffd.protect(range);
      expect(await decoded(process, range)).toMatchObject([
        { kind: 'present', writeProtected: true },
        { kind: 'marker', type: 31, number: 1, swapped: true, writeProtected: true },
      ]);
    }));

  test('on its way to a device, where a thread copies it', () =>
    withProcess(
      async (_machine, process) => {
        const range = await process.mmap({ length: 1024 * PAGE });
        await process.write(range.start, new Uint8Array(1024 * PAGE).fill(1));
        const mirror = await process.mirror(0);
        const kinds = new Set<string>();
        // A copy may be over before anybody looks.
        for (let tries = 0; tries < 100 && !kinds.has('migration-write'); tries++) {
          let moving = true;
          const moved = mirror.migrate(range, 'device').finally(() => (moving = false));
          while (moving) for (const { kind } of await decoded(process, range)) kinds.add(kind);
          await moved;
          await mirror.migrate(range, 'system');
        }
        expect([...kinds]).toContain('migration-write');
      },
      { executor: 'threads' },
    ));

  test('every kind that a type may stand for', () => {
    for (const [type, kind] of TYPES[addressing].kindOf.entries()) {
      const word = (1n << 62n) | (0xab_cdef_0123n << 5n) | BigInt(type);
      expect(decodePagemap(word, addressing)).toEqual({ ...PLAIN, swapped: true, kind, type, number: 0xab_cdef_0123 });
    }
  });
});

test('what is no word, and what is no addressing, is refused', () => {
  expect(() => decodePagemap(1 as never, 'offset')).toThrow('must be a bigint of 64 bits, not 1.');
  expect(() => decodePagemap(-1n, 'offset')).toThrow('must be a bigint of 64 bits, not -1n.');
  expect(() => decodePagemap(1n << 64n, 'offset')).toThrow('must be a bigint of 64 bits');
  expect(() => decodePagemap(0n, 'pageless' as never)).toThrow('The addressing must be one of legacy, offset');
});
