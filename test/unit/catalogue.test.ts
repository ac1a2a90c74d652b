/** What the package says one may name: it is complete, nobody can change it, and what it names is accepted. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import {
  boot,
  COMPUTE_PROGRAMS,
  EXPLORE_STRATEGIES,
  explore,
  INVARIANTS,
  type Machine,
  PROGRAM_INJECTIONS,
  parseProgram,
} from 'pfnless';
import { expect, test } from 'vitest';
import { jsonOf, pfnless } from '../cli/pfnless.js';

const EXPLORE = fileURLToPath(new URL('../../src/explore', import.meta.url));

test('compute programs: each starts with the arguments that are named, and not without one of them', async () => {
  const machine: Machine = await boot({ executor: 'inline', memory: { ram: '16MiB' }, devices: [{ memory: '4MiB' }] });
  const process = await machine.process();
  const mirror = await process.mirror(0);
  for (const { name, args } of COMPUTE_PROGRAMS) {
    const [last] = args.slice(-1);
    const others = Object.fromEntries(args.slice(0, -1).map((argument) => [argument, 0]));
    await expect(mirror.launch(name, { lanes: 1, args: others })).rejects.toThrow(`argument '${last}' is missing`);
  }
  await machine.dispose();
});

test('injections and strategies: a program that names all of them runs under each', () => {
  const names = PROGRAM_INJECTIONS.map(({ name }) => name);
  const program = parseProgram(`inject ${names.join(' ')}\nA: store 0 1`);
  expect(program.inject).toEqual(names);
  for (const { name: strategy } of EXPLORE_STRATEGIES) {
    expect(explore(program, { strategy, executions: 3 })).toMatchObject({ strategy, failure: null });
  }
  for (const { summary } of [...PROGRAM_INJECTIONS, ...EXPLORE_STRATEGIES]) expect(summary).toMatch(/^\w.*[^.]$/);
});

test('invariants: those that `list` has, and all that exploration reports', async () => {
  const { invariants } = jsonOf(await pfnless(['list', 'invariants', '--json']));
  expect(INVARIANTS.map(({ name, statement }) => ({ name, summary: statement }))).toEqual(invariants);
  const texts = readdirSync(EXPLORE).map((file) => readFileSync(`${EXPLORE}/${file}`, 'utf8'));
  const reported = texts.flatMap((text) => [...text.matchAll(/invariant: '([\w-]+)'/g)].map((match) => match[1]!));
  const progress = ['deadlock', 'livelock', 'starvation'];
  const ofExploration = INVARIANTS.filter(({ checkedBy }) => checkedBy === 'exploration').map(({ name }) => name);
  expect(ofExploration.sort()).toEqual([...new Set([...reported, ...progress])].sort());
});

test('nobody can change the lists', () => {
  for (const list of [COMPUTE_PROGRAMS, EXPLORE_STRATEGIES, INVARIANTS, PROGRAM_INJECTIONS]) {
    expect(Object.isFrozen(list) && list.every(Object.isFrozen)).toBe(true);
    expect(new Set(list.map(({ name }) => name)).size).toBe(list.length);
  }
});
