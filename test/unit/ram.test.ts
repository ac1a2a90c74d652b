import { expect, test } from 'vitest';
import { PAGE_SIZE } from '#src/abi/address';
import type { FrameIndex } from '#src/base/brand';
import { viewPages, viewTyped } from '#src/base/page-bytes';
import { boot } from '#src/check/boot';
import { Ram } from '#src/mm/ram';

const frame = (index: number) => index as FrameIndex;

/** The first frame behind 4 GiB: no array of bytes reaches it. */
const FAR = 2 ** 20;
/** The last frame of the first GiB: frames are filled and compared through views of a GiB each. */
const BORDER = 2 ** 18 - 1;
// Untouched memory costs nothing.
const ram = new Ram(FAR + 4);

test.each([0, BORDER, FAR])('frame %i is filled, copied and zeroed, and its neighbours are not', (first) => {
  const [from, to, next] = [frame(first), frame(first + 1), frame(first + 2)];
  ram.bytes(from).fill(0x5a);
  ram.copyFrame(from, to);
  expect(ram.bytes(to).every((byte) => byte === 0x5a)).toBe(true);
  expect(ram.bytes(next).every((byte) => byte === 0)).toBe(true);
  expect(ram.words[(first + 1) * 512 + 511]).toBe(0x5a5a5a5a5a5a5a5an);
  ram.zeroFrame(from);
  expect(ram.bytes(from).every((byte) => byte === 0)).toBe(true);
  expect([from, to, next].map((each) => ram.isZero(each))).toEqual([true, false, true]);
  ram.bytes(next)[7] = 0x80; // minus zero as a double
  expect(ram.isZero(next)).toBe(false);
  ram.zeroFrame(next);
  expect(ram.isZero(next)).toBe(true);
  expect(ram.bytes(to, 4000, 90)).toEqual(new Uint8Array(90).fill(0x5a));
});

test.each([0, BORDER - 1, BORDER, FAR])('frame %i: poison says so, and one changed bit shows', (first) => {
  const poisoned = frame(first + 1);
  ram.poisonFrame(poisoned);
  const bytes = ram.bytes(poisoned);
  expect(bytes.length).toBe(PAGE_SIZE);
  expect(String.fromCharCode(...bytes)).toBe('poisoned'.repeat(PAGE_SIZE / 8));
  expect(ram.isPoisoned(poisoned)).toBe(true);
  for (const at of [0, 2047, 4095]) {
    bytes[at]! ^= 1;
    expect(ram.isPoisoned(poisoned), `byte ${at}`).toBe(false);
    bytes[at]! ^= 1;
  }
  bytes.fill(0xff); // NaN as a double
  expect(ram.isPoisoned(poisoned)).toBe(false);
});

test.each([
  ['as this host can', viewPages],
  ['as every host can', viewTyped],
])('a page is put and compared %s', (_how, view) => {
  const memory = new SharedArrayBuffer(4 * PAGE_SIZE);
  const bytes = view(memory, PAGE_SIZE, 2 * PAGE_SIZE);
  // Doubles would take NaN for nobody's equal, and minus zero for zero.
  const page = new Uint8Array(3 * PAGE_SIZE)
    .subarray(PAGE_SIZE, 2 * PAGE_SIZE)
    .fill(0xff, 8)
    .fill(0x80, 7, 8);
  bytes.put(PAGE_SIZE, page);
  const all = new Uint8Array(memory);
  expect(all.subarray(2 * PAGE_SIZE, 3 * PAGE_SIZE)).toEqual(page);
  expect([0, 1, 3].flatMap((at) => [...all.subarray(at * PAGE_SIZE, (at + 1) * PAGE_SIZE)].filter(Boolean))).toEqual(
    [],
  );
  expect([0, PAGE_SIZE].map((at) => bytes.holds(at, page))).toEqual([false, true]);
  for (const at of [0, 7, 2048, PAGE_SIZE - 1]) {
    all[2 * PAGE_SIZE + at]! ^= 0x80;
    expect(bytes.holds(PAGE_SIZE, page), `byte ${at}`).toBe(false);
    all[2 * PAGE_SIZE + at]! ^= 0x80;
  }
  expect(bytes.holds(PAGE_SIZE, page)).toBe(true);
});

test.each(['workstation', 'big'] as const)('%s, with 8 GiB of RAM, moves pages there and back', async (preset) => {
  await using machine = await boot({ preset, executor: 'inline' });
  const process = await machine.process();
  const range = await process.mmap({ length: 8 * PAGE_SIZE });
  const values = Uint32Array.from({ length: 8 * 1024 }, (_, i) => i * 3);
  await process.writeArray('u32', range.start, values);
  const mirror = await process.mirror(0);
  expect(await mirror.migrate(range, 'device')).toMatchObject({ migrated: 8 });
  expect(await mirror.read(range.start, 4096)).toEqual(new Uint8Array(values.buffer, 0, 4096));
  expect(await process.readArray('u32', range.start, values.length)).toEqual(values);
  expect(await machine.check()).toEqual([]);
});
