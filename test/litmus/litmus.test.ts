/**
 * The litmus library: small programs (`*.pfn` in the folders beside this file, one for each protocol), each opening with the question
 * that it asks. Every one is run under all of its schedules, or, where those are too many, under all with at most two preemptions, one,
 * or none; and what it allows is what comes out: nothing else, and all of it.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { type ExploreResult, explore } from '#src/explore/explore';
import { parseProgram } from '#src/workload/program/parse';
import { printOutcome } from '#src/workload/program/print';
import type { Program } from '#src/workload/program/program';

const FOLDER = fileURLToPath(new URL('.', import.meta.url));
/** Executions that a search gets: of everything (reduced to one of each order that matters), and with few preemptions. */
const EXECUTIONS_ALL = 600;
const EXECUTIONS_FEW = 350;
const EXECUTIONS_HUGE = 140;

const PREEMPTIONS_MAX = 2;
/** Programs with so many pages are about huge ones, and take their time. */
const HUGE_PAGES = 512;

/** Spaces that are not completed even without preemptions: as many executions as others get. */
const TOO_LARGE = ['migrate/two-stores-two-devices'];

const names = readdirSync(FOLDER, { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.pfn'))
  .map((file) => file.slice(0, -4))
  .sort();

const load = (name: string): Program => parseProgram(readFileSync(`${FOLDER}/${name}.pfn`, 'utf8'), name);

/** As many preemptions as there is time for: any number, then `most` and fewer. */
function all(program: Program, addressing: 'legacy' | 'offset', most: number): ExploreResult {
  const base = { strategy: 'dfs', addressing, shrink: false } as const;
  const isHuge = program.pages >= HUGE_PAGES;
  if (most === Number.POSITIVE_INFINITY && !isHuge) {
    const everything = explore(program, { ...base, executions: EXECUTIONS_ALL });
    if (everything.complete || everything.failure !== null) return everything;
  }
  for (let preemptions = Math.min(most, PREEMPTIONS_MAX); ; preemptions--) {
    const few = explore(program, { ...base, executions: isHuge ? EXECUTIONS_HUGE : EXECUTIONS_FEW, preemptions });
    if (few.complete || few.failure !== null || preemptions === 0) return few;
  }
}

/** Does an outcome as it is printed have these values? */
const has = (outcome: string, wanted: Program['allowed'][number]): boolean =>
  Object.entries(wanted).every(([name, value]) => outcome.split(' ').includes(printOutcome({ [name]: value })));

describe.each(['offset', 'legacy'] as const)('litmus (%s)', (addressing) => {
  test.each(names)('%s', (name) => {
    const program = load(name);
    const { failure, complete, outcomes } = all(
      program,
      addressing,
      addressing === 'offset' ? Number.POSITIVE_INFINITY : 1,
    );
    expect(failure === null ? null : `${failure.invariant}: ${failure.message}\n${failure.command}`).toBeNull();
    expect(complete).toBe(!TOO_LARGE.includes(name));
    if (addressing === 'legacy') return;
    for (const wanted of program.allowed) {
      expect(
        Object.keys(outcomes).some((outcome) => has(outcome, wanted)),
        printOutcome(wanted),
      ).toBe(true);
    }
  });
});

test('every scenario opens with a question or a claim, and says what may come out of it', () => {
  expect(names.length).toBeGreaterThanOrEqual(75);
  for (const name of names) {
    const { question, tasks } = load(name);
    expect(question[0]?.length, name).toBeGreaterThan(20);
    expect(tasks.length, name).toBeGreaterThanOrEqual(2);
  }
});
