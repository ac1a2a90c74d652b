import { describe, expect, test } from 'vitest';
import { COPY_QUIET, COPY_ZERO } from '#src/abi/packet';
import { HOST_DOORBELL, QUEUE_HEADER } from '#src/abi/queue';
import { STRUCT_PAGE } from '#src/abi/struct-page';
import { PAGE, Rig } from './device-rig.js';

describe('copy engine', () => {
  const counts = (rig: Rig, page: number): number => rig.memmap[page * 16 + STRUCT_PAGE.word.refcount]!;

  test('copies a run in slices, holds references meanwhile, and publishes its fence after they are dropped', () => {
    const rig = new Rig({ pages: 600 });
    const engine = rig.engine();
    for (let page = 1; page <= 600; page++) rig.memmap[page * 16 + STRUCT_PAGE.word.refcount] = 1;
    for (let i = 0; i < rig.bytes.length; i++) rig.bytes[i] = i * 7 + (i >> 12);
    const sequence = rig.copy({ memories: 0 | (2 << 8), sourceFrame: 10, targetFrame: 5, pages: 300, sourcePage: 11 });
    engine.step();
    expect(counts(rig, 11)).toBe(2);
    expect(counts(rig, 310)).toBe(2);
    expect(rig.header[QUEUE_HEADER.word.copyFence]).toBe(0);
    engine.step();
    expect(counts(rig, 11)).toBe(1);
    expect(rig.header[QUEUE_HEADER.word.copyFence]).toBe(sequence);
    expect(rig.header[QUEUE_HEADER.word.copyError]).toBe(0);
    const target = new Uint8Array(rig.memories.memories[2]!);
    expect(
      Buffer.from(target.slice(5 * PAGE, 305 * PAGE)).equals(Buffer.from(rig.bytes.slice(10 * PAGE, 310 * PAGE))),
    ).toBe(true);
    expect(target[305 * PAGE]).toBe(0);
    expect(engine.stats().copiedPages).toBe(300);
  });

  test('zeroes, and reports a memory without a link or frames outside of a memory', () => {
    const rig = new Rig();
    const engine = rig.engine();
    rig.ram.fill(-1);
    rig.copy({ memories: COPY_ZERO, targetFrame: 2, pages: 2 });
    while (engine.step());
    expect([rig.ram[2047], rig.ram[2048], rig.ram[4095], rig.ram[4096]]).toEqual([-1, 0, 0, -1]);
    for (const packet of [
      { memories: 1 | (2 << 8), pages: 1 },
      { memories: 0 | (2 << 8), sourceFrame: 63, pages: 2 },
    ]) {
      const sequence = rig.copy(packet);
      while (engine.step());
      expect(rig.header[QUEUE_HEADER.word.copyError]).toBe(sequence);
      expect(rig.header[QUEUE_HEADER.word.copyFence]).toBe(sequence);
    }
  });

  test('tells the host of a quiet run only when nothing follows it', () => {
    const rig = new Rig();
    const engine = rig.engine();
    const rings = new Int32Array(rig.memories.hostDoorbell);
    const ringsAfterStep = (): number => {
      expect(engine.step()).toBe(true);
      return rings[HOST_DOORBELL.word.doorbell]!;
    };
    const copy = (flags: number): number => rig.copy({ memories: flags | (2 << 8), pages: 1 });
    const sequences = [copy(COPY_QUIET), copy(COPY_QUIET), copy(0), copy(COPY_QUIET)];
    expect(sequences.map(() => [ringsAfterStep(), rig.header[QUEUE_HEADER.word.copyFence]])).toEqual([
      [0, sequences[0]],
      [0, sequences[1]],
      [1, sequences[2]],
      [2, sequences[3]],
    ]);
  });

  test('a struct page that nobody holds is a broken rule', () => {
    const rig = new Rig();
    rig.copy({ memories: 0 | (2 << 8), pages: 1, sourcePage: 1 });
    expect(() => rig.engine().step()).toThrow(/free under its copy/);
  });
});
