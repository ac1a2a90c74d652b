/** Recorded against replayed: the first place where they differ, in words that a report can print. */
import type { TraceState } from './trace.js';

/** One place that differs. `page` is an index in the arena where the field belongs to a page. */
export interface Difference {
  readonly field: string;
  readonly expected: string;
  readonly actual: string;
  readonly page: number | null;
}

/** What was recorded of an operation but its states, and what the emulator has for each of these fields. */
export type Fields = Readonly<Record<string, unknown>>;

/** A state as the emulator has it: an entry a page, and sums in kB. */
export interface ObservedState {
  readonly pm: ArrayLike<number>;
  readonly mc: ArrayLike<number>;
  readonly s0: ArrayLike<number> | string;
  readonly s1: ArrayLike<number> | string;
  readonly sums: Readonly<Record<StateSum, number>>;
}

const STATE_ARRAYS = ['pm', 'mc', 's0', 's1'] as const;
const STATE_SUMS = ['rss', 'anon', 'swap', 'ahp', 'prd', 'prc', 'shd', 'shc'] as const;
export type StateSum = (typeof STATE_SUMS)[number];

/** Every field of an operation's results that differs. `firstPage` is where its lists start in the arena. */
export function compareFields(recorded: Fields, actual: Fields, firstPage: number | null): Difference[] {
  const found: Difference[] = [];
  for (const field of new Set([...Object.keys(recorded), ...Object.keys(actual)])) {
    if (field === 'st0' || field === 'st1') continue;
    const difference = compareValue(field, recorded[field], actual[field], firstPage);
    if (difference !== null) found.push(difference);
  }
  return found;
}

function compareValue(field: string, expected: unknown, actual: unknown, firstPage: number | null): Difference | null {
  if (expected === actual) return null;
  if (Array.isArray(expected) && Array.isArray(actual)) {
    if (sameList(expected, actual)) return null;
    const at = expected.findIndex((value, index) => !sameList(value, actual[index]));
    const perPage = firstPage !== null && (field === 'words' || field === 'prot') && expected.length === actual.length;
    if (perPage) {
      const page = firstPage + at;
      return { field: `${field}[${page}]`, expected: show(expected[at]), actual: show(actual[at]), page };
    }
  }
  return { field, expected: show(expected), actual: show(actual), page: null };
}

function sameList(a: unknown, b: unknown): boolean {
  if (!Array.isArray(a) || !Array.isArray(b)) return a === b;
  return a.length === b.length && a.every((value, index) => sameList(value, b[index]));
}

/** Every field of a state that differs, at its first page. */
export function compareState(
  name: 'st0' | 'st1',
  recorded: TraceState | undefined,
  actual: ObservedState | null,
  expectPm: (value: number) => number,
): Difference[] {
  if (recorded === undefined || actual === null) {
    if (recorded === undefined && actual === null) return [];
    const [expected, got] = recorded === undefined ? ['no such process', 'alive'] : ['alive', 'no such process'];
    return [{ field: name, expected: expected!, actual: got!, page: null }];
  }
  const found: Difference[] = [];
  for (const field of STATE_ARRAYS) {
    const [expected, got] = [recorded[field], actual[field]];
    if (typeof expected === 'string' || typeof got === 'string') {
      if (expected !== got)
        found.push({ field: `${name}.${field}`, expected: show(expected), actual: show(got), page: null });
      continue;
    }
    const difference = compareRuns(expected, got, field === 'pm' ? expectPm : same);
    if (difference !== null) found.push({ ...difference, field: `${name}.${field}[${difference.page}]` });
  }
  for (const field of STATE_SUMS) {
    if (recorded[field] === actual.sums[field]) continue;
    const [expected, got] = [`${recorded[field]} kB`, `${actual.sums[field]} kB`];
    found.push({ field: `${name}.${field}`, expected, actual: got, page: null });
  }
  return found;
}

const same = (value: number): number => value;

function compareRuns(
  runs: readonly (readonly [number, number])[],
  actual: ArrayLike<number>,
  translate: (value: number) => number,
): Omit<Difference, 'field'> | null {
  let page = 0;
  for (const [value, length] of runs) {
    const expected = translate(value);
    for (const stop = page + length; page < stop; page++) {
      if (actual[page] !== expected) return { expected: show(expected), actual: show(actual[page]), page };
    }
  }
  return null;
}

function show(value: unknown): string {
  if (value === undefined) return 'absent';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** Values of a list as the traces write runs: [[value, how many], ...]. */
export function runsOf<T>(values: readonly T[]): [T, number][] {
  const runs: [T, number][] = [];
  for (const value of values) {
    const last = runs.at(-1);
    if (last !== undefined && last[0] === value) last[1]++;
    else runs.push([value, 1]);
  }
  return runs;
}
