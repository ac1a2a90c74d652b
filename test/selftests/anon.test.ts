/** hmm-tests: a device that reads and writes anonymous memory where it is. */
import { expect } from 'vitest';
import {
  BUFFER,
  counting,
  deviceWrite,
  expectBytes,
  expectDeviceRead,
  expectMemory,
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
  zeros,
} from './fixture.js';

const PAGES = BUFFER / PAGE;

selftests(ONE_TO_EIGHT, (test) => {
  test('open_close', async ({ process, mirrors, mirror }) => {
    const again = await process.mirror(mirror.device);
    expect(process.mirrors).toHaveLength(mirrors.length + 1);
    await again.close();
    await mirror.close();
    expect(process.mirrors).toHaveLength(mirrors.length - 1);
    await expect(mirror.readPages({ start: PAGE as never, length: PAGE })).rejects.toMatchObject({
      code: 'ERR_PFNLESS_DISPOSED',
    });
    const reopened = await process.mirror(mirror.device);
    const range = await filled(process, counting(1));
    await expectDeviceRead(reopened, range, counting(1), 1);
  });

  test('anon_read', async ({ process, mirrors }) => {
    const range = await process.mmap({ length: BUFFER });
    const written = part(range, 2, PAGES - 2);
    await process.write(written.start, counting(PAGES - 2));
    await process.mprotect(range, 'r');
    expectBytes(await process.read(part(range, 1, 1).start, PAGE), zeros(1));
    for (const mirror of mirrors) {
      const expected = new Uint8Array(BUFFER);
      expected.set(counting(PAGES - 2), 2 * PAGE);
      await expectDeviceRead(mirror, range, expected, 1);
      await expectSnapshot(mirror, part(range, 0, 2), PROT.READ | PROT.ZERO);
      await expectSnapshot(mirror, written, PROT.READ);
    }
    // The device's read of page 0 took the zero page, not memory.
    expect(await residentPages(process, range)).toBe(PAGES - 2);
  });

  test('anon_read_prot', async ({ process, mirrors }) => {
    const range = await filled(process, counting(PAGES));
    await process.mprotect(range, 'none');
    for (const mirror of mirrors) {
      expect(await mirror.readPages(range)).toMatchObject({ errno: 'EFAULT', pages: 0 });
      await expect(mirror.read(range.start, PAGE)).rejects.toMatchObject({ errno: 'EFAULT' });
      await expectSnapshot(mirror, range, PROT.ERROR);
    }
    await process.mprotect(range, 'rw');
    await expectMemory(process, range, counting(PAGES));
    expect(await residentPages(process, range)).toBe(PAGES);
  });

  test('anon_write', async ({ process, mirrors, mirror }) => {
    const range = await process.mmap({ length: BUFFER });
    await deviceWrite(mirror, range, counting(PAGES), 1);
    await expectMemory(process, range, counting(PAGES));
    const { rss, prd, prc } = await process.smaps(range);
    expect({ rss, prd, prc }).toEqual({ rss: BUFFER / 1024, prd: BUFFER / 1024, prc: 0 });
    for (const other of mirrors) await expectSnapshot(other, range, PROT.WRITE);
  });

  test('anon_write_prot', async ({ process, mirrors }) => {
    const range = await process.mmap({ length: BUFFER, protection: 'r' });
    for (const mirror of mirrors) {
      await expectDeviceRead(mirror, part(range, 0, 1), zeros(1), 1);
      expect(await mirror.writePages(range, new BigUint64Array(PAGES).fill(1n))).toMatchObject({
        errno: 'EPERM',
        pages: 0,
      });
    }
    await expectMemory(process, range, zeros(PAGES));
    expect(await residentPages(process, range)).toBe(0);
    await process.mprotect(range, 'rw');
    for (const mirror of mirrors) {
      await deviceWrite(mirror, range, counting(PAGES, mirror.device), 1);
      await expectMemory(process, range, counting(PAGES, mirror.device));
    }
    expect(await residentPages(process, range)).toBe(PAGES);
  });

  test('anon_read_multiple', async ({ process, mirrors }) => {
    for (let round = 0; round < NTIMES; round++) {
      const range = await filled(process, counting(64, round));
      await expectDeviceRead(mirrors[round % mirrors.length], range, counting(64, round), 1);
      await process.munmap(range);
      // The device's entries went with the mapping.
      await expect(mirrors[round % mirrors.length].read(range.start, PAGE)).rejects.toMatchObject({ errno: 'EFAULT' });
    }
  });

  test('anon_write, by every device in turn: each sees what the others wrote', async ({ process, mirrors }) => {
    const range = await filled(process, negative(16));
    for (const writer of mirrors) {
      await writer.write(range.start, counting(16, 1000 * writer.device));
      for (const reader of mirrors) {
        expectBytes(await reader.read(range.start, range.length), counting(16, 1000 * writer.device));
      }
    }
    await expectPresent(process, range);
  });
});
