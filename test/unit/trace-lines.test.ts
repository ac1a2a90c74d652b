/** Lines of traces: what the quick way takes is what the schema takes, with the same result; the schema says what is wrong. */
import { readdirSync, readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PfnlessError } from '#src/base/errors';
import { parseOrdinary, parseTrace, parseWithSchema, type TraceOperation } from '#src/conformance/trace';

const FOLDER = new URL('../conformance/traces/', import.meta.url);
/** Those whose arenas are alike: one header of each format serves for all their lines. */
const TEXTS = readdirSync(FOLDER)
  .filter((file) => !file.includes('thp'))
  .map((file) => gunzipSync(readFileSync(new URL(file, FOLDER))).toString());
const headerOf = (text: string): string => text.slice(0, text.indexOf('\n'));
const HEADERS = (['hmmrec-1', 'hmmrec-2'] as const).map((format) =>
  headerOf(TEXTS.find((text) => headerOf(text).includes(`"${format}"`))!),
);
/** Of a trace that a line may be in: states say which format it is of. */
const headerFor = (line: string): string => HEADERS[line.includes('"sd":') ? 1 : 0]!;
const linesOf = (text: string): string[] => text.trimEnd().split('\n').slice(1, -1);

/** One line of each kind of operation, with and without a child, as the recorder wrote it. */
const SAMPLES = [
  ...new Map(
    TEXTS.flatMap(linesOf).map((line) => {
      const { op, errno, st1 } = JSON.parse(line) as TraceOperation & { errno?: string };
      return [`${op} ${errno === '0'} ${st1 === undefined} ${line.includes('"sd":')}`, line] as const;
    }),
  ).values(),
];

/** What is in a value, as paths from its root. */
function pathsOf(value: unknown, path: readonly (string | number)[] = []): (readonly (string | number)[])[] {
  if (typeof value !== 'object' || value === null) return [path];
  return [path, ...Object.entries(value).flatMap(([key, inner]) => pathsOf(inner, [...path, key]))];
}

interface Mutation {
  readonly at: number;
  readonly how: 'replace' | 'delete' | 'add' | 'nudge';
  readonly value: unknown;
  readonly name: string;
}

/** The line with one value replaced, deleted, added or changed a little. */
function mutated(line: string, { at, how, value, name }: Mutation): string {
  const data = JSON.parse(line);
  const paths = pathsOf(data);
  const path = paths[at % paths.length]!;
  if (path.length === 0) return JSON.stringify(how === 'replace' ? value : { ...data, [name]: value });
  let holder = data;
  for (const key of path.slice(0, -1)) holder = holder[key];
  const key = path.at(-1)!;
  if (how === 'replace') holder[key] = value;
  else if (how === 'nudge') holder[key] = typeof holder[key] === 'number' ? holder[key] - 1 : [holder[key]];
  else if (how === 'delete' && Array.isArray(holder)) holder.splice(Number(key), 1);
  else if (how === 'delete') delete holder[key];
  else if (Array.isArray(holder)) holder.push(value);
  else holder[name] = value;
  return JSON.stringify(data);
}

/** A value, or the error's message. */
function outcomeOf<T>(parse: () => T): T | string {
  try {
    return parse();
  } catch (error) {
    expect(error).toBeInstanceOf(PfnlessError);
    return (error as Error).message;
  }
}

const VALUES = fc.oneof(
  fc.constantFrom(-1, 0, 1, 255, 256, 1.5, 2 ** 53, 1e300, '', '0', 'EIO', 'eio', 'ok', 'RW', null, true, [], {}),
  fc.constantFrom([[0, 64]], [[0, 0]], [[0, 64, 1]], [['ok', 1]], [0, 64], [null], { pm: [] }),
  fc.jsonValue({ maxDepth: 2 }),
);
const NAMES = fc.oneof(
  fc.constantFrom('x', 'st1', 'torn', 'words', 'cpages', 'toString', 'constructor', '__proto__', '0'),
  fc.string({ maxLength: 5 }),
);
const MUTATIONS = fc.record({
  at: fc.nat(400),
  how: fc.constantFrom<Mutation['how']>('replace', 'delete', 'add', 'nudge'),
  value: VALUES,
  name: NAMES,
});

test('every recorded line goes the quick way, and is what JSON.parse makes of it', () => {
  for (const text of TEXTS) {
    const states = new Map();
    for (const line of linesOf(text)) expect(parseOrdinary(line, states)).toEqual(JSON.parse(line));
  }
});

test('a line that was changed is taken by the quick way only if the schema takes it, as the same operation', () => {
  let taken = 0;
  fc.assert(
    fc.property(fc.constantFrom(...SAMPLES), fc.array(MUTATIONS, { minLength: 1, maxLength: 2 }), (line, mutations) => {
      const changed = mutations.reduce(mutated, line);
      const slow = outcomeOf(() => parseWithSchema(JSON.parse(changed), 't:2'));
      const quick = parseOrdinary(changed, new Map());
      if (quick !== undefined) {
        taken++;
        expect(quick).toEqual(slow);
      }
      const whole = outcomeOf(() => parseTrace(`${headerFor(line)}\n${changed}\n{"end":true,"ops":1}\n`, 't'));
      if (typeof slow === 'string') expect(whole).toBe(slow);
      else if (typeof whole === 'string')
        expect(whole).toMatch(/^t:2: .*(covers|leaves the arena|there is no device|hmmrec-2)/);
      else expect(whole.lines[0]!.operation).toEqual(slow);
    }),
    { numRuns: 6000 },
  );
  expect(taken).toBeGreaterThan(500);
});

test.each([
  [
    'states that are not last',
    (line: string) =>
      line.replace(/^\{/, `{"st0":${/"st0":(\{.*?\})/.exec(line)![1]},`).replace(/,"st0":\{.*\}\}$/, '}'),
  ],
  ['blanks', (line: string) => line.replaceAll(',', ' , ').replaceAll(':', ' : ')],
  ['a member that comes twice', (line: string) => line.replace(/^\{/, '{"i":77,')],
  ['escapes', (line: string) => line.replace('"op"', '"\\u006fp"')],
])('an unusual line is still a line: %s', (_, unusual) => {
  const line = SAMPLES.find((sample) => sample.includes('"op":"munmap"') && !sample.includes('st1'))!;
  const changed = unusual(line);
  expect(changed).not.toBe(line);
  const { lines } = parseTrace(`${headerFor(line)}\n${changed}\n{"end":true,"ops":1}\n`, 't');
  expect(lines[0]!.operation).toEqual(JSON.parse(line));
});
