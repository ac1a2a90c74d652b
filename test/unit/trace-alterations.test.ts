/**
 * Altered traces: every field of every operation, one by one. A result or a state that was altered is found at its line. Of an
 * argument that may be impossible: what was recorded can be what another argument gives, too.
 */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { describe, expect, test, vi } from 'vitest';
import { TraceReplayer } from '#src/conformance/replay-trace';
import { parseTrace } from '#src/conformance/trace';
import * as madvise from '#src/mm/madvise';

vi.mock('#src/mm/madvise', async (original) => {
  const module = await original<typeof madvise>();
  return { ...module, doMadvise: vi.fn(module.doMadvise) };
});

const FOLDER = new URL('../conformance/traces/', import.meta.url);
const textOf = (name: string): string => gunzipSync(readFileSync(new URL(`${name}.jsonl.gz`, FOLDER))).toString();

/** Fields that say what to do. All others are answers. */
const ARGUMENTS = new Set(['proc', 'slot', 'dev', 'pg', 'n', 'prot', 'kind', 'advice', 'dst', 'write']);
/** Values that a word may have, each altered to the next. */
const WORDS: Readonly<Record<string, readonly string[]>> = {
  prot: ['NONE', 'R', 'RW', 'W'],
  kind: ['private', 'shared'],
  advice: ['DONTNEED', 'HUGEPAGE', 'NOHUGEPAGE', 'FREE'],
  errno: ['0', 'EIO', 'ENOMEM', 'EFAULT', 'EINVAL', 'ENOENT', 'EPERM', 'EBADF'],
};

type Json = ReturnType<typeof JSON.parse>;

/** Another value that the field could have, inside of what a line may say. */
function another(field: string, value: Json): Json {
  if (field === 'proc' || field === 'write') return 1 - value;
  if (typeof value === 'number') return value + 1;
  const words = WORDS[field];
  if (typeof value === 'string') return words![(words!.indexOf(value) + 1) % words!.length];
  if (field === 'vmas') return [];
  const last = value.at(-1);
  // The last run of a list, or the last of a list of values.
  if (Array.isArray(last)) return [...value.slice(0, -1), [anotherCode(last[0]), last[1]]];
  return [...value.slice(0, -1), field === 'prot' ? last ^ 1 : (last ?? 0) + 1];
}

const anotherCode = (code: Json): Json =>
  typeof code === 'string' ? (code === 'ok' ? 'SIGBUS' : 'ok') : code === 1 ? 0 : 1;

/** A field of an operation: its name, or the state that it is in and its name there. */
type Place = readonly [field: string] | readonly [state: string, field: string];

function placesOf(operation: Json): Place[] {
  return Object.keys(operation)
    .filter((field) => field !== 'op')
    .flatMap((field): Place[] =>
      field === 'st0' || field === 'st1'
        ? Object.keys(operation[field]).map((inner): Place => [field, inner])
        : [[field]],
    );
}

const isArgument = ({ op }: Json, [field, inner]: Place): boolean =>
  inner === undefined && ARGUMENTS.has(field) && !(field === 'prot' && op === 'snapshot');

/** A line with the field in that place altered. */
function altered(line: string, [field, inner]: Place): string {
  const operation = JSON.parse(line);
  if (inner === undefined) operation[field] = another(field, operation[field]);
  else operation[field][inner] = another(inner, operation[field][inner]);
  return JSON.stringify(operation);
}

const isOperation = (at: number, lines: readonly string[]): boolean => at > 0 && at < lines.length - 1;

describe('altered results', () => {
  const names = [
    'scen-fork_child_writes',
    'scen-exclusive_mprotect',
    'scen-vmsplice_ref',
    'scen-gup_pin_device_page',
    'scen-two_devices_pingpong',
    'seed-0001',
    'seed-0139',
  ];

  test.each(names)('%s: each is found at its line, and nothing else is', { timeout: 60_000 }, async (name) => {
    const replayer = new TraceReplayer({ addressing: 'offset', executor: 'inline', all: true });
    const lines = textOf(name).trimEnd().split('\n');
    // What is recorded of an answer changes nothing: so one field of every line at a time.
    const results = lines.map((line, at) => {
      if (!isOperation(at, lines)) return [];
      const operation = JSON.parse(line);
      return placesOf(operation).filter((place) => !isArgument(operation, place));
    });
    const rounds = Math.max(...results.map((places) => places.length));
    expect(rounds).toBeGreaterThan(12);
    for (let round = 0; round < rounds; round++) {
      const changed = lines.map((line, at) => (results[at]![round] ? altered(line, results[at]![round]!) : line));
      const { divergences } = await replayer.replay(parseTrace(changed.join('\n'), 't'));
      const found = divergences.map(({ line, field }) => `${line} ${field.replace(/\[\d+\]$/, '')}`);
      const wanted = results.flatMap((places, at) => (places[round] ? [`${at + 1} ${places[round]!.join('.')}`] : []));
      expect(found).toEqual(wanted);
      for (const { alsoDiffers } of divergences) expect(alsoDiffers).toEqual([]);
    }
  });
});

/** Where a divergence is, or how else the trace is found out. */
type Found = 'at its line' | 'refused' | 'later' | 'never';

describe('altered arguments', () => {
  // Later: what only a later access shows (whether a mapping is shared, which device a slot is). Never: an access that is
  // refused in the same way on other pages, a question that has the same answer there.
  test.each([
    ['scen-fork_child_writes', { 'at its line': 39, refused: 0, later: 3, never: 1 }],
    ['scen-exclusive_mprotect', { 'at its line': 50, refused: 0, later: 4, never: 7 }],
    ['scen-vmsplice_ref', { 'at its line': 38, refused: 0, later: 4, never: 0 }],
  ])('%s: found where they make a difference', { timeout: 60_000 }, async (name, wanted) => {
    const replayer = new TraceReplayer({ addressing: 'offset', executor: 'inline', all: false });
    const lines = textOf(name).trimEnd().split('\n');
    const tally: Record<Found, number> = { 'at its line': 0, refused: 0, later: 0, never: 0 };
    for (let at = 0; at < lines.length; at++) {
      if (!isOperation(at, lines)) continue;
      const operation = JSON.parse(lines[at]!);
      for (const place of placesOf(operation).filter((each) => isArgument(operation, each))) {
        const changed = [...lines.slice(0, at), altered(lines[at]!, place), ...lines.slice(at + 1)];
        tally[await foundOut(replayer, changed.join('\n'), at + 1)]++;
      }
    }
    await replayer.dispose();
    expect(tally).toEqual(wanted);
  });

  async function foundOut(replayer: TraceReplayer, text: string, line: number): Promise<Found> {
    let trace: ReturnType<typeof parseTrace>;
    try {
      trace = parseTrace(text, 't');
    } catch (error) {
      expect((error as Error).message).toMatch(new RegExp(`^t:${line}: `));
      return 'refused';
    }
    const [first] = (await replayer.replay(trace)).divergences;
    if (first === undefined) return 'never';
    return first.line === line ? 'at its line' : 'later';
  }
});

describe('the kernel log', () => {
  const original = vi.mocked(madvise.doMadvise).getMockImplementation()!;
  const warn: typeof original = function* (kernel, ...rest) {
    kernel.warn('WARNING: at mm/madvise.c');
    return yield* original(kernel, ...rest);
  };

  test('a warning that the recorded kernel had no reason for is a divergence of the operation', async () => {
    const replayer = new TraceReplayer({ addressing: 'offset', executor: 'inline', all: false });
    const text = textOf('scen-invalidate_neighbour');
    const line = text.split('\n').findIndex((row) => row.includes('"op":"madvise"')) + 1;
    expect(line).toBeGreaterThan(1);
    vi.mocked(madvise.doMadvise).mockImplementation(warn as never);
    try {
      const { divergences } = await replayer.replay(parseTrace(text, 't'));
      expect(divergences).toMatchObject([
        { line, op: 'madvise', field: 'kernel log', expected: 'no warning', actual: 'WARNING: at mm/madvise.c' },
      ]);
    } finally {
      vi.mocked(madvise.doMadvise).mockImplementation(original);
      await replayer.dispose();
    }
  });
});
