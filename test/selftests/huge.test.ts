/**
 * hmm-tests: huge pages of anonymous memory. Stricter than the kernel's, most of which pass as well when everything was split:
 * what should have moved as one did (snapshot, AnonHugePages, folios of the migration).
 */
import type { Mirror, Process, VirtRange } from 'pfnless';
import { expect } from 'vitest';
import {
  counting,
  deviceWrite,
  expectBytes,
  expectDeviceRead,
  expectHuge,
  expectMemory,
  expectOnDevice,
  expectPresent,
  expectSmall,
  expectSnapshot,
  filled,
  type Hmm,
  HUGE,
  HUGE_PAGES,
  HUGE_VARIANTS,
  hugeArea,
  hugeFilled,
  hugeSpecOf,
  migrateAll,
  negative,
  PAGE,
  PROT,
  part,
  residentPages,
  selftests,
  toDevice,
  usedDevicePages,
  zeros,
} from './fixture.js';

const DATA = counting(HUGE_PAGES);

/** A huge page as it is after a migration to the device of the mirror. */
async function expectHugeOnDevice({ machine, process, coherent, local }: Hmm, mirror: Mirror, range: VirtRange) {
  await expectHuge(process, mirror, range, local | PROT.WRITE);
  await expectOnDevice(process, range, coherent);
  expect(await usedDevicePages(machine, mirror)).toBe(HUGE_PAGES);
}

/** It is back in RAM, as one. */
async function expectHugeInRam({ machine, process }: Hmm, mirror: Mirror, range: VirtRange) {
  await expectHuge(process, mirror, range, PROT.WRITE);
  await expectPresent(process, range);
  expect(await usedDevicePages(machine, mirror)).toBe(0);
}

/** Bring it home as the variant can: by a touch of the CPU, or by the driver. */
async function bringHome({ process, coherent }: Hmm, mirror: Mirror, range: VirtRange): Promise<void> {
  if (coherent) await migrateAll(mirror, range, 'system', 1);
  else await process.read(part(range, 7, 1).start, 1);
}

/** Untouched, but for a read of the CPU, which maps the huge zero page. */
async function hugeZero(process: Process, mirror: Mirror): Promise<VirtRange> {
  const range = await hugeArea(process);
  await expectMemory(process, range, zeros(HUGE_PAGES));
  await expectSnapshot(mirror, range, PROT.READ | PROT.PMD);
  expect(await residentPages(process, range)).toBe(0);
  return range;
}

selftests(
  HUGE_VARIANTS,
  (test) => {
    test('anon_write_huge', async (hmm) => {
      const { process, mirrors } = hmm;
      for (const mirror of mirrors) {
        const range = await hugeArea(process);
        await deviceWrite(mirror, range, DATA, 1);
        await expectHugeInRam(hmm, mirror, range);
        await expectMemory(process, range, DATA);
        await expectDeviceRead(mirror, range, DATA, 0);
      }
    });

    for (const advised of [true, false]) {
      test(`migrate_anon_huge_empty, ${advised ? 'advised' : 'as any memory'}`, async (hmm) => {
        const { machine, process, mirrors, coherent, remote } = hmm;
        const mirror = mirrors[0];
        // That it goes as one has nothing to do with advice.
        const range = advised ? await hugeArea(process) : await process.mmap({ length: HUGE });
        const before = await machine.stats();
        await migrateAll(mirror, range, 'device', 1);
        await expectHugeOnDevice(hmm, mirror, range);
        await expectDeviceRead(mirror, range, zeros(HUGE_PAGES), 0);
        // To others a small private page of this device is nothing, but a huge one is an error.
        for (const other of mirrors.slice(1)) {
          await expectSnapshot(other, range, coherent ? remote | PROT.WRITE | PROT.PMD : PROT.ERROR);
        }
        // No frame of RAM was needed, but for page tables: the table, and one that is kept for a split.
        const tables = before.freeRamPages - (await machine.stats()).freeRamPages;
        expect(tables).toBeLessThanOrEqual(4);
        await expectMemory(process, range, zeros(HUGE_PAGES));
        if (coherent) await expectHugeOnDevice(hmm, mirror, range);
        else await expectHugeInRam(hmm, mirror, range);
      });
    }

    test('migrate_anon_huge_zero', async (hmm) => {
      const { machine, process, mirror } = hmm;
      const range = await hugeZero(process, mirror);
      await migrateAll(mirror, range, 'device', 1);
      await expectHugeOnDevice(hmm, mirror, range);
      await expectDeviceRead(mirror, range, zeros(HUGE_PAGES), 0);
      // The mirror's entries came read-only, as from any hole; the page is the device's own all the same.
      await deviceWrite(mirror, range, DATA, 1);
      expect(await usedDevicePages(machine, mirror)).toBe(HUGE_PAGES);
      // Nobody's zeroes but its own have changed.
      const other = await hugeZero(process, mirror);
      await expectMemory(process, range, DATA);
      await bringHome(hmm, mirror, range);
      await expectHugeInRam(hmm, mirror, range);
      await expectMemory(process, range, DATA);
      await expectMemory(process, other, zeros(HUGE_PAGES));
    });

    test('migrate_anon_huge_free', async (hmm) => {
      const { machine, process, mirror, coherent } = hmm;
      const range = await hugeFilled(process, mirror, DATA);
      await migrateAll(mirror, range, 'device', 1);
      await process.madvise(range, 'FREE');
      // What is on a device is not dropped lazily.
      await expectHugeOnDevice(hmm, mirror, range);
      await expectMemory(process, range, DATA);
      if (coherent) await migrateAll(mirror, range, 'system', 1);
      await expectHugeInRam(hmm, mirror, range);
      await process.madvise(range, 'FREE');
      await process.write(range.start, negative(HUGE_PAGES));
      await migrateAll(mirror, range, 'device', 1);
      await expectDeviceRead(mirror, range, negative(HUGE_PAGES), 0);
      // DONTNEED drops it, wherever it is.
      await process.madvise(range, 'DONTNEED');
      expect(await usedDevicePages(machine, mirror)).toBe(0);
      expect(await residentPages(process, range)).toBe(0);
      await expectMemory(process, range, zeros(HUGE_PAGES));
    });

    test('migrate_anon_huge_fault', async (hmm) => {
      const { process, mirrors } = hmm;
      for (const mirror of mirrors) {
        const range = await filled(process, DATA);
        await expectSmall(process, mirror, range, PROT.WRITE);
        await process.madvise(range, 'COLLAPSE');
        await expectHuge(process, mirror, range, PROT.WRITE);
        await migrateAll(mirror, range, 'device', 1);
        await expectHugeOnDevice(hmm, mirror, range);
        await expectDeviceRead(mirror, range, DATA, 0);
        await bringHome(hmm, mirror, range);
        await expectHugeInRam(hmm, mirror, range);
        await expectMemory(process, range, DATA);
        await migrateAll(mirror, range, 'device', 1);
        await process.write(range.start, negative(HUGE_PAGES));
        await expectDeviceRead(mirror, range, negative(HUGE_PAGES), hmm.coherent ? 0 : 1);
        await process.munmap(range);
      }
    });

    test('migrate_anon_huge_err', async (hmm) => {
      const { machine, process, mirror, coherent, local } = hmm;
      const range = await hugeFilled(process, mirror, DATA);
      const one = part(range, 7, 1);
      // No 2 MiB on the device: 512 pages do.
      await mirror.failNextAllocation();
      await migrateAll(mirror, range, 'device', HUGE_PAGES);
      await expectSmall(process, mirror, range, local | PROT.WRITE);
      expect(await usedDevicePages(machine, mirror)).toBe(HUGE_PAGES);
      await expectDeviceRead(mirror, range, DATA, 0);
      if (coherent) await migrateAll(mirror, one, 'system', 1);
      else await process.read(one.start, 1);
      await expectPresent(process, one);
      expect(await usedDevicePages(machine, mirror)).toBe(HUGE_PAGES - 1);
      await expectMemory(process, range, DATA);
      if (coherent) expect(await mirror.migrate(range, 'system')).toMatchObject({ folios: HUGE_PAGES - 1, errno: 0 });
      await process.madvise(range, 'COLLAPSE');
      // And no 2 MiB of RAM on the way home.
      for (const byDriver of coherent ? [true] : [true, false]) {
        await migrateAll(mirror, range, 'device', 1);
        await expectHugeOnDevice(hmm, mirror, range);
        await mirror.failNextAllocation();
        if (byDriver) {
          await migrateAll(mirror, range, 'system', HUGE_PAGES);
          await expectSmall(process, mirror, range, PROT.WRITE);
        } else {
          await process.read(one.start, 1);
          // Only what was touched came home.
          await expectPresent(process, one);
          expect(await usedDevicePages(machine, mirror)).toBe(HUGE_PAGES - 1);
          expect(await process.smaps(range)).toMatchObject({ rss: HUGE / 1024, ahp: 0 });
        }
        await expectMemory(process, range, DATA);
        expect(await usedDevicePages(machine, mirror)).toBe(0);
        await process.madvise(range, 'COLLAPSE');
        await expectHugeInRam(hmm, mirror, range);
      }
    });

    test('migrate_anon_huge_zero_err', async (hmm) => {
      const { machine, process, mirror, coherent, local } = hmm;
      const range = await hugeZero(process, mirror);
      await mirror.failNextAllocation();
      await migrateAll(mirror, range, 'device', HUGE_PAGES);
      await expectSmall(process, mirror, range, local | PROT.WRITE);
      await expectDeviceRead(mirror, range, zeros(HUGE_PAGES), 0);
      await expectMemory(process, part(range, 0, 1), zeros(1));
      expect(await usedDevicePages(machine, mirror)).toBe(coherent ? HUGE_PAGES : HUGE_PAGES - 1);
      await process.munmap(range);
      // The other way, which the kernel's test means to try.
      const again = await hugeZero(process, mirror);
      await migrateAll(mirror, again, 'device', 1);
      await mirror.failNextAllocation();
      if (coherent) await migrateAll(mirror, again, 'system', HUGE_PAGES);
      else await process.read(again.start, 1);
      expect(await usedDevicePages(machine, mirror)).toBe(coherent ? 0 : HUGE_PAGES - 1);
      await expectMemory(process, again, zeros(HUGE_PAGES));
      expect(await usedDevicePages(machine, mirror)).toBe(0);
    });

    test('benchmark_thp_migration', async ({ machine, process, mirror }) => {
      const ROUNDS = 2;
      for (const advice of ['HUGEPAGE', 'NOHUGEPAGE'] as const) {
        for (const size of [HUGE / 4, HUGE / 2, HUGE, 2 * HUGE]) {
          const pages = size / PAGE;
          const range = await process.mmap({ length: size });
          await process.madvise(range, advice);
          await process.write(range.start, counting(pages));
          // A warm-up and the rounds that the kernel's test takes the time of. Here it is counted what they did.
          const folios = advice === 'HUGEPAGE' && size >= HUGE ? size / HUGE : pages;
          const copiedBefore = await copiedPages();
          for (let round = 0; round <= ROUNDS; round++) {
            await migrateAll(mirror, range, 'device', folios);
            expectBytes(await mirror.read(range.start, size), counting(pages));
            await migrateAll(mirror, range, 'system', folios);
          }
          expect((await copiedPages()) - copiedBefore).toBe(2 * (1 + ROUNDS) * pages);
          await expectMemory(process, range, counting(pages));
          await process.munmap(range);
        }
      }
      async function copiedPages(): Promise<number> {
        return (await machine.stats()).devices[mirror.device].copiedPages;
      }
    });
  },
  hugeSpecOf,
);

selftests(
  HUGE_VARIANTS,
  (test) => {
    for (const migrated of [false, true]) {
      test(`anon_write_child, THP, ${migrated ? 'on the device' : 'in RAM'}`, async (hmm) => {
        const { machine, process, mirrors, mirror, coherent, local } = hmm;
        const range = await hugeFilled(process, mirror, DATA);
        if (migrated) await migrateAll(mirror, range, 'device', 1);
        const child = await process.fork();
        const code = migrated ? local | PROT.READ : PROT.READ;
        // Shared as it is: one entry each, read-only.
        await expectHuge(process, mirror, range, code);
        await expectHuge(child, mirror, range, code);
        await expectMemory(child, range, DATA);
        // The child's touch brought a private page back for both, as one; a coherent one is within its reach.
        const stays = migrated && coherent;
        expect(await usedDevicePages(machine, mirror)).toBe(stays ? HUGE_PAGES : 0);
        await expectHuge(process, mirror, range, stays ? code : PROT.READ);
        for (const { device } of mirrors) {
          const own = await child.mirror(device, { onFault: 'mirror' });
          await deviceWrite(own, range, negative(HUGE_PAGES), 1);
          await expectMemory(child, range, negative(HUGE_PAGES));
          // Its copies are single pages; the parent's mapping is as it was.
          await expectSmall(child, own, range, PROT.WRITE);
        }
        await expectHuge(process, mirror, range, stays ? code : PROT.READ);
        await child.exit();
        // Closing a mirror empties its device, and the last user of the page may write to it again.
        await expectMemory(process, range, DATA);
        await process.write(range.start, negative(HUGE_PAGES));
        await expectHugeInRam(hmm, mirror, range);
        await expectMemory(process, range, negative(HUGE_PAGES));
      });
    }

    for (const [name, from] of [
      ['0', 0],
      ['1/4', 1 / 4],
      ['1/2', 1 / 2],
    ] as const) {
      const first = HUGE_PAGES * from;
      const half = HUGE_PAGES / 2;
      /** What is left of a range when that half is gone. */
      const restOf = (range: VirtRange): readonly (readonly [VirtRange, Uint8Array])[] =>
        [
          [0, first],
          [first + half, half - first],
        ]
          .filter(([, pages]) => pages > 0)
          .map(([at, pages]) => [part(range, at, pages), DATA.subarray(at * PAGE, (at + pages) * PAGE)] as const);

      test(`migrate_partial_unmap_fault, THP, half unmapped at ${name}`, async (hmm) => {
        const { machine, process, mirror, coherent, local } = hmm;
        const range = await hugeFilled(process, mirror, DATA);
        const gone = part(range, first, half);
        await migrateAll(mirror, range, 'device', 1);
        await process.munmap(gone);
        await expectSnapshot(mirror, gone, PROT.ERROR);
        expect(await mirror.readPages(gone)).toMatchObject({ errno: 'EFAULT', pages: 0 });
        await expect(process.read(gone.start, 1)).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT' });
        // The entry came apart where it stands; the folio keeps all of its frames.
        expect(await usedDevicePages(machine, mirror)).toBe(HUGE_PAGES);
        for (const [rest, bytes] of restOf(range)) {
          await expectSmall(process, mirror, rest, local | PROT.WRITE);
          await expectOnDevice(process, rest, coherent);
          if (coherent) await migrateAll(mirror, part(rest, 1, 1), 'system', 1);
          else await process.read(part(rest, 1, 1).start, 1);
          // One page moves, no more.
          await expectPresent(process, part(rest, 1, 1));
          await expectOnDevice(process, part(rest, 0, 1), coherent);
          await expectMemory(process, rest, bytes);
        }
        // By now it has come apart too, and what nobody maps is free.
        expect(await usedDevicePages(machine, mirror)).toBe(coherent ? half - restOf(range).length : 0);
      });

      for (const dontUnmap of [false, true]) {
        for (const early of [true, false]) {
          const when = early ? 'before' : 'after';
          const how = dontUnmap ? ', MREMAP_DONTUNMAP' : '';
          test(`migrate_remap_fault, THP, half moved at ${name} ${when} migration${how}`, async (hmm) => {
            const { machine, process, mirror, coherent, local } = hmm;
            const range = await hugeFilled(process, mirror, DATA);
            const place = await hugeArea(process);
            const old = part(range, first, half);
            const to = part(place, HUGE_PAGES / 8, half);
            if (!early) await migrateAll(mirror, range, 'device', 1);
            expect(await process.mremap(old, { to: to.start, dontUnmap })).toEqual(to);
            if (early) await toDevice(mirror, to);
            await expectSmall(process, mirror, to, local | PROT.WRITE);
            await expectOnDevice(process, to, coherent);
            expect(await usedDevicePages(machine, mirror)).toBe(early ? half : HUGE_PAGES);
            expectBytes(await process.read(to.start, to.length), DATA.subarray(first * PAGE, first * PAGE + to.length));
            if (dontUnmap) {
              expect(await residentPages(process, old)).toBe(0);
              await expectMemory(process, old, new Uint8Array(old.length));
            } else {
              await expect(process.read(old.start, 1)).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT' });
              expect(await mirror.readPages(old)).toMatchObject({ errno: 'EFAULT', pages: 0 });
            }
            for (const [rest, bytes] of restOf(range)) await expectMemory(process, rest, bytes);
            if (!coherent) expect(await usedDevicePages(machine, mirror)).toBe(0);
          });
        }
      }
    }

    for (const dontUnmap of [false, true]) {
      test(`migrate_remap_fault, THP, all of it moved on the device${dontUnmap ? ', MREMAP_DONTUNMAP' : ''}`, async (hmm) => {
        const { process, mirror } = hmm;
        const range = await hugeFilled(process, mirror, DATA);
        const to = await hugeArea(process);
        await migrateAll(mirror, range, 'device', 1);
        expect(await process.mremap(range, { to: to.start, dontUnmap })).toEqual(to);
        // The entry went as one, and nothing was copied.
        await expectHugeOnDevice(hmm, mirror, to);
        await expectDeviceRead(mirror, to, DATA, 1);
        await bringHome(hmm, mirror, to);
        await expectHugeInRam(hmm, mirror, to);
        await expectMemory(process, to, DATA);
        if (dontUnmap) await expectMemory(process, range, zeros(HUGE_PAGES));
        else await expect(process.read(range.start, 1)).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT' });
      });
    }
  },
  hugeSpecOf,
);
