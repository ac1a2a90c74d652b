import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RangeTree } from '#src/base/range-tree';

const LIMIT = 400;

interface Plain {
  start: number;
  end: number;
  value: number;
}

/** The same contract, by looking at everything. */
class Naive {
  ranges: Plain[] = [];

  insert(start: number, end: number, value: number): boolean {
    if (this.overlaps(start, end)) return false;
    this.ranges.push({ start, end, value });
    this.ranges.sort((a, b) => a.start - b.start);
    return true;
  }

  remove(start: number): number | undefined {
    const at = this.ranges.findIndex((range) => range.start === start);
    return at < 0 ? undefined : this.ranges.splice(at, 1)[0].value;
  }

  overlaps(start: number, end: number): boolean {
    return this.ranges.some((range) => range.start < end && start < range.end);
  }

  gaps(size: number, min: number, max: number, align: number): number[] {
    const starts: number[] = [];
    for (let start = min; start + size <= max; start++) {
      if (start % align === 0 && !this.overlaps(start, start + size)) starts.push(start);
    }
    return starts;
  }
}

const point = fc.integer({ min: 0, max: LIMIT });
const size = fc.integer({ min: 1, max: 40 });
const align = fc.constantFrom(1, 1, 2, 3, 8, 16, 64);
const operation = fc.oneof(
  fc.record({ op: fc.constant('insert' as const), start: point, size }),
  fc.record({ op: fc.constant('remove' as const), pick: fc.nat() }),
  fc.record({
    op: fc.constantFrom('lowest' as const, 'highest' as const),
    size,
    align,
    min: point,
    max: point,
  }),
);

const plain = ({ start, end, value }: Plain): Plain => ({ start, end, value });
const maybe = (range: Plain | undefined): Plain | undefined => range && plain(range);

function compare(tree: RangeTree<number>, model: Naive): void {
  expect(tree.size).toBe(model.ranges.length);
  expect([...tree].map(plain)).toEqual(model.ranges);
}

describe('RangeTree', () => {
  it('agrees with a list of ranges under any mix of operations', () => {
    fc.assert(
      fc.property(
        fc.array(operation, { maxLength: 60 }),
        fc.array(point, { minLength: 8, maxLength: 8 }),
        (ops, probes) => {
          const tree = new RangeTree<number>();
          const model = new Naive();
          ops.forEach((operation, value) => {
            if (operation.op === 'insert') {
              const { start, size } = operation;
              expect(tree.insert(start, start + size, value)).toBe(model.insert(start, start + size, value));
            } else if (operation.op === 'remove') {
              const start = model.ranges[operation.pick % (model.ranges.length + 1)]?.start ?? operation.pick;
              expect(tree.remove(start)).toBe(model.remove(start));
            } else {
              const { op, size, align, min, max } = operation;
              const starts = model.gaps(size, min, max, align);
              const expected = op === 'lowest' ? starts.at(0) : starts.at(-1);
              const got =
                op === 'lowest' ? tree.lowestGap(size, min, max, align) : tree.highestGap(size, min, max, align);
              expect(got).toBe(expected);
              if (op === 'lowest') expect(tree.allocateLowest(size, min, max, align, value)).toBe(expected);
              else if (expected !== undefined) tree.insert(expected, expected + size, value);
              if (expected !== undefined) model.insert(expected, expected + size, value);
            }
          });
          compare(tree, model);
          for (const at of probes) {
            const { ranges } = model;
            expect(tree.find(at)).toBe(ranges.find((range) => range.start <= at && at < range.end)?.value);
            expect(maybe(tree.firstEndingAfter(at))).toEqual(ranges.find((range) => range.end > at));
            expect(maybe(tree.previous(at))).toEqual(ranges.findLast((range) => range.start < at));
            expect([...tree.from(at)].map(plain)).toEqual(ranges.filter((range) => range.end > at));
            expect(tree.overlapping(at, at + 40).map(plain)).toEqual(
              ranges.filter((range) => range.end > at && range.start < at + 40),
            );
            expect(tree.overlaps(at, at + 20)).toBe(model.overlaps(at, at + 20));
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('is exact up to 2^53', () => {
    const tree = new RangeTree<string>();
    const top = 2 ** 53;
    expect(tree.highestGap(4096, 0, top, 4096)).toBe(top - 4096);
    tree.insert(top - 4096, top, 'last');
    expect(tree.highestGap(1, 0, top)).toBe(top - 4097);
    tree.insert(top - 4097, top - 4096, 'odd');
    expect(tree.lowestGap(4096, top - 3 * 4096 + 1, top, 4096)).toBeUndefined();
    expect(tree.lowestGap(4095, top - 8192, top)).toBe(top - 8192);
    expect(tree.find(top - 1)).toBe('last');
  });

  it('skips holes that are large enough but for their alignment', () => {
    const tree = new RangeTree<number>();
    for (let at = 0; at < 100; at++) tree.insert(at * 64 + 40, at * 64 + 72, at);
    expect(tree.lowestGap(32, 64, 6400, 64)).toBeUndefined();
    expect(tree.lowestGap(32, 64, 6400, 8)).toBe(72);
    expect(tree.highestGap(32, 64, 6400, 8)).toBe(99 * 64 + 8);
  });

  it('can be iterated while ranges come and go', () => {
    const tree = new RangeTree<number>();
    for (let at = 0; at < 10; at++) tree.insert(at * 10, at * 10 + 5, at);
    const seen: number[] = [];
    for (const { start, value } of tree) {
      seen.push(value);
      tree.remove(start);
      if (value === 4) tree.remove(50);
    }
    expect(seen).toEqual([0, 1, 2, 3, 4, 6, 7, 8, 9]);
    expect(tree.size).toBe(0);
  });

  it('refuses overlaps and empty ranges', () => {
    const tree = new RangeTree<number>();
    expect(tree.insert(10, 20, 1)).toBe(true);
    expect(tree.insert(19, 21, 2)).toBe(false);
    expect(tree.insert(5, 30, 2)).toBe(false);
    expect(tree.insert(20, 21, 2)).toBe(true);
    expect(() => tree.insert(7, 7, 3)).toThrow('not a range');
  });
});
