/**
 * An execution is a pure function of machine, program and schedule: the same seed gives the same trace, whatever ran on the machine
 * before. Two laboratories run the same programs, one from the first seed to the last, the other backwards, so that every
 * machine has another past. `npm run determinism` does it for 1,000 seeds.
 */
import { expect, test } from 'vitest';
import { Laboratory } from '#src/explore/laboratory';
import { Plan } from '#src/explore/plan';
import { dfs } from '#src/sched/explore/dfs';
import { pct } from '#src/sched/explore/pct';
import { randomWalk, roundRobin } from '#src/sched/explore/random';
import { Recorder, replaySchedule } from '#src/sched/explore/replay';
import type { Strategy } from '#src/sched/explore/strategy';
import { generateProgram } from '#src/workload/program/generate';

const SEEDS = Number(process.env.PFNLESS_SEEDS ?? 40);
const EXECUTIONS = 3;

const STRATEGIES: Readonly<Record<string, (seed: number) => Strategy>> = {
  random: randomWalk,
  pct: (seed) => pct(seed, 3),
  dfs: () => dfs({ preemptions: 2 }),
  'dfs, reduced': () => dfs(),
  'round-robin': roundRobin,
  // Answers that mostly do not fit are taken as far as they do.
  replay: (seed) => replaySchedule([0, seed % 2, 0, 0, seed % 3, 1], { lenient: true }),
};

/** Everything that a person would see of some executions, and what no person sees: choices and steps. */
function traceOf(lab: Laboratory, seed: number, strategy: Strategy): string {
  const plan = new Plan(generateProgram(seed, { huge: seed % 50 === 0 ? 'always' : 'never' }));
  const recorder = new Recorder(strategy);
  const lines: string[] = [];
  for (let count = 0; count < EXECUTIONS && recorder.begin(); count++) {
    const { fingerprint, results, steps, cpuFaults, finding } = lab.run(plan, recorder, ({ thread, text }) =>
      lines.push(`${thread}: ${text}`),
    );
    lines.push(JSON.stringify({ fingerprint, results, steps, cpuFaults, finding }));
  }
  return lines.join('\n');
}

test.each(Object.entries(STRATEGIES))(
  `${SEEDS} seeds, each with one trace (%s)`,
  (_, strategyOf) => {
    const [forwards, backwards] = [new Laboratory('offset'), new Laboratory('offset')];
    const traces = Array.from({ length: SEEDS }, (_, seed) => traceOf(forwards, seed, strategyOf(seed)));
    for (let seed = SEEDS - 1; seed >= 0; seed--) {
      expect(traceOf(backwards, seed, strategyOf(seed)), `seed ${seed}`).toBe(traces[seed]);
    }
  },
  600_000,
);
