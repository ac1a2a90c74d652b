/** hmm-tests, FIXTURE(hmm2): what one device sees and gets of another's pages. */
import { expect } from 'vitest';
import {
  BUFFER,
  counting,
  expectDeviceRead,
  expectMemory,
  expectSnapshot,
  filled,
  PAGE,
  PROT,
  part,
  selftests,
  TWO_TO_EIGHT,
  toDevice,
  usedDevicePages,
} from './fixture.js';

const PAGES = BUFFER / PAGE;

selftests(TWO_TO_EIGHT, (test) => {
  test('migrate_mixed', async ({ machine, process, mirrors, coherent, local }) => {
    const [zero, one] = [mirrors[0], mirrors.at(-1)!];
    const range = await process.mmap({ length: 6 * PAGE });
    await process.mprotect(part(range, 0, 1), 'none');
    await process.munmap(part(range, 1, 1));
    for (const pages of [1, 3]) {
      const answer = await one.migrate(part(range, 0, pages), 'device');
      expect(answer).toMatchObject({ migrated: 0, errno: 'EINVAL' });
    }
    await process.mprotect(part(range, 2, 1), 'r');
    expect((await process.read(part(range, 2, 1).start, 1))[0]).toBe(0);
    await process.write(part(range, 3, 3).start, counting(3));
    await process.mprotect(part(range, 3, 1), 'r');
    const mixed = part(range, 2, 4);
    await toDevice(one, mixed);
    const expected = new Uint8Array(4 * PAGE);
    expected.set(counting(3), PAGE);
    await expectDeviceRead(one, mixed, expected, 0);
    const codes = [PROT.READ, PROT.READ, PROT.WRITE, PROT.WRITE].map((code) => code | local);
    expect([...(await one.snapshot(mixed))]).toEqual(codes);
    // No device takes from another.
    expect(await zero.migrate(part(range, 5, 1), 'device')).toMatchObject({ migrated: 0, errno: 'ENOENT' });
    expect(await usedDevicePages(machine, one)).toBe(4);
    expect(await usedDevicePages(machine, zero)).toBe(0);
    await expectMemory(process, mixed, expected);
    expect(await usedDevicePages(machine, one)).toBe(coherent ? 4 : 0);
  });

  test('snapshot', async ({ process, mirrors, coherent, local, remote }) => {
    const [zero, one] = [mirrors[0], mirrors.at(-1)!];
    const range = await process.mmap({ length: 7 * PAGE });
    await process.mprotect(part(range, 0, 1), 'none');
    await process.munmap(part(range, 1, 1));
    await process.read(part(range, 2, 1).start, 1);
    await process.write(part(range, 3, 4).start, counting(4));
    await process.mprotect(part(range, 3, 1), 'r');
    await toDevice(zero, part(range, 5, 1));
    await toDevice(one, part(range, 6, 1));
    const common = [PROT.ERROR, PROT.ERROR, PROT.ZERO | PROT.READ, PROT.READ, PROT.WRITE];
    const own = local | PROT.WRITE;
    // Another device's private page is none of our business; a coherent one has an address for everybody.
    const other = coherent ? remote | PROT.WRITE : PROT.NONE;
    expect([...(await zero.snapshot(range))]).toEqual([...common, own, other]);
    expect([...(await one.snapshot(range))]).toEqual([...common, other, own]);
    for (const third of mirrors.slice(1, -1)) {
      expect([...(await third.snapshot(range))]).toEqual([...common, other, other]);
    }
    // Looking changed nothing.
    expect([...(await zero.snapshot(range))]).toEqual([...common, own, other]);
  });

  test('double_map', async ({ machine, process, mirrors, coherent, local, remote }) => {
    const one = mirrors.at(-1)!;
    const range = await filled(process, counting(PAGES));
    await process.mprotect(range, 'r');
    for (const mirror of mirrors) await expectDeviceRead(mirror, range, counting(PAGES), 1);
    await toDevice(one, range);
    expect(await usedDevicePages(machine, one)).toBe(PAGES);
    const others = mirrors.slice(0, -1);
    await expectSnapshot(one, range, local | PROT.READ);
    for (const mirror of others) await expectSnapshot(mirror, range, coherent ? remote | PROT.READ : PROT.NONE);
    // The first reader brings a private page back, for all; a coherent one is mapped where it is.
    await expectDeviceRead(mirrors[0], range, counting(PAGES), 1);
    expect(await usedDevicePages(machine, one)).toBe(coherent ? PAGES : 0);
    for (const mirror of others) await expectSnapshot(mirror, range, coherent ? remote | PROT.READ : PROT.READ);
    await expectSnapshot(one, range, coherent ? local | PROT.READ : PROT.READ);
    await expectDeviceRead(one, range, counting(PAGES), coherent ? 0 : 1);
    await expectMemory(process, range, counting(PAGES));
  });
});
