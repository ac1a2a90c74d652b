/** The benchmarks measure what they say, and say when something became slower. */

import { describe, expect, test } from 'vitest';
import { compareRuns, type EarlierRun, parseEarlierRun } from '#src/bench/compare';
import { runBenchmarks, runGrowth } from '#src/bench/index';
import { type BenchResult, measure } from '#src/bench/measure';
import { benchmarkPage } from '#src/bench/page';

const ONCE = { warmUpMs: 0, samples: 3 };

describe('measuring', () => {
  test('ratios are of rounds, goals are judged, and each machine is verified and let go of', async () => {
    const calls: string[] = [];
    const { results, costs } = await measure(
      {
        name: 'fake',
        unit: 'ns a thing',
        base: { name: 'base', start: () => ({ sample: () => 10, dispose: async () => void calls.push('base') }) },
        addressed: true,
        subjects: [
          { name: 'good', goal: { must: 3, aim: 1 }, kernelInstructions: 300 },
          { name: 'bad', goal: { must: 3, aim: 1 } },
        ],
        prepare: async (addressing) => ({
          round: async () => (addressing === 'offset' ? [20, 40] : [10, 80]),
          verify: async () => void calls.push(`verify ${addressing}`),
          dispose: async () => void calls.push(addressing),
        }),
      },
      ['offset', 'legacy'],
      ONCE,
    );
    expect(results.map(({ name, addressing, ratio, reached }) => [name, addressing, ratio, reached])).toEqual([
      ['good', 'offset', 2, 'must'],
      ['bad', 'offset', 4, 'missed'],
      ['good', 'legacy', 1, 'aim'],
      ['bad', 'legacy', 8, 'missed'],
    ]);
    expect(results[0]!.linuxNs).toBe(100);
    expect(costs.map(({ name, offsetByLegacy }) => [name, offsetByLegacy])).toEqual([
      ['good', 2],
      ['bad', 0.5],
    ]);
    expect(calls).toEqual(['verify offset', 'verify legacy', 'base', 'offset', 'legacy']);
  });

  test('a rate has to be high', async () => {
    const rated = (rate: number) =>
      measure(
        {
          name: 'fake',
          unit: 'things/s',
          base: null,
          addressed: false,
          subjects: [{ name: 'rate', goal: { must: 10, aim: 20 } }],
          prepare: async () => ({ round: async () => [rate], dispose: async () => {} }),
        },
        ['offset', 'legacy'],
        ONCE,
      );
    for (const [rate, reached] of [
      [9, 'missed'],
      [10, 'must'],
      [20, 'aim'],
    ] as const) {
      const { results } = await rated(rate);
      expect(results.map((each) => [each.addressing, each.value, each.reached])).toEqual([['offset', rate, reached]]);
    }
  });

  test.each([
    ['TLB', ['device load, TLB hit', 'device load, TLB miss']],
    ['fork', ['fork', 'munmap', 'fork', 'munmap']],
    ['CPU fault', ['CPU fault-back', 'CPU fault-back']],
    ['boot', ['boot and dispose', 'boot and dispose']],
  ])('the benchmarks of "%s" do their work', async (filter, names) => {
    const { results } = await runBenchmarks({ filter, effort: { warmUpMs: 0, samples: 1 } });
    expect(results.map(({ name }) => name)).toEqual(names);
    for (const { value, ratio } of results) {
      expect(value).toBeGreaterThan(0);
      expect(ratio).toBeGreaterThan(0);
    }
  });

  test('a filter that leaves nothing is refused', async () => {
    await expect(runBenchmarks({ filter: 'nonsense' })).rejects.toMatchObject({ code: 'ERR_PFNLESS_ARGUMENT' });
  });
});

describe('growth', () => {
  test('a filter that leaves nothing is refused', async () => {
    await expect(runGrowth({ filter: 'nonsense' })).rejects.toMatchObject({ code: 'ERR_PFNLESS_ARGUMENT' });
  });

  // Limits of the command are for a quiet computer and the whole axis; what is quadratic shows on a short one, too.
  test.each([
    ['mappings', 10_000],
    ['pagemaps', 100],
    ['processes', 64],
  ])('%s cost what they cost, however many there are', async (filter, sizeMax) => {
    const [result] = await runGrowth({ filter, sizeMax, samples: 3, warmUpMs: 0 });
    expect(result!.points.map(({ size }) => size)).toContain(sizeMax);
    expect(result!.exponent).toBeLessThan(0.6);
  });
});

const outcome = { name: 'a', addressing: 'offset' as const, ratio: 2, ratioMad: 0.01, median: 100, mad: 1 };
const earlier = (...results: EarlierRun['results']): EarlierRun => ({ schema: 'pfnless/bench@1', results });
const now = (changes: Partial<BenchResult>): BenchResult => ({
  ...{ ...outcome, value: 0, unit: 'ns', ratioTo: 'base', samples: 15 },
  ...{ must: null, aim: null, reached: null, linuxNs: null, ...changes },
});

describe('comparing', () => {
  test('slower by more than the noise is a regression', () => {
    const verdict = (changes: Partial<BenchResult>): boolean =>
      compareRuns(earlier(outcome), [now(changes)])[0]!.regressed;
    expect(verdict({ ratio: 2.3 })).toBe(true);
    expect(verdict({ ratio: 2.04 })).toBe(false);
    expect(verdict({ ratio: 1.5 })).toBe(false);
    expect(verdict({ ratio: 2.3, ratioMad: 0.2 })).toBe(false);
  });

  test('rates are compared the other way round', () => {
    const rate = { ...outcome, ratio: null, ratioMad: null };
    const verdict = (median: number): boolean =>
      compareRuns(earlier(rate), [now({ ratio: null, ratioMad: null, median })])[0]!.regressed;
    expect(verdict(80)).toBe(true);
    expect(verdict(120)).toBe(false);
  });

  test('what only one run has is not compared', () => {
    expect(compareRuns(earlier({ ...outcome, name: 'b' }), [now({})])).toEqual([]);
    expect(compareRuns(earlier({ ...outcome, addressing: 'legacy' }), [now({})])).toEqual([]);
  });

  test.each([
    '',
    'null',
    '{}',
    '{"schema":"pfnless/run@1","results":[]}',
    '{"schema":"pfnless/bench@1","results":[{}]}',
  ])('refused as an earlier run: %s', (text) => {
    expect(() => parseEarlierRun(text, 'old.json')).toThrow(/old\.json is not what `pfnless bench --json` prints/);
  });
});

test('the page has every result, the cost of offsets, and growth', () => {
  const host = { processor: 'P', cores: 2, memory: 2 ** 34, system: 'linux 7', node: '20', commit: 'abc', load: 0.5 };
  const measured = {
    results: [now({ name: 'moved', must: 3, aim: 2, reached: 'missed', linuxNs: 1000 })],
    costs: [{ name: 'moved', offsetByLegacy: 1.02, mad: 0.01, samples: 15 }],
  };
  const points = [
    { size: 1, label: '1', ns: 10, mad: 1 },
    { size: 10, label: '10', ns: 20, mad: 1 },
  ];
  const growth = {
    name: 'things',
    addressing: 'offset' as const,
    unit: 'ns',
    points,
    exponent: 0.3,
    limit: 0.1,
    held: false,
  };
  const page = benchmarkPage(host, measured, [growth]);
  expect(page).toContain('P, 2 cores, 16 GiB, linux 7, Node 20, commit abc.');
  expect(page).toContain('| moved | offset | 100 ns | 2.00 ± 0.01 × base | 3 | 2 | **no** |');
  expect(page).toContain('| moved | 1.020 | ± 0.010 |');
  expect(page).toContain('| moved | offset | 100 | 1000 | 10.00 |');
  expect(page).toContain('| 10 | 20 | ± 1 | 2.00 |');
  expect(page).toContain('Exponent 0.300, at most 0.1: **not held**.');
});
