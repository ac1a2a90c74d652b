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

  test('Mlocked counts each of its pages, and none of a coherent device', async (rig) => {
    const { machine, mirrors, process } = rig;
    const range = await rig.filled();
    await process.mlock(range);
    expect(machine.meminfo()).toMatchObject({ Mlocked: 2048, Unevictable: 2048 });
    const small = await process.mmap({ length: 4 * PAGE });
    await process.mlock(small);
    expect(machine.meminfo().Mlocked).toBe(2048 + 16);
    await mirrors[1]!.migrate(part(small, 0, 1), 'device');
    expect(machine.meminfo()).toMatchObject({ Mlocked: 2048 + 12, Unevictable: 2048 + 12 });
    expect(machine.vmstat().nr_mlock).toBe(HUGE + 3);
  });
});
