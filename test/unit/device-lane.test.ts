import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { devicePteWord } from '#src/abi/device-pte';
import type { ComputeProgram } from '#src/device/program';
import { BASE, PAGE, Rig, RWA, runLaunch } from './device-rig.js';

describe('addresses', () => {
  /** Some of them differ in their upper halves only, some are neighbours, some are at the ends. */
  const FARAWAY = [
    0,
    2 ** 31 - PAGE,
    2 ** 31,
    2 ** 32,
    2 ** 32 + PAGE,
    2 ** 40,
    2 ** 40 + 2 ** 32,
    BASE,
    BASE + 2 ** 32,
  ];
  const PAGES = [...FARAWAY, BASE + 2 ** 20, BASE + 2 ** 28, 2 ** 47 - PAGE];
  const WIDTHS = [
    { size: 1, load: 'loadU8', store: 'storeU8', get: 'getUint8', set: 'setUint8' },
    { size: 4, load: 'loadI32', store: 'storeI32', get: 'getInt32', set: 'setInt32' },
    { size: 4, load: 'loadU32', store: 'storeU32', get: 'getUint32', set: 'setUint32' },
    { size: 4, load: 'loadF32', store: 'storeF32', get: 'getFloat32', set: 'setFloat32' },
    { size: 8, load: 'loadF64', store: 'storeF64', get: 'getFloat64', set: 'setFloat64' },
  ] as const;
  const access = fc.record({
    page: fc.nat(PAGES.length - 1),
    width: fc.constantFrom(...WIDTHS),
    at: fc.oneof(fc.nat(15), fc.nat(PAGE - 1)),
    /** `null`: a load. */
    value: fc.option(fc.integer({ min: 0, max: 255 })),
  });

  test('each access reaches its own page, wherever that is', () => {
    fc.assert(
      fc.property(fc.array(access, { maxLength: 60 }), (accesses) => {
        const rig = new Rig({ tlbSets: 1 });
        for (const [frame, address] of PAGES.entries()) {
          rig.tables.mapRange(rig.root, address, 1, frame, devicePteWord(0, RWA));
        }
        const expected: number[] = [];
        const found: number[] = [];
        const model = new DataView(new ArrayBuffer(PAGES.length * PAGE));
        for (const { page, width, at, value } of accesses) {
          const offset = page * PAGE + at - (at % width.size);
          if (value === null) expected.push(model[width.get](offset, true));
          else model[width.set](offset, value, true);
        }
        const program: ComputeProgram = (ctx) => {
          for (const { page, width, at, value } of accesses) {
            const address = PAGES[page]! + at - (at % width.size);
            if (value === null) found.push(ctx[width.load](address));
            else ctx[width.store](address, value);
          }
        };
        const { failure } = runLaunch(rig.engine(), program, { lanes: 1 });
        expect(failure).toBeNull();
        expect(found).toEqual(expected);
        expect(
          Buffer.from(rig.bytes).compare(new Uint8Array(model.buffer), 0, model.byteLength, 0, model.byteLength),
        ).toBe(0);
      }),
    );
  });
});
