/** Frames of a device: single ones and blocks, from memory that need not end with a block. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { BLOCK_PAGES, FrameAllocator } from '#src/drivers/frame-allocator';

it('a last block that is not whole is for single frames, also after a whole one was asked for', () => {
  const frames = new FrameAllocator(BLOCK_PAGES + 3);
  frames.add(0, BLOCK_PAGES + 3);
  expect(frames.takeBlock()).toBe(0);
  expect(frames.takeBlock()).toBe(-1);
  expect([frames.take(), frames.take(), frames.take(), frames.take()]).toEqual([
    BLOCK_PAGES,
    BLOCK_PAGES + 1,
    BLOCK_PAGES + 2,
    -1,
  ]);
});

it('a block of which every frame has come back is whole again, the one that frames are taken from too', () => {
  const frames = new FrameAllocator(2 * BLOCK_PAGES);
  frames.add(0, 2 * BLOCK_PAGES);
  const single = [frames.take(), frames.take()];
  expect(frames.takeBlock()).toBe(BLOCK_PAGES);
  expect(frames.takeBlock()).toBe(-1);
  for (const frame of single) frames.give(frame, 1);
  expect(frames.takeBlock()).toBe(0);
});

it('no frame is lost or handed out twice', () => {
  const step = fc.oneof(fc.constant('take' as const), fc.constant('block' as const), fc.nat());
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 3 * BLOCK_PAGES }), fc.array(step, { maxLength: 2500 }), (total, steps) => {
      const frames = new FrameAllocator(total);
      frames.add(0, total);
      const taken = new Map<number, number>();
      let left = total;
      for (const what of steps) {
        if (typeof what === 'number') {
          const first = [...taken.keys()][what % Math.max(1, taken.size)];
          if (first === undefined) continue;
          frames.give(first, taken.get(first)!);
          left += taken.get(first)!;
          taken.delete(first);
          continue;
        }
        const first = what === 'take' ? frames.take() : frames.takeBlock();
        // Single frames are to be had as long as there are any; blocks where nothing of them is used.
        if (what === 'take') expect(first >= 0).toBe(left > 0);
        if (first < 0) continue;
        const pages = what === 'take' ? 1 : BLOCK_PAGES;
        for (const [other, count] of taken) expect(first + pages <= other || other + count <= first).toBe(true);
        taken.set(first, pages);
        left -= pages;
      }
      for (const [first, pages] of taken) frames.give(first, pages);
      const blocks = Math.floor(total / BLOCK_PAGES);
      const starts = Array.from({ length: blocks }, () => frames.takeBlock());
      expect(starts.sort((a, b) => a - b)).toEqual(starts.map((_, block) => block * BLOCK_PAGES));
      expect(frames.takeBlock()).toBe(-1);
    }),
    { numRuns: 100 },
  );
});

it('a block is found at once, however often frames of the open one have come and gone', () => {
  const frames = new FrameAllocator(64 * BLOCK_PAGES);
  frames.add(0, 64 * BLOCK_PAGES);
  const cycles = (count: number): number => {
    for (let i = 0; i < count; i++) frames.give(frames.take(), 1);
    const started = performance.now();
    for (let i = 0; i < 1000; i++) frames.give(frames.takeBlock(), BLOCK_PAGES);
    return performance.now() - started;
  };
  cycles(1000);
  // It took seconds when each time that the block was whole left something behind.
  expect(cycles(300_000)).toBeLessThan(200);
});
