/** Locked memory that is huge: how it is counted, and what splitting it must not take away. */
import { describe, expect, it } from 'vitest';
import { HUGE, type HugeRig, PAGE, part, withHuge } from './huge-rig';

describe.each(['legacy', 'offset'] as const)('locked huge pages, %s addressing', (addressing) => {
  const test = (name: string, body: (rig: HugeRig) => Promise<void>): void => {
    const devices = [{ memory: '8MiB' }, { memory: '8MiB', type: 'coherent' as const }];
    it(name, () => withHuge({ addressing, devices }, body));
  };

  test('a split leaves pages of zeroes where they are', async (rig) => {
    const range = await rig.area();
    await rig.fill(part(range, 0, 4), 3);
    await rig.process.mlock(range);
    await rig.mirror.migrate(part(range, 0, 8), 'device');
    expect(await rig.rss(range)).toBe(HUGE);
    await rig.process.munlock(range);
  });

  test('Mlocked counts each of its pages, on a device too, where it is not to be evicted', async (rig) => {
    const { machine, mirrors, process } = rig;
    const range = await rig.filled();
    await process.mlock(range);
    expect(machine.meminfo()).toMatchObject({ Mlocked: 2048, Unevictable: 2048 });
    const small = await process.mmap({ length: 4 * PAGE });
    await process.mlock(small);
    expect(machine.meminfo().Mlocked).toBe(2048 + 16);
    await mirrors[1]!.migrate(part(small, 0, 1), 'device');
    expect(machine.meminfo()).toMatchObject({ Mlocked: 2048 + 16, Unevictable: 2048 + 12 });
    await rig.mirror.migrate(range, 'device');
    expect(machine.vmstat()).toMatchObject({ nr_mlock: HUGE + 4, nr_unevictable: 3 });
    // munlock does not find what is on a device; it counts until it comes home.
    await process.munlock(range);
    expect(machine.vmstat()).toMatchObject({ nr_mlock: HUGE + 4, nr_unevictable: 3 });
    await rig.mirror.migrate(range, 'system');
    expect(machine.vmstat()).toMatchObject({ nr_mlock: 4, nr_unevictable: 3 });
  });

  test('what was on a device before mlock passed over it does not count', async ({ machine, mirrors, process }) => {
    const range = await process.mmap({ length: 4 * PAGE });
    await process.write(range.start, new Uint8Array(4 * PAGE).fill(1));
    await mirrors[1]!.migrate(part(range, 0, 2), 'device');
    await process.mlock(range);
    expect(machine.vmstat()).toMatchObject({ nr_mlock: 2, nr_unevictable: 2 });
    await mirrors[1]!.migrate(part(range, 0, 2), 'system');
    expect(machine.vmstat()).toMatchObject({ nr_mlock: 4, nr_unevictable: 4 });
  });
});
