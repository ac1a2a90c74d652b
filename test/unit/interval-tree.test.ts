import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Interval, IntervalTree } from '#src/base/interval-tree';

const bound = fc.integer({ min: 0, max: 100 });
const size = fc.integer({ min: 1, max: 60 });
const operation = fc.oneof(
  { weight: 2, arbitrary: fc.record({ op: fc.constant('insert' as const), start: bound, size }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('remove' as const), pick: fc.nat() }) },
);

const valuesOf = (found: Iterable<Interval<number>>): number[] => [...found].map(({ value }) => value);

describe('IntervalTree', () => {
  it('agrees with a list of ranges, by start and then by age', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 80 }), bound, size, (ops, start, length) => {
        const tree = new IntervalTree<number>();
        const model: Interval<number>[] = [];
        ops.forEach((operation, value) => {
          if (operation.op === 'insert') {
            model.push(tree.insert(operation.start, operation.start + operation.size, value));
          } else if (model.length > 0) {
            tree.remove(model.splice(operation.pick % model.length, 1)[0]);
          }
        });
        expect(tree.size).toBe(model.length);
        const end = start + length;
        const expected = model.filter((range) => range.start < end && start < range.end);
        expected.sort((a, b) => a.start - b.start || a.value - b.value);
        expect(valuesOf(tree.overlapping(start, end))).toEqual(valuesOf(expected));
        expect(tree.first(start, end)?.value).toBe(expected[0]?.value);
      }),
      { numRuns: 500 },
    );
  });

  it('goes on behind a range that was removed meanwhile', () => {
    const tree = new IntervalTree<number>();
    const handles = [0, 1, 2, 3, 4, 5].map((value) => tree.insert(value % 2, 10, value));
    const seen: number[] = [];
    for (const interval of tree.overlapping(0, 10)) {
      seen.push(interval.value);
      tree.remove(interval);
      if (interval.value === 2) tree.remove(handles[4]);
      if (interval.value === 1) tree.insert(1, 5, 6);
    }
    expect(seen).toEqual([0, 2, 1, 3, 5, 6]);
  });

  it('refuses empty ranges and a second removal', () => {
    const tree = new IntervalTree<string>();
    const handle = tree.insert(1, 2, 'once');
    tree.remove(handle);
    expect(() => tree.remove(handle)).toThrow('removed twice');
    expect(() => tree.insert(3, 3, 'empty')).toThrow('not a range');
  });
});
