/** The range tree with more ranges than few nodes hold: nodes split, join, come and go on several levels. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createRandom } from '#src/base/random';
import { type Range, RangeTree } from '#src/base/range-tree';

const SLOTS = 1500;
const SLOT = 10;
const END = SLOTS * SLOT;

/** At most one range in each slot: all ranges of a slot have its middle. */
class Slots {
  readonly #slots: (Range<number> | undefined)[] = new Array(SLOTS).fill(undefined);

  get(slot: number): Range<number> | undefined {
    return this.#slots[slot];
  }

  set(slot: number, range: Range<number> | undefined): void {
    this.#slots[slot] = range;
  }

  ranges(): Range<number>[] {
    return this.#slots.filter((range) => range !== undefined);
  }

  /** What is free inside [min, max), ascending. */
  holes(min: number, max: number): { from: number; to: number }[] {
    const starts = [...this.ranges().map(({ start }) => start), END];
    const ends = [0, ...this.ranges().map(({ end }) => end)];
    return ends
      .map((end, i) => ({ from: Math.max(end, min), to: Math.min(starts[i], max) }))
      .filter(({ from, to }) => from < to);
  }
}

const phase = fc.record({
  /** Of a hundred slots that are visited, in how many a range is put in; from the others it is taken. */
  insertions: fc.constantFrom(0, 3, 10, 50, 90, 100),
  order: fc.constantFrom('ascending' as const, 'descending' as const, 'random' as const),
});

describe('RangeTree of several levels', () => {
  it('agrees with a list of ranges while it fills and empties', () => {
    fc.assert(
      fc.property(fc.array(phase, { minLength: 2, maxLength: 6 }), fc.nat(), (phases, seed) => {
        const random = createRandom(seed);
        const tree = new RangeTree<number>();
        const model = new Slots();
        const visit = (slot: number, inserts: boolean, value: number): void => {
          const old = model.get(slot);
          if (inserts) {
            const start = slot * SLOT + random.below(5);
            const end = (slot + 1) * SLOT - random.below(5);
            expect(tree.insert(start, end, value)).toBe(old === undefined);
            if (old === undefined) model.set(slot, { start, end, value });
          } else {
            expect(tree.remove(old?.start ?? slot * SLOT)).toBe(old?.value);
            model.set(slot, undefined);
          }
        };
        const probe = (at: number, size: number, align: number): void => {
          const ranges = model.ranges();
          expect(tree.find(at)).toBe(ranges.find(({ start, end }) => start <= at && at < end)?.value);
          expect(tree.firstEndingAfter(at)).toEqual(ranges.find(({ end }) => end > at));
          expect(tree.previous(at)).toEqual(ranges.findLast(({ start }) => start < at));
          const lowest = model
            .holes(at, END)
            .map(({ from, to }) => ({ start: Math.ceil(from / align) * align, to }))
            .find(({ start, to }) => start + size <= to);
          expect(tree.lowestGap(size, at, END, align)).toBe(lowest?.start);
          const highest = model
            .holes(0, at)
            .map(({ from, to }) => ({ from, start: Math.floor((to - size) / align) * align }))
            .findLast(({ from, start }) => from <= start);
          expect(tree.highestGap(size, 0, at, align)).toBe(highest?.start);
        };
        for (const { insertions, order } of phases) {
          for (let i = 0; i < SLOTS; i++) {
            const slot = { ascending: i, descending: SLOTS - 1 - i, random: random.below(SLOTS) }[order];
            visit(slot, random.below(100) < insertions, i);
            // What was just changed is where a node may have been left behind.
            if (i % 30 === 0) probe(slot * SLOT, 1 + random.below(30), 1);
          }
          expect([...tree]).toEqual(model.ranges());
          expect(tree.size).toBe(model.ranges().length);
          for (let i = 0; i < 10; i++) probe(random.below(END), 1 + random.below(30), 1 + random.below(16));
        }
      }),
      { numRuns: 15 },
    );
  });

  it('holds what was put in ascending, and is empty when all was taken out descending', () => {
    const tree = new RangeTree<number>();
    const count = 20_000;
    for (let i = 0; i < count; i++) tree.insert(2 * i, 2 * i + 1, i);
    for (let i = 0; i < count; i++)
      if (tree.find(2 * i) !== i || tree.find(2 * i + 1) !== undefined) expect.fail(`${i}`);
    for (let i = count - 1; i >= 0; i--) expect(tree.remove(2 * i)).toBe(i);
    expect([...tree]).toEqual([]);
    expect(tree.lowestGap(2 * count, 0, 2 * count)).toBe(0);
  });
});
