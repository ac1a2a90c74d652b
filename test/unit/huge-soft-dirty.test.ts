/** Soft-dirty bits of huge entries: which of them clear_refs, fork, mremap and a split know. */
import { describe, expect, it } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import type { Process, VirtRange } from '#src/machine/types';
import { HUGE, type HugeRig, PAGE, part, withHuge } from './huge-rig';

const BYTES = HUGE * PAGE;
/** Where there is room for it. */
const ELSEWHERE = (2 ** 40) as VirtAddr;

describe.each(['legacy', 'offset'] as const)('soft-dirty huge pages, %s addressing', (addressing) => {
  const test = (name: string, body: (rig: HugeRig) => Promise<void>): void => {
    it(name, () => withHuge({ addressing, hugetlbPages: 1 }, body));
  };
  /** What is said of each page, once. */
  const softDirty = async (process: Process, range: VirtRange): Promise<number[]> => [
    ...new Set([...(await process.pagemap(range))].map((word) => Number((word >> 55n) & 1n))),
  ];

  test('what comes apart is soft-dirty if it is dirty', async (rig) => {
    const { process } = rig;
    const range = await rig.filled();
    await process.clearRefs('soft-dirty');
    expect(await softDirty(process, range)).toEqual([0]);
    await process.munmap(part(range, 0, 1));
    expect(await softDirty(process, part(range, 1, HUGE - 1))).toEqual([1]);
  });

  test('on a device clear_refs does not reach it, nor does mremap set it', async (rig) => {
    const { mirror, process } = rig;
    const range = await rig.filled();
    await mirror.migrate(range, 'device');
    await process.clearRefs('soft-dirty');
    expect(await softDirty(process, range)).toEqual([1]);
    await mirror.migrate(range, 'system');
    await process.clearRefs('soft-dirty');
    await mirror.migrate(range, 'device');
    const moved = await process.mremap(range, { to: ELSEWHERE });
    expect(await softDirty(process, moved)).toEqual([0]);
    // What is present is dirtied by the move.
    await mirror.migrate(moved, 'system');
    await process.clearRefs('soft-dirty');
    const back = await process.mremap(moved, { to: range.start });
    expect([await softDirty(process, back), await rig.hugePages(back)]).toEqual([[1], 1]);
  });

  test('on a device fork keeps it, for both', async (rig) => {
    const { mirror, process } = rig;
    const range = await rig.area();
    await process.clearRefs('soft-dirty');
    await rig.fill(range, 9);
    await mirror.migrate(range, 'device');
    const child = await process.fork();
    for (const each of [process, child]) expect(await softDirty(each, range)).toEqual([1]);
    await child.exit();
  });

  test('memory of the hugetlb pool is not watched', async (rig) => {
    const { machine, process } = rig;
    const range = await process.mmap({ length: BYTES, hugetlb: true });
    await rig.fill(range, 1);
    await process.clearRefs('soft-dirty');
    await process.clearRefs('all');
    const { cpuFaults } = await machine.stats();
    await rig.fill(range, 2);
    expect((await machine.stats()).cpuFaults).toBe(cpuFaults);
  });
});
