/**
 * Workloads without a machine: references against cases worked out by hand, and every program against its reference on a
 * fake machine, for several numbers of devices and sizes that divide by nothing.
 */
import { describe, expect, test } from 'vitest';
import { InvariantViolation, PfnlessError } from '#src/base/errors';
import { createRandom } from '#src/base/random';
import { builtinPrograms, builtins } from '#src/device/programs/index';
import { compare, compareAll } from '#src/workload/arrays';
import { bfsReference } from '#src/workload/library/bfs';
import { histogramReference } from '#src/workload/library/histogram';
import { workloads } from '#src/workload/library/index';
import { matmulReference } from '#src/workload/library/matmul';
import { migrateStormReference } from '#src/workload/library/migrate-storm';
import { oversubscriptionReference } from '#src/workload/library/oversubscription';
import { pingPongReference } from '#src/workload/library/ping-pong';
import { pointerChaseReference, randomCycle } from '#src/workload/library/pointer-chase';
import { producerConsumerReference } from '#src/workload/library/producer-consumer';
import { randomUpdateReference } from '#src/workload/library/random-update';
import { reductionReference } from '#src/workload/library/reduction';
import { saxpyReference } from '#src/workload/library/saxpy';
import { stencilReference } from '#src/workload/library/stencil';
import { vectorAddReference } from '#src/workload/library/vector-add';
import { runWorkload } from '#src/workload/run';
import { together } from '#src/workload/sharing';
import { createFakeMachine, FakeMemory, launch } from './fake-machine.js';

describe('references, by hand', () => {
  test('vector-add and saxpy', () => {
    expect([...vectorAddReference(Float32Array.of(1, -2), Float32Array.of(3, 5))]).toEqual([4, 3]);
    expect([...saxpyReference(3, Float32Array.of(1, -2), Float32Array.of(10, 20))]).toEqual([13, 14]);
  });

  test('matmul: [[1,2],[3,4]] * [[5,6],[7,8]]', () => {
    const product = matmulReference(Float32Array.of(1, 2, 3, 4), Float32Array.of(5, 6, 7, 8), 2);
    expect([...product]).toEqual([19, 22, 43, 50]);
  });

  test('histogram and reduction', () => {
    const bins = histogramReference(Uint8Array.of(7, 0, 7, 255, 7));
    expect([bins[0], bins[7], bins[255], bins[8]]).toEqual([1, 3, 1, 0]);
    expect(reductionReference(Int32Array.of(5, -7, 1))).toBe(-1);
    expect(reductionReference(Int32Array.of(0x7fffffff, 1))).toBe(-0x80000000);
  });

  test('stencil: only the middle of a 3 x 3 grid changes', () => {
    const grid = Float64Array.of(9, 1, 9, 2, 10, 3, 9, 4, 9);
    expect([...stencilReference(grid, 3)]).toEqual([9, 1, 9, 2, 4, 3, 9, 4, 9]);
  });

  test('bfs: a diamond with a tail, and a vertex that nobody reaches', () => {
    // 0 -> 1, 2; 1 -> 3; 2 -> 3; 3 -> 4; 4 -> 0; 5 -> 0
    const graph = { offsets: Uint32Array.of(0, 2, 3, 4, 5, 6, 7), edges: Uint32Array.of(1, 2, 3, 3, 4, 0, 0) };
    expect([...bfsReference(graph)]).toEqual([0, 1, 1, 2, 3, 0x7fffffff]);
  });

  test('pointer-chase: two steps on the cycle 0 -> 2 -> 1 -> 0', () => {
    const { ends, sums } = pointerChaseReference(Uint32Array.of(2, 0, 1), Uint32Array.of(0, 1), 2);
    expect([...ends]).toEqual([1, 2]);
    expect([...sums]).toEqual([3, 2]);
  });

  test('pointer-chase: the random permutation is one cycle', () => {
    const links = randomCycle(createRandom(7), 100);
    let node = 0;
    let length = 0;
    do {
      node = links[node]!;
      length++;
    } while (node !== 0);
    expect(length).toBe(100);
  });

  test('random-update: the first state after 0 is 1013904223', () => {
    const table = new Int32Array(1000);
    randomUpdateReference(table, 0, 1);
    expect(table[Math.floor(1013904223 / 256) % 1000]).toBe(1013904223 % 256);
    expect(table.filter((value) => value !== 0)).toHaveLength(1);
  });

  test('counters of ping-pong, producer-consumer, oversubscription and migrate-storm', () => {
    expect([...pingPongReference(Int32Array.of(10), 2)]).toEqual([10 + 3 + 5 + 3 + 5 + 3]);
    expect([...producerConsumerReference(Int32Array.of(10), 3)]).toEqual([10 + 1 + 2 + 3]);
    const words = new Int32Array(66);
    oversubscriptionReference(words, 5, 0, 3);
    expect([words[0], words[63], words[64]]).toEqual([
      5 + 3,
      Math.imul(63, 0x9e3779b1) ^ 5,
      (Math.imul(64, 0x9e3779b1) ^ 5) + 3,
    ]);
    oversubscriptionReference(words, 0, 1024, 0);
    expect(words[1]).toBe(Math.imul(1025, 0x9e3779b1));
    const storm = migrateStormReference(2, 3);
    expect([storm[0], storm[1], storm[2], storm[64], storm[1024], storm[1025]]).toEqual([12, 4, 0, 12, 12, 4]);
  });
});

describe('comparison', () => {
  test('names the first mismatch with its index', () => {
    expect(compare('out', [1, 2, 3], [1, 5, 6], 10)).toEqual({
      verified: false,
      checked: 1,
      detail: 'out[11]: expected 2, got 5',
    });
  });

  test('a missing value is a mismatch', () => {
    expect(compare('out', [1, 2], [1]).verified).toBe(false);
  });

  test('of several, all must hold', () => {
    const good = compare('a', [1, 2], [1, 2]);
    const bad = compare('b', [1], [2]);
    expect(compareAll([good, good])).toEqual({ verified: true, checked: 4 });
    expect(compareAll([good, bad])).toMatchObject({ verified: false, detail: 'b[0]: expected 1, got 2' });
  });
});

describe('programs that no workload runs', () => {
  const base = 0x10000;

  test('fill counts up, copy copies, touch changes nothing', () => {
    const memory = new FakeMemory(base + 8192);
    launch(memory, 0, 'fill', { lanes: 3, args: { target: base, count: 10, value: 5, step: 7 } });
    launch(memory, 0, 'copy', { lanes: 4, args: { source: base, target: base + 4096, count: 10 } });
    launch(memory, 0, 'touch', { lanes: 2, args: { target: base, count: 2, stride: 4096 } });
    const words = new Int32Array(memory.view.buffer, base + 4096, 11);
    expect([...words]).toEqual([5, 12, 19, 26, 33, 40, 47, 54, 61, 68, 0]);
  });

  test('an argument that is missing is named', () => {
    const run = () => launch(new FakeMemory(base), 0, 'touch', { lanes: 1, args: { target: base, count: 1 } });
    expect(run).toThrow("argument 'stride' is missing");
  });

  test('the device gets every program that is listed', () => {
    expect(Object.keys(builtinPrograms)).toEqual(Object.keys(builtins));
  });
});

/** Sizes that fit nothing evenly; small, because the fake is slow. */
const ODD_SIZES: Readonly<Record<string, number>> = {
  matmul: 37,
  stencil: 37,
  oversubscription: 2,
  'ping-pong': 5,
  'producer-consumer': 3,
  'migrate-storm': 5,
  'random-update': 3,
};
const now = () => 0;
const fake = (devices: number, ram = 1 << 22) => createFakeMachine({ devices, deviceMemory: 8 * 4096, ram });

describe.each(workloads)('$name', (workload) => {
  const size = ODD_SIZES[workload.name] ?? 10_007;

  test.each([1, 2, 3, 8])('is right on %i devices', async (devices) => {
    const result = await runWorkload(fake(devices), workload, { devices, size, seed: 42, now });
    expect(result).toMatchObject({ ok: true, verified: true, violations: [] });
    expect(result.error).toBeUndefined();
    expect(result.checkedValues).toBeGreaterThan(0);
  });

  test('is right at its smallest', async () => {
    const options = { devices: 2, size: workload.sizes.min, seed: 1, now };
    expect(await runWorkload(fake(2), workload, options)).toMatchObject({ ok: true });
  });

  test.each([
    ['no size', { size: 0 }, 'the size must be a whole number'],
    ['a size that is not finite', { size: Number.POSITIVE_INFINITY }, 'the size must be a whole number'],
    ['a size beyond the largest', { size: workload.sizes.max + 1 }, 'the size must be a whole number'],
    ['no devices', { devices: 0 }, 'the number of devices must be a whole number from 1 to 8, not 0'],
    ['more devices than there are', { devices: 3 }, '3 devices are asked for, and the machine has 2'],
  ])('refuses %s', async (_, wrong, message) => {
    const run = runWorkload(fake(2), workload, { devices: 2, size, seed: 1, now, ...wrong });
    await expect(run).rejects.toMatchObject({
      code: 'ERR_PFNLESS_ARGUMENT',
      message: expect.stringContaining(`${workload.name}: ${message}`),
    });
  });

  test('refuses what RAM cannot hold', async () => {
    const run = runWorkload(fake(2, 65 * 4096), workload, { devices: 2, size, seed: 1, now });
    await expect(run).rejects.toThrow(/of RAM, of which 0\.3 MiB are free/);
  });
});

describe('a result that is not right', () => {
  const workload = workloads[0]!;
  const verdict = { verified: true, checked: 1, expectFaults: 0, expectMigrations: 0 };
  const resultOf = (changed: object) =>
    runWorkload(
      fake(1),
      { ...workload, run: async () => ({ ...verdict, ...changed }) },
      { devices: 1, size: 1, seed: 1, now },
    );

  test('a mismatch is reported with its place', async () => {
    const result = await resultOf({ verified: false, detail: 'out[3]: expected 1, got 2' });
    expect(result).toMatchObject({ ok: false, verified: false, error: 'out[3]: expected 1, got 2' });
  });

  test('a failure that a user can act on is a result, a broken invariant is not', async () => {
    const failing = (error: Error) =>
      runWorkload(fake(1), { ...workload, run: () => Promise.reject(error) }, { devices: 1, size: 1, seed: 1, now });
    const lost = await failing(new PfnlessError('ERR_PFNLESS_DEVICE_LOST', 'device gpu0 was lost'));
    expect(lost).toMatchObject({ ok: false, verified: false, error: 'device gpu0 was lost' });
    await expect(failing(new InvariantViolation('page 3 has two owners'))).rejects.toThrow('page 3 has two owners');
  });

  test('work that goes on at the same time is waited for when one part fails', async () => {
    let finished = false;
    const slow = new Promise((resolve) => setTimeout(resolve, 5)).then(() => {
      finished = true;
    });
    const lost = Promise.reject(new PfnlessError('ERR_PFNLESS_DEVICE_LOST', 'device gpu0 was lost'));
    await expect(together([lost, slow])).rejects.toThrow('device gpu0 was lost');
    expect(finished).toBe(true);
  });

  test('so is a right result without the faults or the migrations that it implies', async () => {
    expect(await resultOf({ expectFaults: 1 })).toMatchObject({ ok: false, verified: true });
    expect(await resultOf({ expectMigrations: 9 })).toMatchObject({
      ok: false,
      error: 'expected at least 9 pages to move to devices, 0 did',
    });
  });
});
