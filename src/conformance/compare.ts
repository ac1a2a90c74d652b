/** Recorded against replayed: where they differ, in words that a report can print. */
import type { TraceOperation, TraceState } from './trace.js';

/** One place that differs. `page` is an index in the arena where the field belongs to a page. */
export interface Difference {
  readonly field: string;
  readonly expected: string;
  readonly actual: string;
  readonly page: number | null;
}

/** What the emulator has for fields of an operation: its results, and arguments that it knows better. */
export type Fields = Record<string, unknown>;

/** A state as the emulator has it: an entry a page, and sums in kB. */
export interface ObservedState {
  readonly pm: Int32Array;
  readonly mc: Int32Array;
  readonly s0: Uint8Array | string;
  readonly s1: Uint8Array | string;
  /** Soft-dirty bits, if the trace has them. */
  readonly sd: Int32Array | null;
  readonly sums: Readonly<Record<StateSum, number>>;
}

export const STATE_SUMS = ['rss', 'anon', 'swap', 'ahp', 'prd', 'prc', 'shd', 'shc'] as const;
export type StateSum = (typeof STATE_SUMS)[number];

/** Fields that say what to do: they are taken at their word, unless the emulator knows better. */
const ARGUMENTS: ReadonlySet<string> = new Set([
  'op',
  'proc',
  'slot',
  'dev',
  'pg',
  'n',
  'kind',
  'advice',
  'dst',
  'write',
  'len',
  'dontunmap',
  'onfault',
  'off',
  'what',
  'call',
  'at',
  'bytes',
  'to',
]);
/** The same for `prot`, which is a snapshot's result. */
const PROT_IS_ARGUMENT: ReadonlySet<string> = new Set(['mmap', 'mprotect']);

/** `flags` are what a call was given, or a result of kpage and fail_alloc. */
const isArgument = (op: string, field: string): boolean =>
  ARGUMENTS.has(field) || (field === 'prot' && PROT_IS_ARGUMENT.has(op)) || (field === 'flags' && op === 'raw');

/** Add every field of an operation that differs, but for its states. `index`: how many operations came before. */
export function compareFields(
  operation: TraceOperation,
  actual: Readonly<Fields>,
  index: number,
  found: Difference[],
): void {
  const recorded = operation as unknown as Readonly<Fields>;
  for (const field in recorded) {
    if (field === 'st0' || field === 'st1') continue;
    const expected = recorded[field];
    const got = field === 'i' ? index : actual[field];
    if (expected === got || (got === undefined && isArgument(operation.op, field))) continue;
    if (!sameValue(expected, got)) found.push(differenceOf(operation, field, expected, got));
  }
  for (const field in actual) {
    if (recorded[field] === undefined) found.push(differenceOf(operation, field, undefined, actual[field]));
  }
}

/** Two results, lists included, lists of lists too. */
function sameValue(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i] && !sameValue(a[i], b[i])) return false;
  return true;
}

/** Of a list with an entry a page, the first page that differs. */
function differenceOf(operation: TraceOperation, field: string, expected: unknown, actual: unknown): Difference {
  const isPerPage = 'pg' in operation && (field === 'words' || field === 'prot');
  if (isPerPage && Array.isArray(expected) && Array.isArray(actual) && expected.length === actual.length) {
    const at = expected.findIndex((value, index) => value !== actual[index]);
    const page = operation.pg + at;
    return { field: `${field}[${page}]`, expected: show(expected[at]), actual: show(actual[at]), page };
  }
  return { field, expected: show(expected), actual: show(actual), page: null };
}

/** What a kernel without the series has as swap types 24 to 30 is three less with it; device private 28, 29 become 25, 26. */
const SERIES_TYPE_SHIFT = 3 << 8;
const FIRST_SPECIAL_TYPE = 24 << 8;
/** Markers are last under either. */
const MARKER_TYPE = 31 << 8;
const SWAP_FORMAT = 2;

/** Add every field of a state that differs, at its first page. */
export function compareState(
  name: 'st0' | 'st1',
  recorded: TraceState | undefined,
  actual: ObservedState | null,
  seriesApplied: boolean,
  found: Difference[],
): void {
  if (recorded === undefined || actual === null) {
    if (recorded === undefined && actual === null) return;
    const [expected, got] = recorded === undefined ? ['no such process', 'alive'] : ['alive', 'no such process'];
    found.push({ field: name, expected: expected!, actual: got!, page: null });
    return;
  }
  comparePages(name, 'pm', recorded.pm, actual.pm, seriesApplied ? SERIES_TYPE_SHIFT : 0, found);
  comparePages(name, 'mc', recorded.mc, actual.mc, 0, found);
  compareSnapshots(name, 's0', recorded.s0, actual.s0, found);
  compareSnapshots(name, 's1', recorded.s1, actual.s1, found);
  if (recorded.sd !== undefined && actual.sd !== null) comparePages(name, 'sd', recorded.sd, actual.sd, 0, found);
  for (const field of STATE_SUMS) {
    if (recorded[field] === actual.sums[field]) continue;
    const [expected, got] = [`${recorded[field]} kB`, `${actual.sums[field]} kB`];
    found.push({ field: `${name}.${field}`, expected, actual: got, page: null });
  }
}

type Runs = readonly (readonly [number, number])[];

/** @param typeShift what to take from special swap types */
function comparePages(
  name: string,
  field: string,
  recorded: Runs,
  actual: Int32Array | Uint8Array,
  typeShift: number,
  found: Difference[],
): void {
  let page = 0;
  for (let run = 0; run < recorded.length; run++) {
    const [value, length] = recorded[run]!;
    const isShifted =
      typeShift !== 0 && value >= FIRST_SPECIAL_TYPE && value < MARKER_TYPE && (value & SWAP_FORMAT) !== 0;
    const expected = isShifted ? value - typeShift : value;
    const stop = page + length;
    while (page < stop && actual[page] === expected) page++;
    if (page === stop) continue;
    found.push({ field: `${name}.${field}[${page}]`, expected: show(expected), actual: show(actual[page]), page });
    return;
  }
}

/** A snapshot's codes, or the errno of a snapshot that failed. */
function compareSnapshots(
  name: string,
  field: string,
  recorded: Runs | string,
  actual: Uint8Array | string,
  found: Difference[],
): void {
  if (typeof recorded !== 'string' && typeof actual !== 'string') {
    comparePages(name, field, recorded, actual, 0, found);
  } else if (recorded !== actual) {
    const shown = typeof actual === 'string' ? actual : runsOf(Array.from(actual));
    found.push({ field: `${name}.${field}`, expected: show(recorded), actual: show(shown), page: null });
  }
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
