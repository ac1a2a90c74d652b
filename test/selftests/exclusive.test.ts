/** hmm-tests: pages that a device has taken away from the CPU, for atomics. */
import { expect } from 'vitest';
import {
  BUFFER,
  counting,
  expectBytes,
  expectMemory,
  expectPresent,
  expectSnapshot,
  filled,
  ONE_TO_EIGHT,
  PAGE,
  PROT,
  residentPages,
  selftests,
} from './fixture.js';

const PAGES = BUFFER / PAGE;

selftests(ONE_TO_EIGHT, (test) => {
  test('exclusive', async ({ process, mirror }) => {
    const range = await filled(process, counting(PAGES));
    const { errno, pages, words } = await mirror.exclusive(range);
    expect({ errno, pages }).toEqual({ errno: 0, pages: PAGES });
    const view = new BigUint64Array(counting(PAGES).buffer);
    expect(words.findIndex((word, page) => word !== view[page * (PAGE / 8)])).toBe(-1);
    expectBytes(await mirror.read(range.start, range.length), counting(PAGES));
    // Gone for the CPU, but still resident: the page is in RAM.
    await expectSnapshot(mirror, range, PROT.NONE);
    expect(await mirror.isExclusive(range)).toBe(true);
    expect(await residentPages(process, range)).toBe(PAGES);
    const values = await process.readArray('i32', range.start, BUFFER / 4);
    expectBytes(new Uint8Array(values.buffer), counting(PAGES));
    await process.writeArray(
      'i32',
      range.start,
      values.map((value) => value + 1),
    );
    await expectMemory(process, range, counting(PAGES, 1));
    expect(await mirror.isExclusive(range)).toBe(false);
    await expectPresent(process, range);
    await expectSnapshot(mirror, range, PROT.WRITE);
  });

  test('exclusive, one device after the other', async ({ process, mirrors }) => {
    const range = await filled(process, counting(64));
    for (const mirror of mirrors) {
      expect(await mirror.exclusive(range)).toMatchObject({ errno: 0, pages: 64 });
      for (const other of mirrors) expect(await other.isExclusive(range)).toBe(other === mirror);
    }
    await expectMemory(process, range, counting(64));
    for (const mirror of mirrors) expect(await mirror.isExclusive(range)).toBe(false);
  });

  test('exclusive_mprotect', async ({ process, mirror }) => {
    const range = await filled(process, counting(PAGES));
    expect(await mirror.exclusive(range)).toMatchObject({ errno: 0, pages: PAGES });
    await process.mprotect(range, 'r');
    const words = new BigUint64Array(PAGES).fill(1n);
    expect(await mirror.writePages(range, words)).toMatchObject({ errno: 'EPERM', pages: 0 });
    expect(await mirror.isExclusive(range)).toBe(false);
    await expectMemory(process, range, counting(PAGES));
    await expect(process.write(range.start, new Uint8Array(1))).rejects.toMatchObject({ code: 'ERR_PFNLESS_FAULT' });
    // The CPU's access gave them back, with what the mapping now allows.
    await expectSnapshot(mirror, range, PROT.READ);
  });
});
