/** MADV_COLD and MADV_PAGEOUT: what they take apart, and what they leave as it was. */
import { describe, expect, test } from 'vitest';
import type { Process, VirtRange } from '#src/machine/types';
import { HUGE, PAGE, part, withHuge } from './huge-rig';

const referenced = async (process: Process): Promise<number> =>
  [...(await process.proc('smaps')).matchAll(/^Referenced: +(\d+) kB$/gm)].reduce((sum, [, kb]) => sum + Number(kb), 0);

describe.each(['legacy', 'offset'] as const)('cold memory (%s)', (addressing) => {
  test.each(['one entry', 'small entries'] as const)(
    'COLD of a part of a huge page (%s) takes it apart, COLD of all of it does not',
    (how) =>
      withHuge({ addressing }, async (rig) => {
        const range = await rig.area();
        await rig.fill(part(range, 3, 1), 9);
        const sizes = async (of: VirtRange = range) => {
          const { rss, ahp } = await rig.process.smaps(of);
          return { pages: rss / 4, ahp };
        };
        // The border of a mapping that was in its middle: small entries, but one folio.
        for (const protection of how === 'small entries' ? (['r', 'rw'] as const) : []) {
          await rig.process.mprotect(part(range, 500, 12), protection);
        }
        await rig.process.madvise(range, 'COLD');
        expect(await sizes()).toEqual({ pages: HUGE, ahp: how === 'one entry' ? 2048 : 0 });
        expect(await referenced(rig.process)).toBe(0);
        await rig.process.madvise(part(range, 0, 16), 'COLD');
        // What held nothing but zeroes is the zero page now.
        expect(await sizes()).toEqual({ pages: 1, ahp: 0 });
        await rig.expectFilled(part(range, 3, 1), 9);
      }),
  );

  test('COLD leaves a huge page alone that somebody else has too', () =>
    withHuge({ addressing }, async (rig) => {
      const range = await rig.filled();
      const child = await rig.process.fork();
      await rig.process.madvise(part(range, 0, 16), 'COLD');
      expect(await rig.hugePages(range)).toBe(1);
      await child.exit();
    }));

  test('PAGEOUT without swap takes nothing, and nobody forgets that it was accessed', () =>
    withHuge({ addressing }, async (rig) => {
      const range = await rig.process.mmap({ length: 4 * PAGE });
      await rig.fill(range, 1);
      expect(await referenced(rig.process)).toBe(16);
      await rig.process.madvise(range, 'PAGEOUT');
      expect(await referenced(rig.process)).toBe(16);
      await rig.process.madvise(range, 'COLD');
      expect(await referenced(rig.process)).toBe(0);
    }));
});
