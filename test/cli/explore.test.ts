/** `pfnless explore` and `pfnless replay` as a user meets them. */
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { jsonOf, pfnless, start } from './pfnless';

const folder = mkdtempSync(join(tmpdir(), 'pfnless-explore-'));
const file = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};
const PLANTED = 'pages 2; init: store 0 1; A: todevice 0-1 on 0; B: store 0 7; B: load 0 -> r; forbidden r=7';

test('a litmus program by name, all of its schedules', async () => {
  const words = ['explore', 'migrate/against-store', '--strategy', 'dfs', '--preemptions', '1', '--json'];
  const { code, ...finished } = await pfnless(words);
  expect(code).toBe(0);
  expect(jsonOf({ code, ...finished })).toMatchObject({
    ...{ schema: 'pfnless/explore@1', ok: true, seed: null, strategy: 'dfs', complete: true, failure: null },
    executions: expect.any(Number),
    executionsPerSecond: expect.any(Number),
    outcomes: { 'r=7': expect.any(Number) },
  });
});

test('a failure exits with 1 and prints the command that repeats it, which does', async () => {
  const found = await pfnless(['explore', file('planted.pfn', PLANTED)]);
  expect(found.code).toBe(1);
  expect(found.stdout).toMatch(/^seed 1 · strategy random/);
  expect(found.stdout).toMatch(/outcome: r=7 is forbidden/);
  const repro = /again: npx pfnless replay '(.*)'/.exec(found.stdout)![1]!;
  const again = await pfnless(['replay', repro, '--json']);
  expect(again.code).toBe(1);
  expect(jsonOf(again)).toMatchObject({
    ...{ schema: 'pfnless/replay@1', ok: false, reproduced: true, results: { r: 7 } },
    finding: { invariant: 'outcome' },
  });
});

test('hostile events for a program that names none', async () => {
  const words = ['explore', 'migrate/against-store', '--executions', '50', '--json', '--inject', 'cpus,copy-late'];
  const { code, ...finished } = await pfnless(words);
  expect(jsonOf({ code, ...finished })).toMatchObject({
    ok: true,
    executions: 50,
    mean: { steps: expect.any(Number) },
  });
  const wrong = await pfnless(['explore', 'migrate/against-store', '--inject', 'luck']);
  expect(wrong.stderr).toMatch(/nothing is injected at "luck" \(known are allocation, device-order/i);
  expect(wrong.code).toBe(2);
});

test('a schedule on which nothing is wrong replays with 0', async () => {
  const { code, stdout } = await pfnless(['replay', 'v1 legacy tame pages 1; A: store 0 1; A: load 0']);
  expect(code).toBe(0);
  expect(stdout).toMatch(/store 0 1/);
  expect(stdout).toMatch(/held/);
});

test.each([
  ['a program with a typing error', ['explore', 'BAD'], /bad\.pfn:2:4: there is no operation "lod"/],
  ['an unknown name', ['explore', 'migrate/against-stor'], /did you mean "migrate\/against-store"/],
  ['neither name nor seed', ['explore'], /name a program or give --generate/],
  [
    'a strategy that there is not',
    ['explore', 'migrate/against-store', '--strategy', 'luck'],
    /allowed choices are random, pct, dfs/,
  ],
  ['no repro', ['replay', 'v2 offset tame A: load 0'], /this is no repro/],
  ['a schedule that does not fit', ['replay', 'v1 offset 0.9 A: load 0; B: load 0'], /does not fit the program/],
])('exit 2: %s', async (_, words, message) => {
  const bad = file('bad.pfn', 'pages 1\nA: lod 0\n');
  const { code, stderr } = await pfnless(words.map((word) => (word === 'BAD' ? bad : word)));
  expect(stderr).toMatch(message);
  expect(code).toBe(2);
});

test('list shows the litmus programs with their questions', async () => {
  const { litmus } = jsonOf(await pfnless(['list', '--json']));
  expect(litmus).toContainEqual({
    name: 'migrate/against-store',
    summary: 'Is a store lost while its page moves to the device?',
  });
});

test('a kernel that has forgotten something: explore finds it, replay says under which kernel', async () => {
  const words = ['explore', 'migrate/against-load', '--site', 'canary', '--revision', 'v6', '--executions', '50'];
  const found = await pfnless(words);
  expect(found.code).toBe(1);
  const repro = /again: npx pfnless replay '(v1 offset,v6,-canary .*)'/.exec(found.stdout)![1]!;
  expect((await pfnless(['replay', repro, '--json'])).code).toBe(1);
  expect((await pfnless(['explore', 'migrate/against-load', '--site', 'canry'])).stderr).toMatch(
    /did you mean "canary"/,
  );
});

test('run takes the same flags, and list names the sites', async () => {
  const ran = await pfnless(['run', 'vector-add', '--executor', 'inline', '--site', 'canary', '--json']);
  expect(ran.code).toBe(1);
  expect(jsonOf(ran).workloads[0]).toMatchObject({ ok: false, reproduce: expect.stringMatching(/ --site canary /) });
  const { sites, invariants } = jsonOf(await pfnless(['list', '--json']));
  expect(sites).toContainEqual({ name: 'check-pte-kind', summary: 'check_pte: kinds are compared before numbers' });
  expect(invariants.length).toBeGreaterThan(9);
});

test.each(['SIGINT', 'SIGTERM'] as const)('%s ends an exploration at once', async (signal) => {
  const child = start(['explore', 'migrate/against-store', '--executions', '1000000']);
  await once(child.stdout, 'data');
  await sleep(1000);
  child.kill(signal);
  const killed = performance.now();
  const [code] = await once(child, 'exit');
  expect(code).toBe(130);
  // A part takes about 0.05 s; other tests run beside.
  expect(performance.now() - killed).toBeLessThan(1000);
});

test('what the kernel forgets stands in the header and in the JSON, beside the program', async () => {
  const words = ['explore', 'migrate/against-load', '--site', 'collect-flush', '--revision', 'v6', '--executions', '1'];
  const { stdout } = await pfnless(words);
  expect(stdout).toMatch(
    /^seed 1 · strategy random · offset addressing · revision v6 ·\nforgets collect-flush\n1 execution,/,
  );
  expect(jsonOf(await pfnless([...words, '--json']))).toMatchObject({
    ...{ revision: 'v6', forget: ['collect-flush'] },
    program: expect.stringMatching(/\ndevices 1\npages 1\n/),
  });
});

test('lines fit a terminal, and one is no plural', async () => {
  const { stdout } = await pfnless(['explore', 'migrate/against-store', '--executions', '1']);
  expect(Math.max(...stdout.split('\n').map((line) => line.length))).toBeLessThanOrEqual(80);
  expect(stdout).not.toMatch(/\b1 \w+s\b/);
});

test('replay --json has the story, and what was replayed', async () => {
  const words = ['replay', 'v1 legacy,v6 tame pages 1; A: store 0 1; A: load 0 -> r', '--json'];
  expect(jsonOf(await pfnless([...words, '--site', 'collect-flush']))).toMatchObject({
    ...{ addressing: 'legacy', sites: { revision: 'v6', forget: ['collect-flush'] } },
    program: expect.stringMatching(/A: store 0 1\nA: load 0 -> r\n$/),
    story: expect.stringMatching(/^A\n-+\nstore 0 1\n/),
  });
});

test('addressings that are planned: every command says the same', async () => {
  const said = await Promise.all(
    [['run', 'saxpy'], ['explore', 'migrate/against-store'], ['conform', 'x'], ['contention'], ['mutants']].map(
      (words) => pfnless([...words, '--addressing', 'pageless']),
    ),
  );
  expect(said.map(({ code }) => code)).toEqual([2, 2, 2, 2, 2]);
  expect(new Set(said.map(({ stderr }) => stderr)).size).toBe(1);
  expect(said[0]!.stderr).toMatch(/pageless is planned, but not there yet: use legacy or offset\.\n$/);
});

test('every litmus program asks a question, and list shows it to its end', async () => {
  const { litmus } = jsonOf(await pfnless(['list', 'litmus', '--json']));
  const cut = litmus.filter(({ summary }: { readonly summary: string }) => !/^[^?]+\?$/.test(summary));
  expect(cut).toEqual([]);
});
