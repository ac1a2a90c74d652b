/** `pfnless stress` as users call it. */
import { expect, test } from 'vitest';
import { jsonOf, pfnless } from './pfnless';

test('a round inline, twice: the same result, which says all that is promised', async () => {
  const words = [
    'stress',
    '--executor',
    'inline',
    '--rounds',
    '1',
    '--ops',
    '3000',
    '--inject',
    'all',
    '--seed',
    '9',
    '--json',
  ];
  const [one, two] = await Promise.all([pfnless(words), pfnless(words)]);
  expect(one.code).toBe(0);
  expect(jsonOf(one)).toEqual(jsonOf(two));
  expect(jsonOf(one)).toMatchObject({
    ...{ schema: 'pfnless/stress@1', ok: true, seed: 9, addressing: 'offset', executor: 'inline', devices: 4, cpus: 2 },
    ...{ rounds: 1, violations: [], settled: true, framesLeaked: 0, failedSeed: null, repro: null },
  });
  expect(jsonOf(one).operations).toBeGreaterThanOrEqual(3000);
});

test('with threads, for a time, and with fewer devices and CPUs', async () => {
  const flags = ['--devices', '2', '--cpus', '1', '--inject', 'alloc-page,copy-late'];
  const { code, stdout } = await pfnless(['stress', '--duration', '500ms', '--addressing', 'legacy', ...flags]);
  expect(stdout).toMatch(/^seed 1 · threads · legacy addressing · 2 devices · 1 CPU · inject alloc-page,\ncopy-late\n/);
  expect(stdout).toMatch(/held: settled, 0 frames leaked(, but nothing was migrated)?\n$/);
  expect(code).toBe(0);
});

test.each([
  [['--inject', 'copy-eror'], 'did you mean "copy-error"?'],
  [['--duration', 'soon'], '--duration is a time like 60s, 5m or 1h, not "soon"'],
  [['--duration', '0s'], '--duration is a time'],
  [['--cpus', '65'], 'a whole number from 0 to 64'],
])('wrong use: %j', async (flags, message) => {
  const { code, stderr } = await pfnless(['stress', ...flags]);
  expect(code).toBe(2);
  expect(stderr).toContain(message);
});

test.each([[['stress', '--duration', '1ms']], [['campaign', '--seeds', '2', '--duration', '1ms']]])(
  'what has looked at nothing does not say that all held: %j',
  async (words) => {
    const { code, stdout } = await pfnless([...words, '--executor', 'inline', '--json']);
    expect(code).toBe(2);
    expect(JSON.parse(stdout).error.message).toMatch(/Nothing was looked at/);
  },
);

test('a round that was cut short is run again as short as it was', async () => {
  const flags = ['--executor', 'inline', '--seed', '1', '--ops', '300', '--site', 'release-own-region'];
  const first = jsonOf(await pfnless(['stress', ...flags, '--json']));
  expect(first).toMatchObject({ ok: false, episodes: 1, failedEpisodes: 1 });
  const again = jsonOf(await pfnless([...first.repro.split(' ').slice(2), '--json']));
  expect(again.violations).toEqual(first.violations);
});

test('contention: faults for each success under the old and the fixed rule', async () => {
  const { code, stdout } = await pfnless(['contention', '--cpus', '4', '--json']);
  expect(code).toBe(0);
  const { rows } = JSON.parse(stdout);
  expect(rows.map(({ cpus, old, fixed }: Row) => [cpus, old.livelock, fixed.livelock])).toEqual([
    [1, false, false],
    [2, true, false],
    [4, true, false],
  ]);
});

interface Row {
  readonly cpus: number;
  readonly old: { readonly livelock: boolean };
  readonly fixed: { readonly livelock: boolean };
}

test('a campaign over a kernel that forgets: each seed says how to run it again, which finds it again', async () => {
  const flags = ['--executor', 'inline', '--site', 'leaf-to-page-private', '--inject', 'copy-late'];
  const { code, stdout } = await pfnless(['campaign', '--seeds', '2', '--jobs', '2', '--json', ...flags]);
  expect(code).toBe(1);
  const { failures, ...result } = JSON.parse(stdout);
  expect(result).toMatchObject({ schema: 'pfnless/campaign@1', ok: false, seeds: 2, judged: 2, settled: false });
  expect(failures.map(({ seed, outcome }: { seed: number; outcome: string }) => [seed, outcome])).toEqual([
    [1, 'found'],
    [2, 'found'],
  ]);
  const words: string[] = failures[0].repro.split(' ').slice(2);
  const again = await pfnless([...words, '--json']);
  expect(again.code).toBe(1);
  expect(jsonOf(again).violations).toEqual(failures[0].result.violations);
});

test('what the kernel forgets stands in the header and in the JSON', async () => {
  const kernel = ['--site', 'collect-flush', '--revision', 'v6', '--executor', 'inline'];
  const forgets = / · revision v6 · forgets\s+collect-flush\b/;
  const expected = { revision: 'v6', forget: ['collect-flush'] };
  for (const words of [
    ['stress', '--ops', '1'],
    ['campaign', '--ops', '1', '--seeds', '1'],
    ['run', 'saxpy'],
  ]) {
    const { stdout } = await pfnless([...words, ...kernel]);
    expect(stdout.replace('·\n', '· ')).toMatch(forgets);
    expect(stdout).not.toMatch(/\b1 (rounds|episodes|devices|seeds)\b/);
    expect(jsonOf(await pfnless([...words, ...kernel, '--json']))).toMatchObject(expected);
  }
});

test('who has held although nothing moved says so', async () => {
  const { code, stdout } = await pfnless(['stress', '--executor', 'inline', '--seed', '1', '--ops', '10']);
  expect(stdout).toMatch(/\n1 round, 1 episode, .*\nheld: settled, 0 frames leaked, but nothing was migrated\n$/s);
  expect(code).toBe(0);
  const moved = await pfnless(['stress', '--executor', 'inline', '--seed', '1', '--rounds', '1', '--episodes', '12']);
  expect(moved.stdout).toMatch(/\nheld: settled, 0 frames leaked\n$/);
});

test.each(['run', 'explore', 'stress', 'campaign'])('help of %s: --json is the last option', async (command) => {
  const { stdout } = await pfnless([command, '--help']);
  expect(stdout.match(/^ {2}--[\w-]+/gm)!.at(-1)).toBe('  --json');
  if (command !== 'run') expect(stdout.replace(/\s+/g, ' ')).toMatch(/--inject <ids> .*? \(default: none\)/);
});
