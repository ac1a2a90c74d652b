/** Fault injection: each point where the kernel, a driver or a device asks, and that a machine survives all of them. */
import { describe, expect, test } from 'vitest';
import { PfnlessError } from '#src/base/errors';
import {
  INJECTION_IDS,
  INJECTION_POINTS,
  type InjectionId,
  type InjectionRate,
  SeededInjector,
  usualRates,
} from '#src/base/injection';
import { ALL_CHECKERS } from '#src/check/boot';
import { bootWithState } from '#src/machine/boot';
import type { Machine, VirtRange } from '#src/machine/types';

const PAGE = 4096;
const MIB = 2 ** 20;
/** Nobody asks for these: who runs a machine does them to a device or to memory (src/stress). */
const DONE_BY_USERS: readonly InjectionId[] = ['device-reset', 'device-unplug', 'device-crash', 'memory-failure'];
/** Asked by CPUs that run by themselves: host-cpu.test.ts. */
const OF_CPUS: readonly InjectionId[] = ['shootdown-late'];
const ASKED = INJECTION_IDS.filter((point) => ![...DONE_BY_USERS, ...OF_CPUS].includes(point));

describe('the injector', () => {
  const firings = (injector: SeededInjector, point: InjectionId, times: number): number[] =>
    Array.from({ length: times }, (_, at) => at).filter(() => injector.fires(point));

  test('there are at least 20 points, each with a summary and odds', () => {
    expect(INJECTION_IDS.length).toBeGreaterThanOrEqual(20);
    for (const id of INJECTION_IDS) {
      expect(INJECTION_POINTS[id].summary).not.toBe('');
      expect(INJECTION_POINTS[id].odds).toBeGreaterThan(1);
    }
  });

  test('the same seed fires at the same times, whatever else is asked in between; another seed at others', () => {
    const of = (seed: number) => {
      const injector = new SeededInjector(seed, usualRates(INJECTION_IDS));
      injector.armed = true;
      return injector;
    };
    const [one, two, other] = [of(1), of(1), of(2)];
    firings(two, 'alloc-page', 77);
    const times = firings(one, 'copy-error', 1000);
    expect(times.length).toBeGreaterThan(3);
    expect(firings(two, 'copy-error', 1000)).toEqual(times);
    expect(firings(other, 'copy-error', 1000)).not.toEqual(times);
    expect(one.fired).toEqual({ 'copy-error': times.length });
    expect(one.asked('copy-error')).toBe(1000);
  });

  test('the nth time, and never before it is armed or for a point that is not enabled', () => {
    const injector = new SeededInjector(1, [['alloc-page', { nth: 3 }]]);
    expect(firings(injector, 'alloc-page', 5)).toEqual([]);
    injector.armed = true;
    expect(firings(injector, 'alloc-page', 5)).toEqual([2]);
    expect(firings(injector, 'copy-error', 50)).toEqual([]);
    expect([injector.has('alloc-page'), injector.has('copy-error')]).toEqual([true, false]);
  });
});

const SPEC = {
  executor: 'inline',
  memory: { ram: '32MiB' },
  swap: ['8MiB'],
  hugePages: 'always',
  devices: [
    { name: 'a', memory: '8MiB', chunk: '4MiB' },
    { name: 'b', memory: '4MiB', chunk: '2MiB' },
  ],
} as const;

/** What may come out of a call while everything fails: an errno, a signal. Anything else is thrown on. */
async function tolerate(call: Promise<unknown>): Promise<boolean> {
  try {
    await call;
    return true;
  } catch (error) {
    if (error instanceof PfnlessError && ['ERR_PFNLESS_ERRNO', 'ERR_PFNLESS_FAULT'].includes(error.code)) return false;
    throw error;
  }
}

const wordAt = ({ start }: VirtRange, page: number) => (start + page * PAGE) as VirtRange['start'];

/** Everything that can fail, some rounds of it; the contents of memory are known all the time. */
async function storm(machine: Machine, rounds: number): Promise<void> {
  const process = await machine.process();
  const small = await process.mmap({ length: MIB });
  const huge = await process.mmap({ length: 4 * MIB });
  const ranges = [
    small,
    { start: (Math.ceil(huge.start / (2 * MIB)) * 2 * MIB) as typeof huge.start, length: 2 * MIB },
  ];
  const mirrors = [await process.mirror(0), await process.mirror(1)];
  const held = new Map<number, number>();
  const store = async (at: VirtRange['start'], value: number): Promise<void> => {
    if (await tolerate(process.writeArray('i32', at, Int32Array.of(value)))) held.set(at, value);
  };
  for (let round = 1; round <= rounds; round++) {
    for (const [at, range] of ranges.entries()) {
      for (let page = round; page < range.length / PAGE; page += 29)
        await store(wordAt(range, page), round * 1000 + page);
      const to = mirrors[(round + at) % 2]!;
      await tolerate(to.migrate(range, 'device'));
      const args = { target: wordAt(range, 3), count: 8, stride: PAGE, by: 1 };
      const before = await Promise.all(
        Array.from({ length: 8 }, (_, i) => tolerateRead(process.readArray('i32', wordAt(range, 3 + i), 1))),
      );
      const [launched] = await Promise.all([
        tolerate(to.launch('increment', { lanes: 8, args })),
        tolerate(mirrors[0]!.migrate(range, 'device')),
        tolerate(process.madvise({ start: range.start, length: 64 * PAGE }, 'PAGEOUT')),
      ]);
      for (const [i, value] of before.entries()) {
        // A launch that failed half-way has added to some; then nobody knows.
        if (launched && value !== null) held.set(wordAt(range, 3 + i), value + 1);
        else held.delete(wordAt(range, 3 + i));
      }
      await tolerate(to.exclusive({ start: wordAt(range, 12), length: 2 * PAGE }));
      await tolerate(mirrors[1]!.migrate({ start: range.start, length: 32 * PAGE }, 'system'));
      // What has come home is mapped where it is by the driver's own read.
      await tolerate(to.readPages({ start: wordAt(range, 16), length: 8 * PAGE }));
      await tolerate(to.releaseChunks());
    }
    await tolerate(process.fork().then((child) => child.exit()));
  }
  for (const [at, value] of held) {
    const found = await tolerateRead(process.readArray('i32', at as VirtRange['start'], 1));
    if (found !== null) expect({ at, found }).toEqual({ at, found: value });
  }
  expect(held.size).toBeGreaterThan(10);
  await process.exit();
}

async function tolerateRead(read: Promise<Int32Array>): Promise<number | null> {
  let value: number | null = null;
  await tolerate(
    read.then((words) => {
      value = words[0]!;
    }),
  );
  return value;
}

async function stormOf(
  seed: number,
  addressing: 'legacy' | 'offset',
  points: readonly InjectionId[],
  rate?: InjectionRate,
): Promise<SeededInjector> {
  const rates = rate === undefined ? usualRates(points) : points.map((point) => [point, rate] as const);
  const injector = new SeededInjector(seed, rates);
  const { machine } = await bootWithState({ ...SPEC, seed, addressing }, ALL_CHECKERS, { inject: injector });
  injector.armed = true;
  const before = (await machine.stats()).freeRamPages;
  await storm(machine, 3);
  injector.armed = false;
  expect(await machine.check()).toEqual([]);
  expect((await machine.stats()).freeRamPages).toBe(before);
  await machine.dispose();
  return injector;
}

describe('a machine survives', () => {
  test.each(ASKED)('%s', async (point) => {
    // Huge pages are few.
    const rate = point.endsWith('-block') ? { nth: 1 } : { oneIn: 3 };
    const injector = await stormOf(1, 'offset', [point], rate);
    expect(injector.fired[point]).toBeGreaterThan(0);
  });

  test.each([
    ['legacy', 1],
    ['legacy', 2],
    ['offset', 3],
    ['offset', 4],
  ] as const)('all of them at their usual odds (%s, seed %i)', async (addressing, seed) => {
    const { fired } = await stormOf(seed, addressing, ASKED);
    expect(Object.keys(fired).length).toBeGreaterThan(10);
  });

  test('and two runs of one seed are the same', async () => {
    const [one, two] = [await stormOf(5, 'offset', ASKED), await stormOf(5, 'offset', ASKED)];
    expect(two.fired).toEqual(one.fired);
    for (const point of ASKED) expect(two.asked(point)).toBe(one.asked(point));
  });
});
