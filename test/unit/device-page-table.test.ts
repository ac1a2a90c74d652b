import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DEVICE_PTE_VALID, DEVICE_PTE_WRITE, devicePteWord } from '#src/abi/device-pte';
import { NO_WINDOW } from '#src/device/memory';
import { DevicePageTables } from '#src/device/page-table';
import { Tlb } from '#src/device/tlb';

const PAGE = 4096;
const newTables = (tables = 64): DevicePageTables => new DevicePageTables(new SharedArrayBuffer(tables * PAGE));
/** Pages that fall into few, far apart tables. */
const vpn = fc
  .tuple(fc.constantFrom(0, 511, 512, 2 ** 18 - 3, 2 ** 27 - 1, 2 ** 34 + 7), fc.nat(5))
  .map(([base, delta]) => base + delta);

describe('device page table', () => {
  test('behaves as a map of pages, over any sequence of maps and unmaps', () => {
    const command = fc.oneof(
      fc.record({ kind: fc.constant('map' as const), vpn, pages: fc.integer({ min: 1, max: 600 }) }),
      fc.record({ kind: fc.constant('unmap' as const), vpn, pages: fc.integer({ min: 1, max: 600 }) }),
    );
    fc.assert(
      fc.property(fc.array(command, { maxLength: 30 }), (commands) => {
        const tables = newTables();
        const root = tables.createContext()!;
        const model = new Map<number, number>();
        for (const { kind, vpn: first, pages } of commands) {
          if (kind === 'map') {
            // A page's frame is a function of the page, so mapping again never names another frame.
            expect(
              tables.mapRange(root, first * PAGE, pages, first % 2 ** 31, devicePteWord(3, DEVICE_PTE_WRITE)),
            ).toBe(true);
            for (let page = first; page < first + pages; page++) model.set(page, page % 2 ** 31);
          } else {
            const had = [...model.keys()].filter((page) => page >= first && page < first + pages);
            expect(tables.unmapRange(root, first * PAGE, (first + pages) * PAGE)).toBe(had.length);
            for (const page of had) model.delete(page);
            tables.reclaim(tables.retired);
          }
          for (const page of [first - 1, first, first + pages - 1, first + pages]) {
            if (page < 0) continue;
            const frame = model.get(page);
            const word = tables.read(root, page * PAGE);
            expect(word).toBe(frame === undefined ? 0 : devicePteWord(3, DEVICE_PTE_WRITE | DEVICE_PTE_VALID));
            if (frame !== undefined) expect(tables.frameOf(root, page * PAGE)).toBe(frame);
          }
        }
        tables.unmapRange(root, 0, 2 ** 47);
        tables.reclaim(tables.retired);
        expect(tables.freeTables).toBe(62); // all but the root and the null table
      }),
      { numRuns: 60, seed: 7 },
    );
  });

  test('a table that was emptied is used again only after reclaim', () => {
    const tables = newTables(5); // null, root, three tables of one branch
    const root = tables.createContext()!;
    expect(tables.map(root, 0, 9, 0)).toBe(true);
    expect(tables.freeTables).toBe(0);
    expect(tables.unmapRange(root, 0, PAGE)).toBe(1);
    const mark = tables.retired;
    expect(mark).toBe(3);
    expect(tables.map(root, 2 ** 40, 9, 0)).toBe(false);
    tables.reclaim(mark);
    expect(tables.map(root, 2 ** 40, 9, 0)).toBe(true);
    expect(tables.read(root, 0)).toBe(0);
  });

  test('parked entries: the device cannot use them, an unmap forgets them, the others are valid again', () => {
    const tables = newTables();
    const root = tables.createContext()!;
    const free = tables.freeTables;
    tables.mapRange(root, 0, 4, 10, devicePteWord(0, DEVICE_PTE_WRITE));
    tables.mapRange(root, 4 * PAGE, 2, 20, devicePteWord(1, 0));
    expect(tables.park(root, 0, 6 * PAGE, 1)).toBe(4);
    expect(tables.parked).toBe(4);
    expect(tables.park(root, 0, 4 * PAGE)).toBe(0);
    expect([0, 1, 4, 5].map((page) => tables.read(root, page * PAGE) !== 0)).toEqual([false, false, true, true]);
    expect(tables.readParked(root, 4 * PAGE)).toBe(0);
    // A valid entry of another frame may take the place of a parked one: the device has forgotten that already.
    expect(tables.map(root, 0, 99, devicePteWord(1, 0))).toBe(true);
    tables.unpark(root, PAGE);
    expect(tables.read(root, PAGE)).toBe(devicePteWord(0, DEVICE_PTE_WRITE | DEVICE_PTE_VALID));
    expect(tables.frameOf(root, PAGE)).toBe(11);
    expect(tables.unmapRange(root, 0, 3 * PAGE)).toBe(2);
    expect(tables.parked).toBe(1);
    expect(tables.unmapRange(root, 3 * PAGE, 6 * PAGE)).toBe(2);
    tables.reclaim(tables.retired);
    expect(tables.parked).toBe(0);
    expect(tables.freeTables).toBe(free);
    tables.map(root, 0, 1, devicePteWord(0, 0));
    tables.park(root, 0, PAGE);
    tables.destroyContext(root);
    expect(tables.parked).toBe(0);
  });

  test('contexts do not see each other, and destroying one gives its tables back', () => {
    const tables = newTables();
    const [one, two] = [tables.createContext()!, tables.createContext()!];
    const free = tables.freeTables;
    tables.mapRange(one, 0x1000, 2000, 5, devicePteWord(1, 0));
    expect(tables.read(two, 0x1000)).toBe(0);
    tables.destroyContext(one);
    expect(tables.freeTables).toBe(free + 1);
    expect(tables.createContext()).toBe(one);
    expect(tables.read(one, 0x1000)).toBe(0);
  });

  test('a full buffer has no room for a context', () => {
    expect(newTables(1).createContext()).toBeUndefined();
  });

  test('a valid entry cannot be made to name another frame or memory', () => {
    const tables = newTables();
    const root = tables.createContext()!;
    tables.map(root, 0x5000, 1, devicePteWord(0, 0));
    tables.map(root, 0x5000, 1, devicePteWord(0, DEVICE_PTE_WRITE));
    expect(() => tables.map(root, 0x5000, 2, devicePteWord(0, 0))).toThrow(/without an unmap/);
    expect(() => tables.map(root, 0x5000, 1, devicePteWord(1, 0))).toThrow(/without an unmap/);
  });
});

describe('tlb', () => {
  test('never answers for another page or context, and finds what it was just given', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(3), vpn), { maxLength: 200 }), (pages) => {
        const tlb = new Tlb(4);
        const given = new Map<string, number>();
        for (const [index, [context, page]] of pages.entries()) {
          const entry = tlb.insert(context, page, index, NO_WINDOW, index);
          given.set(`${context}:${page}`, index);
          expect(tlb.lookup(context, page)).toBe(entry);
          for (const [key, base] of given) {
            const [c, p] = key.split(':').map(Number) as [number, number];
            const found = tlb.lookup(c, p);
            if (found >= 0) expect(tlb.bases[found]).toBe(base);
          }
        }
      }),
      { numRuns: 50, seed: 7 },
    );
  });

  test.each([3, 4000])('invalidating a range of %i pages forgets these pages of this context only', (pages) => {
    const tlb = new Tlb(16);
    const first = 2 ** 34;
    for (const context of [1, 2])
      for (let page = -1; page <= 3; page++) tlb.insert(context, first + page, 1, NO_WINDOW, 0);
    tlb.invalidateRange(1, first * PAGE, (first + pages) * PAGE);
    const left = (context: number): number[] =>
      [-1, 0, 1, 2, 3].filter((page) => tlb.lookup(context, first + page) >= 0);
    expect(left(1)).toEqual(pages === 3 ? [-1, 3] : [-1]);
    expect(left(2)).toEqual([-1, 0, 1, 2, 3]);
    tlb.invalidateAll();
    expect(left(2)).toEqual([]);
  });

  test('replacement is round robin: four pages of a set stay, the fifth pushes the oldest out', () => {
    const tlb = new Tlb(4);
    for (let way = 0; way < 5; way++) tlb.insert(0, way * 4, 0, NO_WINDOW, 0);
    expect([0, 4, 8, 12, 16].map((page) => tlb.lookup(0, page) >= 0)).toEqual([false, true, true, true, true]);
  });
});
