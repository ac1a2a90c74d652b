/** The livelock of many CPUs that fault one device page (H5): there under the old rule, gone under the fixed one. */
import { describe, expect, test } from 'vitest';
import { measureContention } from '#src/stress/contention';

describe.each(['legacy', 'offset'] as const)('%s', (addressing) => {
  test('one CPU has nobody to contend with', async () => {
    for (const rule of ['reference', 'trylock'] as const) {
      const result = await measureContention({ rule, cpus: 1, addressing });
      expect(result).toMatchObject({ livelock: false, successes: 16, faultsPerSuccess: 1 });
    }
  });

  test.each([2, 8])('%i CPUs: the page never comes home, or after two faults of each', async (cpus) => {
    const old = await measureContention({ rule: 'reference', cpus, addressing });
    expect(old.livelock).toBe(true);
    expect(old.faultsPerSuccess).toBeGreaterThan(1000);
    const fixed = await measureContention({ rule: 'trylock', cpus, addressing });
    expect(fixed).toMatchObject({ livelock: false, successes: 16 });
    expect(fixed.faultsPerSuccess).toBeLessThanOrEqual(2 * cpus);
    expect(await measureContention({ rule: 'trylock', cpus, addressing })).toEqual(fixed);
  });
});
