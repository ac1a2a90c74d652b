/** hmm-tests: huge pages of the hugetlb pool. */
import { expect } from 'vitest';
import {
  counting,
  deviceWrite,
  expectDeviceRead,
  expectMemory,
  expectPresent,
  expectSnapshot,
  HUGE,
  HUGE_PAGES,
  HUGE_VARIANTS,
  hugeSpecOf,
  negative,
  PROT,
  part,
  selftests,
} from './fixture.js';

const POOL = 4;

selftests(
  HUGE_VARIANTS,
  (test) => {
    test('anon_write_hugetlbfs', async ({ machine, process, mirrors }) => {
      for (const mirror of mirrors) {
        const range = await process.mmap({ length: HUGE, hugetlb: true });
        await deviceWrite(mirror, range, counting(HUGE_PAGES), 1);
        await expectMemory(process, range, counting(HUGE_PAGES));
        await expectSnapshot(mirror, range, PROT.WRITE | PROT.PMD);
        await expectPresent(process, range);
        // Of the pool, and counted nowhere else; no device takes it.
        expect((await machine.stats()).hugetlb).toEqual({ total: POOL, free: POOL - 1, reserved: 0 });
        expect(await process.smaps(range)).toMatchObject({ rss: 0, anon: 0, ahp: 0 });
        expect(await mirror.migrate(range, 'device')).toMatchObject({ migrated: 0, errno: 'EINVAL' });
        await process.write(range.start, negative(HUGE_PAGES));
        await expectDeviceRead(mirror, range, negative(HUGE_PAGES), 0);
        await process.munmap(range);
        expect((await machine.stats()).hugetlb).toEqual({ total: POOL, free: POOL, reserved: 0 });
      }
    });

    test('compound', async ({ process, mirrors }) => {
      const range = await process.mmap({ length: 2 * HUGE, hugetlb: true });
      await process.write(range.start, counting(2 * HUGE_PAGES));
      for (const mirror of mirrors) {
        await expectSnapshot(mirror, range, PROT.WRITE | PROT.PMD);
        await expectSnapshot(mirror, part(range, 17, 1), PROT.WRITE | PROT.PMD);
      }
      await process.mprotect(range, 'r');
      for (const mirror of mirrors) await expectSnapshot(mirror, range, PROT.READ | PROT.PMD);
      await expectMemory(process, range, counting(2 * HUGE_PAGES));
    });
  },
  (variant) => ({ ...hugeSpecOf(variant), hugetlbPages: POOL }),
);
