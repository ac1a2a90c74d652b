/** Mutants die: hunts of single sites, and the matrix of a few as a user runs it. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { huntMutants } from '#src/campaign/mutants';
import { replay } from '#src/explore/explore';
import { type HuntTask, hunt } from '#src/explore/hunt';
import { parseRepro } from '#src/explore/repro';
import { jsonOf, pfnless } from '../cli/pfnless';

const litmus = (name: string) => ({
  name,
  text: readFileSync(fileURLToPath(new URL(`../litmus/${name}.pfn`, import.meta.url)), 'utf8'),
});
const PROGRAMS = ['evict/against-cpu-fault', 'fork/child-migrates', 'thp/cpu-fault-on-device-page'].map(litmus);
const task = (...forget: string[]): HuntTask => ({
  ...{ addressing: 'offset', sites: { forget }, programs: PROGRAMS, budget: 2000, seed: 1 },
});
const reproOf = (command: string) => parseRepro(/^npx pfnless replay '(.*)'$/.exec(command)![1]!);

describe('hunt', () => {
  test.each([
    ['canary', 'sanitizer'],
    ['leaf-to-page-private', /./],
    ['migration-read-family', 'last-writer'],
    ['try-to-migrate-family', 'rmap'],
    ['restore-pmd-private-first', 'kernel-log'],
    ['release-own-region', 'assertion'],
  ])('%s is caught, and what is printed shows it again in twelve operations', (id, invariant) => {
    const { caught } = hunt(task(id));
    expect(caught?.invariant).toMatch(invariant);
    expect(caught!.operations).toBeLessThanOrEqual(12);
    const repro = reproOf(caught!.command);
    expect(repro.sites?.forget).toEqual([id]);
    expect(replay(repro).finding?.invariant).toBe(caught!.invariant);
    expect(replay({ ...repro, sites: {} }).finding, 'on a kernel that forgets nothing').toBeNull();
  });

  test('a kernel that forgets nothing is left alone, and a hunt ends with its budget', () => {
    expect(hunt({ ...task(), budget: 300 })).toEqual({ executions: 300, caught: null, unconfirmed: 0 });
  });

  test('a hunt is a function of its task', () => {
    expect(hunt(task('try-to-migrate-family'))).toEqual(hunt(task('try-to-migrate-family')));
  });
});

describe('matrix', () => {
  test('rows come in the order of the sites, and the canary with them', async () => {
    const only = ['try-to-migrate-family', 'aligned-start'];
    const options = {
      addressing: 'offset',
      programs: PROGRAMS,
      only,
      budget: 300,
      control: 300,
      seed: 1,
      jobs: 2,
    } as const;
    const { rows, control } = await huntMutants(options);
    expect(rows.map(({ id, killedBy }) => [id, killedBy !== null])).toEqual([
      ['canary', true],
      ['try-to-migrate-family', true],
      ['aligned-start', false],
    ]);
    expect(rows[2]).toMatchObject({
      unreached: expect.stringMatching(/multiple of 512/),
      executions: 300,
      caught: null,
    });
    expect(control).toEqual({ executions: 300, complete: true, caught: null });
  });

  test('as a user runs it', async () => {
    const words = [
      'mutants',
      '--only',
      'collect-kind',
      '--only',
      'aligned-start',
      '--budget',
      '400',
      '--control',
      '200',
      '--json',
    ];
    const finished = await pfnless(words);
    expect(finished.code).toBe(0);
    const { rows, ...rest } = jsonOf(finished);
    expect(rest).toMatchObject({
      ...{ schema: 'pfnless/mutants@1', ok: true, total: 2, killed: 2, survived: [] },
      control: { executions: 200, caught: null },
    });
    const { repro } = rows.find(({ id }: { id: string }) => id === 'collect-kind');
    const again = await pfnless(['replay', /'(.*)'/.exec(repro)![1]!]);
    expect(again.code).toBe(1);
  });

  test('a survivor is an exit code of 1, an unknown site one of 2', async () => {
    const survived = await pfnless(['mutants', '--only', 'check-pte-kind', '--budget', '30', '--control', '0']);
    expect(survived.stdout).toMatch(/check-pte-kind.*survived/);
    expect(survived.code).toBe(1);
    const unknown = await pfnless(['mutants', '--only', 'check-pte-kin']);
    expect(unknown.stderr).toMatch(/did you mean "check-pte-kind"/);
    expect(unknown.code).toBe(2);
  });
});
