/** hmm-tests: anonymous memory that goes to a device and comes back. */
import { expect } from 'vitest';
import {
  BUFFER,
  counting,
  expectBytes,
  expectDeviceRead,
  expectMemory,
  expectOnDevice,
  expectPresent,
  expectSnapshot,
  filled,
  NTIMES,
  negative,
  ONE_TO_EIGHT,
  PAGE,
  PROT,
  part,
  residentPages,
  selftests,
  toDevice,
  usedDevicePages,
} from './fixture.js';

const PAGES = BUFFER / PAGE;

selftests(ONE_TO_EIGHT, (test) => {
  test('migrate', async ({ machine, process, mirrors, coherent, local }) => {
    for (const mirror of mirrors) {
      const range = await filled(process, counting(PAGES));
      const before = await process.smaps(range);
      expect(await mirror.migrate(range, 'device')).toEqual({
        requested: PAGES,
        collected: PAGES,
        migrated: PAGES,
        folios: PAGES,
        errno: 0,
      });
      await expectDeviceRead(mirror, range, counting(PAGES), 0);
      await expectSnapshot(mirror, range, local | PROT.WRITE);
      await expectOnDevice(process, range, coherent);
      expect(await usedDevicePages(machine, mirror)).toBe(PAGES);
      // Resident, anonymous and dirty as before: a page on a device counts like any other.
      // What the CPU has not used since is not referenced, unless a coherent device has it.
      expect({ ...(await process.smaps(range)), ref: 0 }).toEqual({ ...before, ref: 0 });
      await process.munmap(range);
      expect(await usedDevicePages(machine, mirror)).toBe(0);
    }
  });

  test('migrate_fault', async ({ machine, process, mirror, coherent }) => {
    const range = await filled(process, counting(PAGES));
    const half = part(range, 0, PAGES / 2);
    await toDevice(mirror, range);
    await expectMemory(process, half, counting(PAGES / 2));
    // What the CPU touches of coherent memory stays where it is.
    const home = coherent ? 0 : PAGES / 2;
    if (!coherent) await expectPresent(process, half);
    await expectOnDevice(process, part(range, home, PAGES - home), coherent);
    expect(await usedDevicePages(machine, mirror)).toBe(PAGES - home);
    expect(await mirror.migrate(range, 'device')).toEqual({
      requested: PAGES,
      collected: home,
      migrated: home,
      folios: home,
      errno: 0,
    });
    await expectDeviceRead(mirror, range, counting(PAGES), 0);
    expect(await usedDevicePages(machine, mirror)).toBe(PAGES);
    await expectMemory(process, range, counting(PAGES));
    expect(await usedDevicePages(machine, mirror)).toBe(coherent ? PAGES : 0);
  });

  test('migrate_release', async ({ machine, process, mirrors, mirror }) => {
    const range = await filled(process, counting(PAGES));
    const elsewhere = await filled(process, negative(PAGES));
    await toDevice(mirror, range);
    if (mirrors.length > 1) await toDevice(mirrors[0], elsewhere);
    await mirror.releaseChunks();
    const [used] = [(await machine.stats()).devices[mirror.device]];
    expect(used.usedPages).toBe(0);
    await expectPresent(process, range);
    await expectMemory(process, range, counting(PAGES));
    // Another device's pages are nobody's business.
    if (mirrors.length > 1) expect(await usedDevicePages(machine, mirrors[0])).toBe(PAGES);
    await toDevice(mirror, range);
    await expectMemory(process, range, counting(PAGES));
    await expectMemory(process, elsewhere, negative(PAGES));
  });

  test('migrate_shared', async ({ machine, process, mirrors }) => {
    const range = await process.mmap({ length: BUFFER, shared: true });
    await process.write(range.start, counting(PAGES));
    for (const mirror of mirrors) {
      expect(await mirror.migrate(range, 'device')).toMatchObject({ migrated: 0, errno: 'ENOENT' });
      expect(await usedDevicePages(machine, mirror)).toBe(0);
    }
    await expectPresent(process, range);
    await expectMemory(process, range, counting(PAGES));
  });

  test('migrate_multiple', async ({ machine, process, mirrors, coherent }) => {
    for (let round = 0; round < NTIMES; round++) {
      const mirror = mirrors[round % mirrors.length];
      const range = await filled(process, counting(128, round));
      await toDevice(mirror, range);
      await expectDeviceRead(mirror, range, counting(128, round), 0);
      // By the CPU's touch, if that does it, and by the driver.
      if (!coherent && round % 2 === 0) await expectMemory(process, range, counting(128, round));
      else expect(await mirror.migrate(range, 'system')).toMatchObject({ migrated: 128, errno: 0 });
      await expectPresent(process, range);
      expect(await usedDevicePages(machine, mirror)).toBe(0);
      await expectMemory(process, range, counting(128, round));
      expect((await process.smaps(range)).prd).toBe(128 * 4);
    }
  });

  test('hmm_gup_test', async ({ machine, process, mirror, coherent, local }) => {
    const range = await filled(process, counting(8));
    await toDevice(mirror, range);
    const held = [
      await process.pin(part(range, 0, 1), { kind: 'get', write: true }),
      await process.pin(part(range, 1, 1), { kind: 'get' }),
      await process.pin(part(range, 2, 1), { kind: 'longterm' }),
      await process.pin(part(range, 3, 1), { kind: 'longterm', write: true }),
    ];
    // Of a coherent device's pages only those leave that somebody wants to hold for long.
    await expectSnapshot(mirror, part(range, 0, 2), coherent ? local | PROT.WRITE : PROT.WRITE);
    await expectSnapshot(mirror, part(range, 2, 2), PROT.WRITE);
    await expectSnapshot(mirror, part(range, 4, 4), local | PROT.WRITE);
    expect(await usedDevicePages(machine, mirror)).toBe(coherent ? 6 : 4);
    for (const [at, pin] of held.entries()) {
      expectBytes(await pin.read(), counting(8).subarray(at * PAGE, (at + 1) * PAGE));
    }
    // Held pages stay where they are.
    expect(await mirror.migrate(range, 'device')).toMatchObject({ migrated: 0, errno: 'ENOENT' });
    await process.write(range.start, negative(8));
    expectBytes(await held[3].read(), negative(8).subarray(3 * PAGE, 4 * PAGE));
    for (const pin of held) await pin.release();
    // The invalidation of page 3 took the mirror's entry of page 4 along, and what is on the device does not migrate there.
    if (coherent) await expectDeviceRead(mirror, part(range, 4, 1), negative(8).subarray(4 * PAGE, 5 * PAGE), 1);
    await toDevice(mirror, range);
    await expectDeviceRead(mirror, range, negative(8), 0);
    await expectMemory(process, range, negative(8));
  });

  for (const [name, from] of [
    ['0', 0],
    ['1/4', 1 / 4],
    ['1/2', 1 / 2],
  ] as const) {
    test(`migrate_partial_unmap_fault, half unmapped at ${name}`, async ({ machine, process, mirror, coherent }) => {
      const range = await filled(process, counting(PAGES));
      const gone = part(range, PAGES * from, PAGES / 2);
      await toDevice(mirror, range);
      await process.munmap(gone);
      // Its device pages are free at once, and nobody may reach them any more.
      expect(await usedDevicePages(machine, mirror)).toBe(PAGES / 2);
      await expectSnapshot(mirror, gone, PROT.ERROR);
      expect(await mirror.readPages(gone)).toMatchObject({ errno: 'EFAULT', pages: 0 });
      await expect(process.read(gone.start, 1)).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT' });
      const all = counting(PAGES);
      for (const [first, pages] of [
        [0, PAGES * from],
        [PAGES * from + PAGES / 2, PAGES / 2 - PAGES * from],
      ]) {
        if (pages === 0) continue;
        const rest = part(range, first, pages);
        await expectOnDevice(process, rest, coherent);
        await expectMemory(process, rest, all.subarray(first * PAGE, (first + pages) * PAGE));
      }
      expect(await usedDevicePages(machine, mirror)).toBe(coherent ? PAGES / 2 : 0);
    });

    for (const dontUnmap of [false, true]) {
      for (const early of [true, false]) {
        const when = early ? 'before' : 'after';
        const how = dontUnmap ? ', MREMAP_DONTUNMAP' : '';
        test(`migrate_remap_fault, half moved at ${name} ${when} migration${how}`, async ({
          machine,
          process,
          mirror,
          coherent,
          local,
        }) => {
          const all = counting(PAGES);
          const range = await filled(process, all);
          const place = await process.mmap({ length: BUFFER });
          const first = PAGES * from;
          const old = part(range, first, PAGES / 2);
          const to = part(place, PAGES / 8, PAGES / 2);
          if (!early) await toDevice(mirror, range);
          expect(await process.mremap(old, { to: to.start, dontUnmap })).toEqual(to);
          if (early) await toDevice(mirror, to);
          else await expectSnapshot(mirror, to, local | PROT.WRITE);
          await expectOnDevice(process, to, coherent);
          expect(await residentPages(process, to)).toBe(PAGES / 2);
          expectBytes(await process.read(to.start, to.length), all.subarray(first * PAGE, first * PAGE + to.length));
          if (dontUnmap) {
            expect(await residentPages(process, old)).toBe(0);
            await expectMemory(process, old, new Uint8Array(old.length));
          } else {
            await expect(process.read(old.start, 1)).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT' });
            expect(await mirror.readPages(old)).toMatchObject({ errno: 'EFAULT', pages: 0 });
          }
          // What did not move is where it was, with its contents.
          for (const [at, pages] of [
            [0, first],
            [first + PAGES / 2, PAGES / 2 - first],
          ]) {
            const rest = all.subarray(at * PAGE, (at + pages) * PAGE);
            if (pages > 0) await expectMemory(process, part(range, at, pages), rest);
          }
          const stays = early ? PAGES / 2 : PAGES;
          expect(await usedDevicePages(machine, mirror)).toBe(coherent ? stays : 0);
        });
      }
    }
  }
});
