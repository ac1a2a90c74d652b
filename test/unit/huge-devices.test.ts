/** Huge pages between RAM and devices that have no room for them, compete for them, or break in the middle. */
import { describe, expect, it } from 'vitest';
import { boot } from '#src/check/boot';
import { HUGE, type HugeRig, PAGE, part, withHuge } from './huge-rig';

const MIB = 2 ** 20;

describe.each(['legacy', 'offset'] as const)('huge pages and devices, %s addressing', (addressing) => {
  const withDevices = (memories: readonly number[], body: (rig: HugeRig) => Promise<void>, ram = 32) =>
    withHuge(
      {
        addressing,
        memory: { ram: ram * MIB },
        devices: memories.map((memory, index) => ({
          name: `d${index}`,
          memory: memory * MIB,
          chunk: Math.min(memory, 2) * MIB,
        })),
      },
      body,
    );

  describe('device memory', () => {
    it('without a free block takes single pages, and gathers them to blocks again', () =>
      withDevices([4], async (rig) => {
        const small = await rig.process.mmap({ length: 2 * PAGE });
        await rig.fill(small, 1);
        const range = await rig.filled();
        const more = await rig.filled(HUGE, 3000);
        expect(await rig.mirror.migrate(part(small, 0, 1), 'device')).toMatchObject({ migrated: 1 });
        expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ folios: 1, errno: 0 });
        // The broken block has 511 pages: something has to leave.
        expect(await rig.mirror.migrate(more, 'device')).toMatchObject({ migrated: HUGE, errno: 0 });
        await rig.check();
        await rig.expectFilled(range, 1000);
        await rig.expectFilled(more, 3000);
        await rig.expectFilled(part(small, 0, 1), 1);
        expect(await rig.used()).toBe(0);
        expect(await rig.mirror.migrate(part(range, 0, HUGE), 'device')).toMatchObject({ folios: 1, errno: 0 });
      }));

    it('smaller than all that is wanted: what came first leaves, as one', () =>
      withDevices([4], async (rig) => {
        const range = await rig.filled(4 * HUGE);
        for (let block = 0; block < 4; block++) {
          const moved = { migrated: HUGE, folios: 1 };
          expect(await rig.mirror.migrate(part(range, block * HUGE, HUGE), 'device')).toMatchObject(moved);
          await rig.check();
        }
        expect(await rig.used()).toBe(2 * HUGE);
        expect((await rig.machine.stats()).evicted).toBe(2 * HUGE);
        expect(await rig.hugePages(range)).toBe(4);
        await rig.expectFilled(range, 1000);
      }));

    // A chunk of legacy addressing is whole sections of 2 MiB.
    it.skipIf(addressing === 'legacy')('smaller than a huge page: single pages of it come and go', () =>
      withDevices([1], async (rig) => {
        const range = await rig.filled();
        await rig.mirror.migrate(range, 'device');
        await rig.check();
        await rig.expectFilled(range, 1000);
        // Lanes fault for what they touch; all of it at a time never fits.
        const migrating = await rig.process.mirror(0);
        const args = { target: range.start, count: HUGE, stride: PAGE, by: 0 };
        await migrating.launch('atomic-increment', { lanes: 32, args });
        await rig.check();
        await rig.expectFilled(range, 1000);
      }),
    );

    it('eviction where RAM has no block: the page comes apart and goes home page by page', () =>
      withDevices([2], async (rig) => {
        const range = await rig.filled();
        const other = await rig.filled(HUGE, 5000);
        expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ folios: 1, errno: 0 });
        const hog = await rig.fragment(1200);
        await rig.mirror.migrate(other, 'device');
        await rig.check();
        expect(await rig.used()).toBe(HUGE);
        expect([await rig.hugePages(range), await rig.hugePages(other)]).toEqual([0, 1]);
        await rig.expectFilled(range, 1000);
        await rig.expectFilled(other, 5000);
        await rig.process.munmap(hog);
      }));

    it('a fault where RAM has no block brings home what was touched, and what RAM has no room for stays', () =>
      withDevices([4], async (rig) => {
        const range = await rig.filled();
        expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ folios: 1, errno: 0 });
        const hog = await rig.fragment(100);
        await rig.expectFilled(part(range, 70, 3), 1070);
        await rig.check();
        expect(await rig.used()).toBeGreaterThanOrEqual(HUGE - 3);
        await rig.mirror.migrate(range, 'system');
        await rig.check();
        expect(await rig.used()).toBeGreaterThan(0);
        await rig.process.munmap(hog);
        await rig.expectFilled(range, 1000);
      }));
  });

  describe('faults of lanes', () => {
    it('in a huge page bring all of it, as one', () =>
      withDevices([8], async (rig) => {
        const range = await rig.filled(2 * HUGE);
        const migrating = await rig.process.mirror(0);
        // Here and there in the first, across the border, one word in the second.
        const args = { target: part(range, 3, 1).start, count: 7, stride: 100 * PAGE };
        await migrating.launch('touch', { lanes: 3, args });
        await rig.check();
        expect([await rig.used(), await rig.hugePages(range)]).toEqual([2 * HUGE, 2]);
        expect(await migrating.peekPages(range)).toMatchObject({ errno: 0 });
        await rig.expectFilled(range, 1000);
      }));

    it('beside a huge page bring the page alone', () =>
      withDevices([8], async (rig) => {
        const range = await rig.filled(2 * HUGE);
        await rig.process.mprotect(part(range, 0, 1), 'r');
        await rig.process.mprotect(part(range, 0, 1), 'rw');
        const migrating = await rig.process.mirror(0);
        await migrating.launch('touch', {
          lanes: 4,
          args: { target: part(range, 508, 1).start, count: 4, stride: PAGE },
        });
        expect(await rig.used()).toBe(4);
        // A run that reaches into it takes all of that, and no more of what lies before.
        await migrating.launch('touch', {
          lanes: 4,
          args: { target: part(range, 506, 1).start, count: 8, stride: PAGE },
        });
        await rig.check();
        expect([await rig.used(), await rig.hugePages(range)]).toEqual([6 + HUGE, 1]);
        await rig.expectFilled(range, 1000);
      }));

    it('of a huge page that is held are served where it is', () =>
      withDevices([8], async (rig) => {
        const range = await rig.filled();
        const pin = await rig.process.pin(part(range, 5, 1));
        const migrating = await rig.process.mirror(0);
        await migrating.launch('increment', {
          lanes: 8,
          args: { target: range.start, count: 64, stride: PAGE, by: 0 },
        });
        await rig.check();
        expect([await rig.used(), await rig.hugePages(range)]).toEqual([0, 1]);
        await pin.release();
      }));

    it('of two devices that want the same huge page for atomics: each sum is right', () =>
      withDevices([8, 8, 4], async (rig) => {
        const range = await rig.area();
        await rig.process.write(range.start, new Uint8Array(range.length));
        const args = { target: range.start, count: 40, stride: 12 * PAGE, by: 1 };
        const mirrors = await Promise.all([0, 1, 2].map((device) => rig.process.mirror(device)));
        for (let round = 0; round < 2; round++) {
          await Promise.all(mirrors.map((mirror) => mirror.launch('atomic-increment', { lanes: 8, args })));
          await rig.check();
        }
        for (let i = 0; i < 40; i++) {
          expect([i, (await rig.process.readArray('i32', part(range, 12 * i, 1).start, 1))[0]]).toEqual([i, 6]);
        }
      }));
  });

  it('two devices pull one huge page at a time, by migration', () =>
    withDevices([8, 8], async (rig) => {
      const range = await rig.filled();
      for (let round = 0; round < 3; round++) {
        await Promise.all([
          ...rig.mirrors.map((mirror) => mirror.migrate(range, 'device')),
          rig.process.read(part(range, 100 * round, 1).start, 1),
        ]);
        await rig.check();
      }
      await rig.expectFilled(range, 1000);
    }));
});

describe.each(['inline', 'threads'] as const)('a device that dies with huge pages in its hands (%s)', (executor) => {
  it.each([
    ['legacy', 'device', 0],
    ['legacy', 'system', 1],
    ['offset', 'device', 1],
    ['offset', 'fault', 0],
    ['legacy', 'fault', 0],
    ['offset', 'system', 0],
  ] as const)('%s addressing, %s, after %i ms', async (addressing, what, ms) => {
    const machine = await boot({
      addressing,
      executor,
      memory: { ram: '48MiB' },
      devices: ['a', 'b'].map((name) => ({ name, memory: '10MiB', chunk: '2MiB' })),
    });
    try {
      const { freeRamPages } = await machine.stats();
      const process = await machine.process();
      const range = await process.mmap({ length: 8 * MIB });
      await process.madvise(range, 'HUGEPAGE');
      await process.write(range.start, new Uint8Array(8 * MIB).fill(3));
      const mirror = await process.mirror(0);
      const other = await process.mirror(1);
      if (what !== 'device') expect(await mirror.migrate(range, 'device')).toMatchObject({ folios: 4 });
      const going: Promise<unknown> =
        what === 'fault' ? process.read(range.start, 3 * MIB) : mirror.migrate(range, what);
      const outcome = going.catch((reason) => reason.code);
      await new Promise((resolve) => setTimeout(resolve, ms));
      await machine.killDevice(0);
      await outcome;
      expect(await machine.check()).toEqual([]);
      // What is in RAM is as it was; what was on the device is gone with it.
      for (let block = 0; block < 4; block++) {
        const bytes = await process.read(part(range, block * HUGE + 9, 1).start, PAGE).catch((reason) => reason.code);
        if (typeof bytes !== 'string') expect(bytes.every((byte: number) => byte === 3)).toBe(true);
        else expect(bytes).toBe('ERR_PFNLESS_FAULT');
      }
      expect(await machine.check()).toEqual([]);
      await mirror.close();
      await other.close();
      await process.exit();
      expect(await machine.check()).toEqual([]);
      const after = await machine.stats();
      expect(after.freeRamPages).toBe(freeRamPages);
      expect(after.devices.map(({ usedPages }) => usedPages)).toEqual([0, 0]);
    } finally {
      await machine.dispose();
    }
  });
});
