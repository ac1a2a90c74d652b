/** Huge pages on coherent devices, within the CPU's reach: what the CPU does to them there. */
import { describe, expect, it } from 'vitest';
import { DMIRROR_PROT } from '#src/abi/dmirror';
import { HUGE, type HugeRig, part, withHuge } from './huge-rig';

const { DEV_COHERENT_LOCAL, PMD, WRITE } = DMIRROR_PROT;

describe.each(['legacy', 'offset'] as const)('huge pages of coherent memory, %s addressing', (addressing) => {
  const test = (name: string, body: (rig: HugeRig) => Promise<void>): void => {
    const devices = [{ memory: '8MiB', type: 'coherent' as const }, { memory: '4MiB' }];
    it(name, () => withHuge({ addressing, devices }, body));
  };
  const onDevice = async (rig: HugeRig) => {
    const range = await rig.filled();
    expect(await rig.mirror.migrate(range, 'device')).toMatchObject({ folios: 1, errno: 0 });
    expect([...new Set(await rig.mirror.snapshot(range))]).toEqual([DEV_COHERENT_LOCAL | PMD | WRITE]);
    return range;
  };

  test('MADV_FREE, fork, copy-on-write and parts of it where it is', async (rig) => {
    const range = await onDevice(rig);
    await rig.process.madvise(range, 'FREE');
    const child = await rig.process.fork();
    await rig.fill(part(range, 7, 5), 9, child);
    await rig.check();
    await rig.expectFilled(range, 1000);
    expect(await rig.hugePages(range)).toBe(1);
    await rig.process.munmap(part(range, 1, 300));
    await rig.check();
    await rig.expectFilled(part(range, 301, HUGE - 301), 1301);
    await rig.expectFilled(part(range, 12, HUGE - 12), 1012, child);
    await rig.expectFilled(part(range, 7, 5), 9, child);
    await child.exit();
  });
});
