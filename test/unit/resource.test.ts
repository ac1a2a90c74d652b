import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Resource, ResourceTree } from '#src/mm/resource';

const MiB = 2 ** 20;
const GiB = 2 ** 30;
const SECTION = 128 * MiB;

const tree = (physBits = 40, maxPhysmemBits = 52): ResourceTree => new ResourceTree({ physBits, maxPhysmemBits });

function placed(resource: Resource | string): { start: number; end: number } {
  if (typeof resource === 'string') throw new Error(`refused: ${resource}`);
  return { start: resource.start, end: resource.end };
}

/** The rule word for word: every candidate, a section at a time, against every entry. */
function bySections(taken: { start: number; end: number }[], physBits: number, bytes: number): number | 'ERANGE' {
  const size = Math.ceil(bytes / SECTION) * SECTION;
  if (size === 0) return 'ERANGE';
  for (let start = 2 ** physBits - size; start > SECTION; start -= SECTION) {
    if (!taken.some((entry) => entry.start < start + size && start <= entry.end)) return start;
  }
  return 'ERANGE';
}

describe('request_free_mem_region', () => {
  it('takes the highest free place, section by section downwards', () => {
    const iomem = tree();
    expect(placed(iomem.requestFreeMemRegion(256 * MiB, 'a'))).toEqual({ start: 0xfff0000000, end: 0xffffffffff });
    expect(placed(iomem.requestFreeMemRegion(1, 'b'))).toEqual({ start: 0xffe8000000, end: 0xffefffffff });
    expect(placed(iomem.requestFreeMemRegion(SECTION + 1, 'c'))).toEqual({ start: 0xffd8000000, end: 0xffe7ffffff });
  });

  it('stops where the direct map ends', () => {
    expect(placed(tree(48, 46).requestFreeMemRegion(256 * MiB, 'a')).start).toBe(0x3ffff0000000);
    expect(placed(tree(52, 52).requestFreeMemRegion(256 * MiB, 'a')).start).toBe(0xffffff0000000);
  });

  it('never uses the first two sections', () => {
    const iomem = tree(32);
    iomem.insert({ start: 0x18000000, end: 2 ** 32 - 1, name: 'PCI Bus 0000:00' });
    expect(placed(iomem.requestFreeMemRegion(SECTION, 'a')).start).toBe(0x10000000);
    expect(iomem.requestFreeMemRegion(SECTION, 'b')).toBe('ERANGE');
  });

  it('counts a direct child of the root as used, whole, busy or not, and never looks inside', () => {
    const iomem = tree();
    iomem.insert({ start: 2 * GiB, end: 2 ** 40 - 1, name: 'PCI Bus 0000:00' });
    expect(placed(iomem.requestFreeMemRegion(SECTION, 'a')).end).toBe(2 * GiB - 1);
    iomem.insert({ start: GiB + 5, end: GiB + 5, name: 'one byte' });
    expect(placed(iomem.requestFreeMemRegion(768 * MiB, 'above the byte')).start).toBe(GiB + SECTION);
    expect(placed(iomem.requestFreeMemRegion(SECTION, 'below it')).end).toBe(GiB - 1);
  });

  it.each([
    ['no bytes', 0],
    ['the whole space', 2 ** 40],
    ['the whole space but the first section', 2 ** 40 - SECTION],
    ['more than the space', 2 ** 41],
    ['2^63 (wraps in Linux)', 2n ** 63n],
    ['2^64 - 1 (rounds to nothing in Linux)', 2n ** 64n - 1n],
    ['2^64 - 1 as a double', 2 ** 64 - 1],
  ])('refuses %s with ERANGE', (_, size) => {
    expect(tree().requestFreeMemRegion(size, 'a')).toBe('ERANGE');
  });

  it('is done at once in an empty space of 52 bits that has no room', () => {
    const iomem = tree(52);
    iomem.insert({ start: SECTION, end: SECTION, name: 'in the way of everything large' });
    for (let at = 1; at < 1000; at++) iomem.insert({ start: at * 2 ** 42, end: at * 2 ** 42, name: 'comb' });
    const before = performance.now();
    expect(iomem.requestFreeMemRegion(2 ** 42, 'a')).not.toBe('ERANGE');
    expect(iomem.requestFreeMemRegion(2 ** 50, 'b')).toBe('ERANGE');
    expect(performance.now() - before).toBeLessThan(100);
  });

  it('agrees with a search that tries every section', () => {
    const entry = fc
      .record({ start: fc.integer({ min: 0, max: 2 ** 34 }), size: fc.integer({ min: 1, max: 2 ** 31 - 1 }) })
      .map(({ start, size }) => ({ start, end: Math.min(start + size, 2 ** 35) - 1, name: 'entry' }));
    const bytes = fc.integer({ min: 0, max: 2 ** 31 - 1 });
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 12 }), fc.array(bytes, { maxLength: 12 }), (entries, sizes) => {
        const iomem = tree(35);
        const taken = entries.filter((each) => typeof iomem.requestMemRegion(each) !== 'string');
        for (const size of sizes) {
          const expected = bySections(taken, 35, size);
          const region = iomem.requestFreeMemRegion(size, 'device');
          expect(typeof region === 'string' ? region : region.start).toBe(expected);
          if (typeof region !== 'string') taken.push({ ...placed(region), name: 'device' });
        }
      }),
      { numRuns: 200 },
    );
  });

  it('reuses what was given back', () => {
    const iomem = tree();
    const first = iomem.requestFreeMemRegion(SECTION, 'a') as Resource;
    iomem.requestFreeMemRegion(SECTION, 'b');
    iomem.releaseMemRegion(first);
    expect(() => iomem.releaseMemRegion(first)).toThrow('is not in the tree');
    expect(placed(iomem.requestFreeMemRegion(SECTION, 'c'))).toEqual(placed(first));
  });
});

describe('the resource tree', () => {
  it('nests as insert_resource does', () => {
    const iomem = tree();
    iomem.insert({ start: 0x100000, end: 0x7fffffff, name: 'System RAM', busy: true });
    iomem.insert({ start: 0x1000000, end: 0x171afaf, name: 'Kernel code' });
    iomem.insert({ start: 0x80000000, end: 0x8000ffff, name: 'inner' });
    expect(typeof iomem.insert({ start: 0x80000000, end: 0xfebfffff, name: 'PCI Bus 0000:00' })).toBe('object');
    expect(iomem.insert({ start: 0x7ffff000, end: 0x80000fff, name: 'across' })).toBe('EBUSY');
    expect(iomem.insert({ start: 2 ** 40 - 1, end: 2 ** 40, name: 'beyond' })).toBe('EBUSY');
    iomem.insert({ start: 0x100000000, end: 0xfff0000000, name: 'far' });
    expect(iomem.print()).toBe(
      [
        '00100000-7fffffff : System RAM',
        '  01000000-0171afaf : Kernel code',
        '80000000-febfffff : PCI Bus 0000:00',
        '  80000000-8000ffff : inner',
        '100000000-fff0000000 : far',
        '',
      ].join('\n'),
    );
  });

  it('claims for drivers inside what is not busy, once', () => {
    const iomem = tree();
    iomem.insert({ start: 0x80000000, end: 0xfebfffff, name: 'PCI Bus 0000:00' });
    const bar = iomem.requestMemRegion({ start: 0xfebf0000, end: 0xfebfffff, name: 'bar' }) as Resource;
    expect(iomem.requestMemRegion({ start: 0xfebf8000, end: 0xfebf8fff, name: 'thief' })).toBe('EBUSY');
    expect(iomem.requestMemRegion({ start: 0xfebff000, end: 0xfec00fff, name: 'across' })).toBe('EBUSY');
    expect(iomem.entries().at(-1)).toEqual({ start: 0xfebf0000, end: 0xfebfffff, name: 'bar', depth: 1 });
    iomem.releaseMemRegion(bar);
    expect(iomem.entries()).toHaveLength(1);
  });
});
