/** Exclusive access through a mirror: facts 7, 24 and 25 of KERNEL_FACTS.md. */
import { describe, expect, it } from 'vitest';
import { withRig } from './driver-rig.js';

describe.each(['legacy', 'offset'] as const)('exclusive access (%s)', (addressing) => {
  it('fact 24: takes pages from the CPU, holes too, and reads them', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 2, 100);
      expect(await rig.mirror.exclusive(rig.at(0, 4))).toMatchObject({ errno: 0, pages: 4, torn: 0 });
      expect(await rig.codes(0, 4)).toEqual([0, 0, 0, 0]);
      expect(await rig.mirror.isExclusive(rig.at(3, 1))).toBe(true);
      expect(await rig.mirror.isExclusive(rig.at(4, 1))).toBe(false);
    }));

  it('fact 24: stops at the first page that cannot be had; those before it stay taken', () =>
    withRig(addressing, async (rig) => {
      expect((await rig.mirror.exclusive(rig.at(10, 4))).errno).toBe('EFAULT');
      expect(await rig.mirror.isExclusive(rig.at(10, 2))).toBe(true);
      await rig.process.mprotect(rig.at(0, 1), 'r');
      expect((await rig.mirror.exclusive(rig.at(0, 1))).errno).toBe('EFAULT');
      const shared = await rig.process.mmap({ length: 4096, shared: true });
      expect((await rig.mirror.exclusive(shared)).errno).toBe('EOPNOTSUPP');
      await rig.process.munmap(shared);
    }));

  it('fact 24: brings a page home from the device', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 1, 100);
      await rig.migrate(0, 1, 'device');
      expect((await rig.mirror.exclusive(rig.at(0, 1))).errno).toBe(0);
      expect(await rig.load(0)).toBe(100);
    }));

  it('fact 25: a read by the driver leaves it exclusive, a write gives it up, and so does the CPU', () =>
    withRig(addressing, async (rig) => {
      await rig.mirror.exclusive(rig.at(0, 2));
      expect(await rig.read(0, 2)).toMatchObject({ errno: 0, faults: 0 });
      expect(await rig.mirror.isExclusive(rig.at(0, 2))).toBe(true);
      expect(await rig.write(0, 1, 9n)).toMatchObject({ errno: 0, faults: 1 });
      expect(await rig.mirror.isExclusive(rig.at(0, 1))).toBe(false);
      expect(await rig.codes(0, 1)).toEqual([2]);
      await rig.mirror.exclusive(rig.at(4, 1));
      expect(await rig.load(4)).toBe(0);
      expect(await rig.mirror.isExclusive(rig.at(4, 1))).toBe(false);
      expect(await rig.codes(4, 1)).toEqual([2]);
    }));

  it('fact 25: only the mirror is asked, and mprotect makes it forget; another device takes it over', () =>
    withRig(addressing, async (rig) => {
      await rig.mirror.exclusive(rig.at(0, 2));
      await rig.process.mprotect(rig.at(0, 1), 'r');
      // The page after the range is forgotten too.
      expect(await rig.mirror.isExclusive(rig.at(0, 2))).toBe(false);
      expect(await rig.codes(0, 1)).toEqual([0]);
      const other = await rig.process.mirror(1, { onFault: 'mirror' });
      await rig.mirror.exclusive(rig.at(4, 1));
      await other.exclusive(rig.at(4, 1));
      expect(await rig.mirror.isExclusive(rig.at(4, 1))).toBe(false);
      expect(await other.isExclusive(rig.at(4, 1))).toBe(true);
    }));

  it('fact 7: an exclusive page is not selected, and a migration around it leaves it alone', () =>
    withRig(addressing, async (rig) => {
      await rig.store(0, 3, 100);
      await rig.mirror.exclusive(rig.at(1, 1));
      expect((await rig.migrate(0, 3, 'device')).errno).toBe(0);
      expect(await rig.codes(0, 3)).toEqual([0x22, 0, 0x22]);
      expect(await rig.mirror.isExclusive(rig.at(1, 1))).toBe(true);
      expect(await rig.load(1)).toBe(101);
    }));
});
