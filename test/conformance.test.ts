/** Golden traces of a real kernel replay without a divergence; an altered one is found at its line, a malformed one refused. */
import { readdirSync, readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PfnlessError } from '#src/base/errors';
import { TraceReplayer } from '#src/conformance/replay-trace';
import { parseTrace } from '#src/conformance/trace';

const FOLDER = new URL('./conformance/traces/', import.meta.url);
const FILES = readdirSync(FOLDER).sort();
const readTrace = (file: string): string => gunzipSync(readFileSync(new URL(file, FOLDER))).toString();
const textOf = (name: string): string => readTrace(`${name}.jsonl.gz`);

/** The line with one field changed. */
function altered(text: string, at: number, change: (operation: ReturnType<typeof JSON.parse>) => void): string {
  const lines = text.split('\n');
  const operation = JSON.parse(lines[at]!);
  change(operation);
  lines[at] = JSON.stringify(operation);
  return lines.join('\n');
}

describe.each([
  ['offset', 'inline'],
  ['legacy', 'inline'],
  ['offset', 'threads'],
] as const)('%s addressing, executor %s', (addressing, executor) => {
  const replayer = new TraceReplayer({ addressing, executor, all: false });
  afterAll(() => replayer.dispose());

  test('every trace replays as it was recorded', { timeout: 120_000 }, async () => {
    const files = executor === 'threads' ? FILES.filter((file) => file.startsWith('scen-')) : FILES;
    for (const file of files) {
      const report = await replayer.replay(parseTrace(readTrace(file), file));
      expect(report.divergences).toEqual([]);
      expect(report.operations).toBe(report.recorded);
    }
    expect(await replayer.check()).toEqual([]);
  });
});

describe('an altered trace', () => {
  const NAME = 'scen-fork_child_writes';
  const text = textOf(NAME);
  let replayer: TraceReplayer;
  beforeAll(() => {
    replayer = new TraceReplayer({ addressing: 'offset', executor: 'inline', all: false });
  });
  afterAll(() => replayer.dispose());

  const fieldAt = async (changed: string) => {
    const { divergences } = await replayer.replay(parseTrace(changed, NAME));
    return divergences.map(({ line, field }) => `${line} ${field}`);
  };

  /** Results of every operation of the scenario, one field after the other. */
  const results = text
    .trimEnd()
    .split('\n')
    .slice(1, -1)
    .flatMap((line, index) => Object.keys(JSON.parse(line)).map((field) => ({ at: index + 1, field })))
    .filter(({ field }) => !['proc', 'op', 'slot', 'pg', 'n', 'prot', 'kind', 'dst', 'st0', 'st1'].includes(field));

  test.each(results)('line $at, result $field', async ({ at, field }) => {
    const changed = altered(text, at, (operation) => {
      const value = operation[field];
      if (typeof value === 'number') operation[field] = value + 1;
      else if (typeof value === 'string') operation[field] = value === 'EIO' ? 'EBUSY' : 'EIO';
      else if (field === 'res') value[0][0] = 'SIGBUS';
      else value[value.length - 1]++;
    });
    // A device that does not exist cannot even be opened.
    if (field === 'dev' && JSON.parse(changed.split('\n')[at]!).op === 'open') return;
    const found = await fieldAt(changed);
    expect(found).toHaveLength(1);
    expect(found[0]).toMatch(new RegExp(`^${at + 1} ${field}`));
  });

  const LAST = 6;
  test.each(['st0', 'st1'])('each field of %s', async (name) => {
    const state = JSON.parse(text.split('\n')[LAST]!)[name];
    for (const field of Object.keys(state)) {
      const changed = altered(text, LAST, (operation) => {
        const value = operation[name][field];
        if (typeof value === 'number') operation[name][field] += 4;
        else value[0][0] = value[0][0] === 1 ? 0 : 1;
      });
      expect(await fieldAt(changed)).toEqual([expect.stringContaining(`${LAST + 1} ${name}.${field}`)]);
    }
  });

  test('the divergence says what is on the page', async () => {
    const changed = altered(text, 4, ({ st0 }) => {
      st0.pm = [[1, 64]];
    });
    const { divergences } = await replayer.replay(parseTrace(changed, NAME));
    expect(divergences[0]).toMatchObject({ op: 'migrate_to_dev', field: 'st0.pm[0]', expected: '1', actual: '6402' });
    expect(divergences[0]!.page.join('\n')).toMatch(/device-private-write.*\n.*refcount 1, mapcount 1/);
  });
});

describe('a malformed trace', () => {
  const text = textOf('scen-migrate_basic');
  const RANDOM = textOf('seed-0001');
  const lines = text.trimEnd().split('\n');
  const joined = (...some: (string | undefined)[]) => some.join('\n');

  test.each([
    ['an empty file', '', /^t:1: the trace is empty/],
    [
      'another format',
      text.replace('hmmrec-1', 'hmmrec-3'),
      /^t:1: trace: expected the format "hmmrec-1" or "hmmrec-2"/,
    ],
    ['states of the other format', text.replace('hmmrec-1', 'hmmrec-2'), /^t:2: st0\.sd: missing/],
    [
      'an operation of the other format',
      RANDOM.replace('"op":"munmap"', '"op":"munlock"'),
      /: op: munlock is of hmmrec-2/,
    ],
    ['advice of the other format', RANDOM.replace('"DONTNEED"', '"COLD"'), /: advice: COLD is of hmmrec-2/],
    ['broken JSON', joined(lines[0], '{"i":', lines.at(-1)), /^t:2: not a line of JSON/],
    ['an unknown operation', text.replace('"op":"snapshot"', '"op":"snapshoot"'), /^t:6: op: /],
    ['an unknown field', text.replace('"i":3,', '"i":3,"x":1,'), /^t:5: .*"x"/],
    ['a field too few', text.replace('"kind":"private",', ''), /^t:3: kind: /],
    ['a range beyond the arena', text.replace('"pg":0,"n":16,"prot"', '"pg":60,"n":16,"prot"'), /^t:3: pg: .*64 pages/],
    ['a state of too many pages', text.replace('"pm":[[0,64]]', '"pm":[[0,65]]'), /^t:2: st0\.pm: covers 65 pages/],
    ['no trailer', joined(...lines.slice(0, -1)), new RegExp(`^t:${lines.length - 1}: `)],
    ['a trailer that counts otherwise', text.replace('"ops":', '"ops":1'), new RegExp(`^t:${lines.length}: ops: `)],
  ])('%s', (_, changed, says) => {
    try {
      parseTrace(changed, 't');
    } catch (error) {
      expect(error).toBeInstanceOf(PfnlessError);
      expect(error).toMatchObject({ code: 'ERR_PFNLESS_FILE', message: expect.stringMatching(says) });
      return;
    }
    throw new Error('was accepted');
  });
});
