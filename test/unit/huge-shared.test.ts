/** A huge page that fork has shared, and a device that has no huge page for it. */
import { expect, test } from 'vitest';
import { boot } from '#src/check/boot';

const MIB = 2 ** 20;
const PAGE = 4096;

// Found by stress: the child's huge migration entry stayed behind, and named a page that was free.
test.each(['legacy', 'offset'] as const)(
  'comes apart in every process when it moves in single pages (%s)',
  async (addressing) => {
    const machine = await boot({
      ...{ addressing, executor: 'inline', memory: { ram: '64MiB' } },
      devices: [{ name: 'a', memory: '8MiB' }],
    });
    const process = await machine.process();
    const start = (2 ** 40) as Awaited<ReturnType<typeof process.mmap>>['start'];
    const range = await process.mmap({ length: 2 * MIB, at: start });
    await process.madvise(range, 'HUGEPAGE');
    await process.writeArray(
      'i32',
      start,
      Int32Array.from({ length: (2 * MIB) / 4 }, (_, i) => i),
    );
    const child = await process.fork();
    const mirror = await process.mirror('a');
    await mirror.failNextAllocation();
    expect((await mirror.migrate(range, 'device')).migrated).toBe((2 * MIB) / PAGE);
    expect(await machine.check()).toEqual([]);
    await child.writeArray('i32', start, Int32Array.of(-1));
    for (const [who, first] of [
      [process, 0],
      [child, -1],
    ] as const) {
      const words = await who.readArray('i32', start, (2 * MIB) / 4);
      expect([words[0], words[1], words[1023], words[1024], words.at(-1)]).toEqual([first, 1, 1023, 1024, 524287]);
    }
    expect(await machine.check()).toEqual([]);
    await machine.dispose();
  },
);
