/**
 * What else may happen to a range while its pages are on the way to a device, all under mmap_lock for reading: the device must
 * not keep an entry for a page that it has lost. The schedules are drawn from seeds.
 */
import { describe, expect, it } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { boot } from '#src/check/boot';
import type { Machine, Mirror, Process, VirtRange } from '#src/machine/types';

const PAGE = 4096;
const PAGES = 16;
const HUGE = 2 ** 21;
const SEEDS = 12;
const ROUNDS = 6;

interface Scene {
  readonly machine: Machine;
  readonly process: Process;
  readonly mirror: Mirror;
  readonly range: VirtRange;
}

const VARIANTS = (['legacy', 'offset'] as const).flatMap((addressing) =>
  (['private', 'coherent'] as const).map((type) => ({ addressing, type })),
);

describe.each(VARIANTS)('races with a migration ($type, $addressing)', ({ addressing, type }) => {
  const onSeeds = async (scene: (parts: Scene) => Promise<void>): Promise<void> => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      await using machine = await boot({
        addressing,
        executor: 'inline',
        schedule: 'random',
        seed,
        memory: { ram: '16MiB' },
        devices: [
          { type, memory: '6MiB' },
          { type, memory: '2MiB' },
        ],
      });
      const process = await machine.process();
      const range = await process.mmap({ length: PAGES * PAGE });
      await process.write(range.start, new Uint8Array(range.length).fill(1));
      // A second mirror makes every invalidation take longer.
      const mirror = await process.mirror(0, { onFault: 'mirror' });
      await (await process.mirror(1, { onFault: 'mirror' })).readPages(range);
      await scene({ machine, process, mirror, range });
      expect(await machine.check()).toEqual([]);
      await process.exit();
      expect(await machine.check()).toEqual([]);
    }
  };
  const upper = ({ start, length }: VirtRange): VirtRange => ({
    start: (start + length / 2) as VirtAddr,
    length: length / 2,
  });

  it('MADV_DONTNEED: the device does not keep what is gone', () =>
    onSeeds(async ({ process, mirror, range }) => {
      await Promise.all([mirror.migrate(range, 'device'), process.madvise(upper(range), 'DONTNEED')]);
      expect(await process.read(upper(range).start, 1)).toEqual(Uint8Array.of(0));
      const { words } = await mirror.readPages(range);
      expect(words.map((word) => word & 1n)).toEqual(
        BigUint64Array.from({ length: PAGES }, (_, i) => (i < 8 ? 1n : 0n)),
      );
    }));

  it('MADV_DONTNEED of some or all of a huge page', () =>
    onSeeds(async ({ process, mirror }) => {
      const { start } = await process.mmap({ length: 2 * HUGE });
      const huge: VirtRange = { start: (Math.ceil(start / HUGE) * HUGE) as VirtAddr, length: HUGE };
      await process.madvise(huge, 'HUGEPAGE');
      for (const gone of [upper(huge), huge]) {
        await process.write(huge.start, new Uint8Array(HUGE).fill(1));
        await Promise.all([mirror.migrate(huge, 'device'), process.madvise(gone, 'DONTNEED')]);
        const { words } = await mirror.readPages(huge);
        expect(words.reduce((sum, word) => sum + Number(word & 1n), 0)).toBe(gone === huge ? 0 : 256);
        await mirror.migrate(huge, 'system');
      }
    }));

  it('a migration of the same device the other way: a page is in one place, and the device knows which', () =>
    onSeeds(async ({ process, mirror, range }) => {
      for (let round = 0; round < ROUNDS; round++) {
        await Promise.all([
          mirror.migrate(range, 'device'),
          mirror.migrate(upper(range), 'system'),
          mirror.migrate(upper(range), 'device'),
          mirror.migrate(range, 'system'),
        ]);
      }
      await mirror.write(range.start, Uint8Array.of(2));
      expect(await process.read(range.start, 1)).toEqual(Uint8Array.of(2));
    }));

  it('MADV_DONTNEED of what a device takes for itself: it does not keep that either', () =>
    onSeeds(async ({ process, mirror, range }) => {
      for (let round = 0; round < ROUNDS; round++) {
        await Promise.all([mirror.exclusive(range), process.madvise(upper(range), 'DONTNEED')]);
        await Promise.all([mirror.exclusive(upper(range)), process.madvise(range, 'DONTNEED')]);
      }
      await process.write(range.start, new Uint8Array(range.length).fill(3));
      expect(await mirror.isExclusive(range)).toBe(false);
      expect((await mirror.readPages(range)).words.every((word) => (word & 0xffn) === 3n)).toBe(true);
    }));
});
