/**
 * `stress`: rounds on fresh machines, one after the other, until the time is up or something is found. The seeds of the rounds count
 * up from the first, so a round that found something is run again by itself.
 */
import { INJECTION_IDS, type InjectionId } from '../base/injection.js';
import { SEED_MAX } from '../base/random.js';
import { type MachineSpec, overrideMachineSpec } from '../machine/spec.js';
import type { Violation } from '../machine/types.js';
import { type RoundOptions, type RoundResult, runRound } from './round.js';

/** When to end: whichever comes first. */
export interface StressLimits {
  readonly durationMs?: number | undefined;
  readonly operations?: number | undefined;
  readonly rounds?: number | undefined;
  /** Of each round; a round has 60 at the most. */
  readonly episodes?: number | undefined;
}

export interface StressOptions extends Pick<RoundOptions, 'inject' | 'kernel'> {
  readonly spec: MachineSpec;
  readonly limits: StressLimits;
  /** Milliseconds since some moment. */
  now(): number;
  onProgress?(progress: StressProgress): void;
}

export interface StressProgress {
  readonly rounds: number;
  readonly operations: number;
}

export interface StressResult {
  readonly rounds: number;
  readonly episodes: number;
  readonly operations: number;
  readonly calls: number;
  /** Words that were lost with a device, and reported so. */
  readonly lost: number;
  readonly violations: readonly Violation[];
  /** Seed of the round that found something; `null` when none did. */
  readonly failedSeed: number | null;
  /** Episodes of that round. */
  readonly failedEpisodes: number | null;
  /** Every round came to rest with nothing left over. */
  readonly settled: boolean;
  readonly framesLeaked: number;
  readonly injected: Readonly<Partial<Record<InjectionId, number>>>;
  readonly traffic: RoundResult['traffic'];
}

/** Run rounds until a limit is reached, or until something is found. */
export async function runStress({
  spec,
  limits,
  inject,
  kernel,
  now,
  onProgress,
}: StressOptions): Promise<StressResult> {
  const end = now() + (limits.durationMs ?? Number.POSITIVE_INFINITY);
  const { operations: operationsMax = Number.POSITIVE_INFINITY, rounds: roundsMax = Number.POSITIVE_INFINITY } = limits;
  const { episodes: episodesMax = Number.POSITIVE_INFINITY } = limits;
  const results: RoundResult[] = [];
  let operations = 0;
  do {
    const seed = (spec.seed + results.length) % (SEED_MAX + 1);
    const isOver = (soFar: number, episodes: number): boolean => {
      onProgress?.({ rounds: results.length, operations: operations + soFar });
      return now() >= end || operations + soFar >= operationsMax || episodes >= episodesMax;
    };
    const result = await runRound({
      spec: overrideMachineSpec(spec, { seed }),
      ...{ inject, isOver },
      ...(kernel === undefined ? {} : { kernel }),
    });
    results.push(result);
    operations += result.operations;
  } while (
    results.at(-1)!.violations.length === 0 &&
    results.length < roundsMax &&
    operations < operationsMax &&
    now() < end
  );
  return summary(results);
}

/** Rounds together. */
export function summary(results: readonly RoundResult[]): StressResult {
  const failed = results.find(({ violations }) => violations.length > 0);
  const sum = (of: (result: RoundResult) => number): number => results.reduce((total, result) => total + of(result), 0);
  const injected: Partial<Record<InjectionId, number>> = {};
  for (const id of INJECTION_IDS) {
    const times = sum((result) => result.injected[id] ?? 0);
    if (times > 0) injected[id] = times;
  }
  return {
    rounds: results.length,
    episodes: sum(({ episodes }) => episodes),
    operations: sum(({ operations }) => operations),
    calls: sum(({ calls }) => calls),
    lost: sum(({ lost }) => lost),
    violations: results.flatMap(({ violations }) => violations),
    failedSeed: failed?.seed ?? null,
    failedEpisodes: failed?.episodes ?? null,
    settled: failed === undefined,
    framesLeaked: sum(({ framesLeaked }) => framesLeaked),
    injected,
    traffic: {
      cpuFaults: sum(({ traffic }) => traffic.cpuFaults),
      deviceFaults: sum(({ traffic }) => traffic.deviceFaults),
      migrated: sum(({ traffic }) => traffic.migrated),
      shootdowns: sum(({ traffic }) => traffic.shootdowns),
    },
  };
}
