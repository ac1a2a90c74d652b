/** The driver's own access to pages, migration by its rules, and close: facts 1 to 22 of KERNEL_FACTS.md. */
import { describe, expect, it } from 'vitest';
import { boot } from '#src/check/boot';
import { PAGE, withRig } from './driver-rig.js';

const LOCAL_RW = 0x22;
const LOCAL_RO = 0x21;

describe.each(['legacy', 'offset'] as const)('migration by the driver (%s)', (addressing) => {
  it('fact 3: a hole that went to the device is writable there, but the mirror learns of it by a fault', () =>
    withRig(addressing, async (rig) => {
      expect((await rig.migrate(0, 4, 'device')).errno).toBe(0);
      expect(await rig.codes(0, 4)).toEqual([LOCAL_RW, LOCAL_RW, LOCAL_RW, LOCAL_RW]);
      expect(await rig.write(0, 4, 7n)).toMatchObject({ errno: 0, pages: 4, faults: 1 });
      expect(await rig.write(0, 4, 8n)).toMatchObject({ errno: 0, pages: 4, faults: 0 });
      expect(await rig.load(3)).not.toBe(0);
    }));

  it('fact 4: success is that the mirror has every page afterwards', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 4, 100);
      await using pin = await rig.process.pin(rig.at(1, 1));
      expect((await rig.migrate(0, 4, 'device')).errno).toBe('ENOENT');
      expect(await rig.codes(0, 4)).toEqual([LOCAL_RW, 2, LOCAL_RW, LOCAL_RW]);
      // The pinned page stays where it is, but now the mirror has it; and an own migration does not make it forget.
      expect(await rig.read(1, 1)).toMatchObject({ errno: 0, faults: 1 });
      expect((await rig.migrate(0, 4, 'device')).errno).toBe(0);
      expect(await rig.read(0, 4)).toMatchObject({ errno: 0, faults: 0, torn: 0 });
      await pin.release();
    }));

  it('fact 5: shared memory does not move, and is a success if the mirror has it', () =>
    withRig(addressing, async (rig) => {
      const shared = await rig.process.mmap({ length: 2 * 4096, shared: true });
      expect((await rig.mirror.migrate(shared, 'device')).errno).toBe('ENOENT');
      expect((await rig.mirror.readPages(shared)).errno).toBe(0);
      expect((await rig.mirror.migrate(shared, 'device')).errno).toBe(0);
      await rig.process.munmap(shared);
    }));

  it('facts 6 and 16: a page of another device is left alone by migration, and comes home for an access', () =>
    withRig(addressing, async (rig) => {
      const other = await rig.process.mirror(1, { onFault: 'mirror' });
      await rig.store(0, 2, 100);
      await rig.migrate(0, 2, 'device');
      expect((await rig.migrate(0, 2, 'device', other)).errno).toBe('ENOENT');
      expect(await rig.codes(0, 2)).toEqual([LOCAL_RW, LOCAL_RW]);
      expect(await rig.codes(0, 2, other)).toEqual([0, 0]);
      expect(await rig.read(0, 1, other)).toMatchObject({ errno: 0, faults: 1 });
      expect(await rig.codes(0, 2)).toEqual([2, LOCAL_RW]);
      // And of an own page that the mirror has lost, nothing moves.
      await rig.process.mprotect(rig.at(1, 1), 'r');
      expect(await rig.read(1, 1)).toMatchObject({ errno: 0, faults: 1 });
      expect(await rig.codes(1, 1)).toEqual([LOCAL_RO]);
    }));

  it('fact 10: a failing allocation keeps the first page from the device, and none else', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 3, 100);
      await rig.mirror.failNextAllocation();
      expect((await rig.migrate(0, 3, 'device')).errno).toBe('ENOENT');
      expect(await rig.codes(0, 3)).toEqual([2, LOCAL_RW, LOCAL_RW]);
      expect((await rig.migrate(0, 3, 'device')).errno).toBe(0);
    }));

  it('fact 10: the other way nothing moves; a CPU access is tried again', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 3, 100);
      await rig.migrate(0, 3, 'device');
      await rig.mirror.failNextAllocation();
      expect((await rig.migrate(0, 3, 'system')).errno).toBe('ENOMEM');
      expect(await rig.codes(0, 3)).toEqual([LOCAL_RW, LOCAL_RW, LOCAL_RW]);
      // The mirror has not forgotten what it nearly lost.
      expect(await rig.read(0, 3)).toMatchObject({ errno: 0, faults: 0 });
      await rig.mirror.failNextAllocation();
      expect(await rig.load(0)).toBe(100);
      expect((await rig.migrate(0, 3, 'system')).migrated).toBe(2);
    }));

  it('fact 22: the last close evicts everybody from the device, and writability is kept', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 2, 100);
      await rig.migrate(0, 2, 'device');
      await rig.process.mprotect(rig.at(1, 1), 'r');
      const stranger = await rig.machine.process();
      await (await stranger.mirror(0)).close();
      expect(await rig.codes(0, 2)).toEqual([2, 1]);
      expect(await rig.load(1)).toBe(101);
      await stranger.exit();
    }));

  it('takes down all memory of a device, and begins anew with the next page', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 2, 100);
      await rig.migrate(0, 2, 'device');
      await rig.mirror.releaseChunks();
      expect(await rig.codes(0, 2)).toEqual([2, 2]);
      expect((await rig.machine.stats()).devices[0]!.usedPages).toBe(0);
      expect((await rig.migrate(0, 2, 'device')).errno).toBe(0);
      expect([...(await rig.read(0, 2)).words].length).toBe(2);
      expect(await rig.load(1)).toBe(101);
    }));
});

describe.each(['legacy', 'offset'] as const)('access by the driver (%s)', (addressing) => {
  it('fact 15: one round of faults for all the rest; a read of a hole maps the zero page', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 1, 100);
      expect(await rig.read(0, 4)).toMatchObject({ errno: 0, pages: 4, faults: 1, torn: 0 });
      expect(await rig.codes(0, 4)).toEqual([2, 0x11, 0x11, 0x11]);
      expect(await rig.read(0, 4)).toMatchObject({ errno: 0, faults: 0 });
      expect(await rig.read(10, 4)).toMatchObject({ errno: 'EFAULT', pages: 0 });
      await rig.process.mprotect(rig.at(8, 2), 'r');
      expect(await rig.write(7, 2, 1n)).toMatchObject({ errno: 'EPERM' });
    }));

  it('a fault is for every page up to the end of the range: what comes after a missing one leaves the device', () =>
    withRig(addressing, async (rig) => {
      await rig.migrate(0, 1, 'device');
      await rig.migrate(2, 1, 'device');
      expect(await rig.read(0, 3)).toMatchObject({ errno: 0, faults: 1 });
      expect(await rig.codes(0, 3)).toEqual([LOCAL_RW, 0x11, 2]);
    }));

  it('fact 15: what comes before the point of failure may have been written', () =>
    withRig(addressing, async (rig) => {
      expect(await rig.write(11, 1, 1n)).toMatchObject({ errno: 0, faults: 1 });
      expect(await rig.write(11, 2, 5n)).toMatchObject({ errno: 'EFAULT', pages: 1 });
      expect((await rig.read(11, 1)).words[0]).toBe(16n);
    }));

  it('fact 17: a page that is read-only on the device refuses every write, until it leaves', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 2, 100);
      await rig.migrate(0, 2, 'device');
      const child = await rig.process.fork();
      expect(await rig.codes(0, 2)).toEqual([LOCAL_RO, LOCAL_RO]);
      expect((await rig.write(0, 2, 1n)).errno).toBe('EFAULT');
      await child.exit();
      expect((await rig.write(0, 1, 1n)).errno).toBe('EFAULT');
      expect((await rig.migrate(0, 2, 'system')).migrated).toBe(2);
      expect((await rig.write(0, 1, 1n)).errno).toBe(0);
    }));

  it('fact 18: an invalidation reaches one page too far', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 8, 100);
      await rig.read(0, 8);
      await rig.process.munmap(rig.at(2, 2));
      const missing = await Promise.all([1, 2, 3, 4, 5].map((page) => rig.missing(page)));
      expect(missing).toEqual([false, true, true, true, false]);
    }));

  it('fact 18: own migrations reach only what they move, those of the other device everything', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 8, 100);
      await rig.read(0, 8);
      await rig.migrate(0, 2, 'device');
      await rig.migrate(0, 8, 'system');
      const after = await Promise.all([0, 1, 2, 7].map((page) => rig.missing(page)));
      expect(after).toEqual([true, true, false, false]);
      const other = await rig.process.mirror(1, { onFault: 'mirror' });
      await rig.migrate(4, 2, 'device', other);
      expect(await Promise.all([3, 4, 5, 6, 7].map((page) => rig.missing(page)))).toEqual([
        false,
        true,
        true,
        true,
        false,
      ]);
    }));

  it('fact 21: a mirror that a child inherited acts on its parent', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 1, 100);
      const child = await rig.process.fork();
      await rig.store(0, 1, 200, child);
      expect((await rig.write(0, 1, 300n)).errno).toBe(0);
      expect(await rig.load(0, child)).toBe(200);
      await child.exit();
    }));

  it('several mirrors of one process on one device: each has its own table, none keeps what has gone', () =>
    withRig(addressing, async (rig) => {
      const second = await rig.process.mirror(0, { onFault: 'mirror' });
      await rig.store(0, 4, 100);
      await rig.read(0, 4, second);
      expect(await rig.missing(0)).toBe(true);
      await rig.migrate(0, 2, 'device');
      expect(await Promise.all([0, 1, 2, 3].map((page) => rig.missing(page, second)))).toEqual([
        true,
        true,
        false,
        false,
      ]);
      expect(await rig.read(0, 2, second)).toMatchObject({ errno: 0, faults: 1 });
      expect(await rig.codes(0, 2, second)).toEqual([LOCAL_RW, LOCAL_RW]);
      expect(await rig.load(0)).toBe(100);
      expect(await rig.missing(0, second)).toBe(true);
      expect(await rig.missing(1, second)).toBe(false);
      await second.close();
      expect(await rig.codes(0, 2)).toEqual([2, 2]);
    }));
});

/** One page is migrated by hand, wanted by lanes and read by the CPU at the same time. */
it.each(['legacy', 'offset'] as const)(
  'no entry comes back while another migration begins (%s)',
  async (addressing) => {
    for (let seed = 0; seed < 40; seed++) {
      await using machine = await boot({
        addressing,
        executor: 'inline',
        schedule: 'random',
        seed,
        memory: { ram: '64MiB' },
        devices: [
          { memory: '8MiB', chunk: '4MiB' },
          { memory: '8MiB', chunk: '4MiB' },
        ],
      });
      const process = await machine.process();
      const range = await process.mmap({ length: 16 * PAGE });
      const numbers = Int32Array.from({ length: 16 * 1024 }, (_, index) => index);
      await process.writeArray('i32', range.start, numbers);
      const mirror = await process.mirror(0);
      await Promise.all([
        mirror.migrate(range, 'device'),
        process.readArray('i32', range.start, 4096),
        process.mmap({ length: 3 * PAGE }),
        mirror.launch('increment', { lanes: 4096, args: { target: range.start, count: 4096, stride: 4, by: 1 } }),
        process.mmap({ length: PAGE }).then((other) => process.munmap(other)),
      ]);
      expect(await machine.check(), `seed ${seed}`).toEqual([]);
      expect(await process.readArray('i32', range.start, 3)).toEqual(Int32Array.of(1, 2, 3));
    }
  },
);
