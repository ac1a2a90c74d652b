/** hmm-tests: children of a process whose memory devices use. */
import { expect } from 'vitest';
import {
  BUFFER,
  counting,
  deviceWrite,
  expectDeviceRead,
  expectMemory,
  expectOnDevice,
  expectPresent,
  expectSnapshot,
  filled,
  negative,
  ONE_TO_EIGHT,
  PAGE,
  PROT,
  residentPages,
  selftests,
  toDevice,
  usedDevicePages,
} from './fixture.js';

const PAGES = BUFFER / PAGE;

selftests(ONE_TO_EIGHT, (test) => {
  for (const migrated of [false, true]) {
    const where = migrated ? 'on the device' : 'in RAM';
    test(`anon_write_child, ${where}`, async ({ machine, process, mirrors, mirror, coherent }) => {
      const range = await filled(process, counting(PAGES));
      if (migrated) await toDevice(mirror, range);
      const child = await process.fork();
      expect(await residentPages(child, range)).toBe(PAGES);
      if (migrated) await expectOnDevice(child, range, coherent);
      await expectMemory(child, range, counting(PAGES));
      // The child's touch brought a private page back for both; a coherent one is within its reach.
      const stays = migrated && coherent;
      expect(await usedDevicePages(machine, mirror)).toBe(stays ? PAGES : 0);
      if (stays) await expectOnDevice(process, range, coherent);
      else await expectPresent(process, range);
      for (const { device } of mirrors) {
        const own = await child.mirror(device, { onFault: 'mirror' });
        await deviceWrite(own, range, negative(PAGES), 1);
        await expectMemory(child, range, negative(PAGES));
      }
      await child.exit();
      await expectMemory(process, range, counting(PAGES));
    });
  }

  test('anon_write_child_shared', async ({ process, mirrors }) => {
    const range = await process.mmap({ length: BUFFER, shared: true });
    await process.write(range.start, counting(PAGES));
    const child = await process.fork();
    await expectMemory(child, range, counting(PAGES));
    for (const { device } of mirrors) {
      const own = await child.mirror(device, { onFault: 'mirror' });
      await deviceWrite(own, range, counting(PAGES, 7 * device), 1);
      await expectMemory(process, range, counting(PAGES, 7 * device));
    }
    await child.exit();
    await expectMemory(process, range, counting(PAGES, 7 * (mirrors.length - 1)));
  });

  test('exclusive_cow', async ({ process, mirror }) => {
    const range = await filled(process, counting(PAGES));
    expect(await mirror.exclusive(range)).toMatchObject({ errno: 0, pages: PAGES });
    const child = await process.fork();
    // Fork has taken the pages back first: both share them, read-only.
    await expectPresent(process, range);
    await expectPresent(child, range);
    expect(await mirror.isExclusive(range)).toBe(false);
    for (const party of [process, child]) {
      const words = await party.readArray('i32', range.start, BUFFER / 4);
      await party.writeArray(
        'i32',
        range.start,
        words.map((word) => word + 1),
      );
    }
    await expectMemory(process, range, counting(PAGES, 1));
    await expectMemory(child, range, counting(PAGES, 1));
    await child.exit();
    await expectMemory(process, range, counting(PAGES, 1));
  });

  test('hmm_cow_in_device', async ({ machine, process, mirror, coherent, local }) => {
    const range = await filled(process, counting(PAGES));
    await toDevice(mirror, range);
    const child = await process.fork();
    await expectSnapshot(mirror, range, local | PROT.READ);
    await expectOnDevice(process, range, coherent);
    await expectOnDevice(child, range, coherent);
    await process.write(range.start, negative(PAGES));
    // A private page came home first; a coherent one was copied from where it is, and the child has it there.
    expect(await usedDevicePages(machine, mirror)).toBe(coherent ? PAGES : 0);
    await expectPresent(process, range);
    await expectMemory(child, range, counting(PAGES));
    await child.exit();
    expect(await usedDevicePages(machine, mirror)).toBe(0);
    await expectSnapshot(mirror, range, PROT.WRITE);
    await expectMemory(process, range, negative(PAGES));
    await expectDeviceRead(mirror, range, negative(PAGES), 1);
  });
});
