/** Stress: what it finds nothing in, what it finds, and that what dies with a device is lost exactly there. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { INJECTION_IDS, type InjectionId } from '#src/base/injection';
import { createRandom } from '#src/base/random';
import { MachineCpu } from '#src/machine/machine-cpu';
import { type MachineInput, parseMachineSpec } from '#src/machine/spec';
import type { Process } from '#src/machine/types';
import { type Answer, judgeActor, planActor, Unsteady } from '#src/stress/actor';
import { LastWriters, LOST } from '#src/stress/last-writer';
import { Region, type Subject } from '#src/stress/region';
import { runRound } from '#src/stress/round';
import { runStress } from '#src/stress/stress';

describe('the last-writer table', () => {
  test('a word holds one thing, or what it may come to hold until somebody looks', () => {
    const table = new LastWriters(4);
    table.may(1, 7);
    table.may(1, 9);
    table.may(2, 0);
    expect([table.allows(1, 0), table.allows(1, 7), table.allows(1, 8), table.content(1)]).toEqual([
      true,
      true,
      false,
      null,
    ]);
    expect(table.uncertain()).toEqual([1]);
    expect(table.describe(1)).toBe('0 or 7 or 9');
    const child = table.copy();
    table.set(1, LOST);
    expect([table.content(1), table.describe(1), child.allows(1, 9)]).toEqual([LOST, 'SIGBUS', true]);
  });
});

describe('judgement', () => {
  const region = new Region({ kind: 'anonymous', start: (2 ** 40) as never, bytes: 8192, pages: [0, 1] });
  const subject: Subject = { process: { pid: 1 } as Process, regions: [region], mirrors: new Map() };
  let value = 0;
  const plan = (caution: 'none' | 'loads') =>
    planActor('CPU 1', 0, subject, {
      ...{ random: createRandom(5), ops: 60, unsteady: new Unsteady(), caution },
      nextValue: () => ++value,
    });
  const obedient = (ops: ReturnType<typeof plan>['ops']): Answer[] => {
    const memory = new Map<number, number>();
    return ops.map(({ kind, word, value: stored }) => {
      if (kind === 'store') memory.set(word, stored!);
      return { outcome: 'done', found: kind === 'store' ? 0 : (memory.get(word) ?? 0) };
    });
  };
  const judge = (actor: ReturnType<typeof plan>, answers: readonly Answer[], hostile = false) =>
    judgeActor(actor, answers, { unsteady: new Unsteady(), hostile });

  test('memory that obeys is right, and certain afterwards', () => {
    const actor = plan('none');
    const { wrong, done, commit } = judge(actor, obedient(actor.ops));
    expect([wrong, done]).toEqual([[], 60]);
    expect(region.last.uncertain().length).toBeGreaterThan(0);
    commit();
    expect(region.last.uncertain()).toEqual([]);
  });

  test('a load of something that was never stored, an old value after a new one, a signal without a reason', () => {
    const actor = plan('loads');
    const answers = actor.ops.map(({ word }): Answer => ({ outcome: 'done', found: region.last.content(word)! }));
    expect(judge(actor, answers).wrong).toEqual([]);
    answers[3] = { outcome: 'done', found: 12345 };
    expect(judge(actor, answers).wrong[0]).toMatch(
      /load of word \d+ of anonymous memory at .*: found 12345, and it must be/,
    );
    const again = actor.ops.findLastIndex(({ word }) => actor.ops.filter((op) => op.word === word).length > 1);
    const { word } = actor.ops[again]!;
    const before = region.last.content(word)!;
    region.last.may(word, 99_999);
    const first = actor.ops.findIndex((op) => op.word === word);
    const backwards = actor.ops.map(
      ({ word: at }): Answer => ({ outcome: 'done', found: region.last.content(at) ?? before }),
    );
    backwards[first] = { outcome: 'done', found: 99_999 };
    expect(judge(actor, backwards).wrong[0]).toContain('after 99999 had been there');
    const signals = answers.map((): Answer => ({ outcome: 'SIGBUS', found: 0 }));
    expect(judge(actor, signals).wrong[0]).toContain('SIGBUS, though nothing has failed');
    expect(judge(actor, signals, true).wrong).toEqual([]);
    expect(judge(actor, [{ outcome: 'SIGSEGV', found: 0 }, ...signals.slice(1)], true).wrong[0]).toContain('SIGSEGV');
  });
});

const round = (input: Exclude<MachineInput, string>, inject: readonly InjectionId[], episodes: number) => {
  let left = episodes;
  const spec = parseMachineSpec({ preset: 'stress', executor: 'inline', ...input });
  return runRound({ spec, inject, isOver: () => left-- === 0 });
};

describe('a round', () => {
  test.each([
    ['inline', 'legacy', 'none', 11],
    ['inline', 'offset', 'none', 12],
    ['inline', 'legacy', 'all', 13],
    ['inline', 'offset', 'all', 14],
    ['threads', 'legacy', 'all', 15],
    ['threads', 'offset', 'none', 16],
  ] as const)('%s, %s, inject %s: nothing is found, nothing is left', async (executor, addressing, inject, seed) => {
    const result = await round({ executor, addressing, seed }, inject === 'all' ? INJECTION_IDS : [], 12);
    expect(result).toMatchObject({ seed, episodes: 12, violations: [], framesLeaked: 0 });
    expect(result.operations).toBeGreaterThan(2000);
    expect(result.traffic.migrated).toBeGreaterThan(0);
    expect(Object.keys(result.injected).length > 10).toBe(inject === 'all');
  });

  test.each(['round-robin', 'random'] as const)('inline, %s: two runs of one seed are the same', async (schedule) => {
    const run = () => round({ schedule, seed: 21 }, INJECTION_IDS, 8);
    expect(await run()).toEqual(await run());
  });

  test.each([
    ['devices that die: what was on them', ['device-crash', 'device-reset', 'device-unplug']],
    ['memory that fails: what it held', ['memory-failure']],
  ] as const)('%s is lost, and nothing else', async (_, inject) => {
    let lost = 0;
    for (let seed = 39; lost === 0 && seed < 80; seed++) {
      const result = await round({ seed }, inject, 12);
      expect(result.violations).toEqual([]);
      lost += result.lost;
    }
    expect(lost).toBeGreaterThan(0);
  });
});

describe('a mistake is found', () => {
  afterEach(() => {
    vi.restoreAllMocks();
  });
  const stress = (executor: 'inline' | 'threads') =>
    runStress({
      spec: parseMachineSpec({ preset: 'stress', executor, seed: 1 }),
      limits: { rounds: 4 },
      inject: [],
      now: () => 0,
    });

  test.each(['inline', 'threads'] as const)('CPUs that nobody tells of shootdowns (%s)', async (executor) => {
    vi.spyOn(MachineCpu.prototype, 'requestFlush').mockImplementation(() => {});
    const { violations, settled, failedSeed } = await stress(executor);
    expect(violations.length).toBe(1);
    expect(['last-writer', 'kernel', 'cpu-tlb']).toContain(violations[0]!.invariant);
    expect(settled).toBe(false);
    expect(failedSeed).toBeGreaterThan(0);
  });
});

test('rounds go on until a limit is reached, with seeds that count up', async () => {
  const spec = parseMachineSpec({ preset: 'stress', executor: 'inline', devices: 1, cpus: 1, seed: 7 });
  let time = 0;
  const seen: number[] = [];
  const options = { spec, inject: [], onProgress: ({ rounds }: { rounds: number }) => void seen.push(rounds) };
  const timed = await runStress({ ...options, limits: { durationMs: 40 }, now: () => time++ });
  expect(timed.episodes).toBeLessThan(41);
  expect(timed).toMatchObject({ rounds: 1, settled: true, failedSeed: null });
  const counted = await runStress({ ...options, limits: { operations: 1000 }, now: () => 0 });
  expect(counted.operations).toBeGreaterThanOrEqual(1000);
  expect(seen[0]).toBe(0);
});
