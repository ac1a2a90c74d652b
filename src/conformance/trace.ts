/**
 * Golden traces of a real kernel ("hmmrec-1", "hmmrec-2"): what a line may say. One JSON object a line: a header, one line an operation,
 * a trailer. Pages are indices in the trace's arena; numbers in `st0` and `st1` are what the kernel's own views showed.
 *
 * An ordinary line is only tested; what fails the test is parsed with the schema, which says why (trace-fields.ts).
 */
import { z } from 'zod';
import { PfnlessError } from '../base/errors.js';
import { CLEAR_REFS } from '../mm/clear-refs.js';
import { ADVICES } from '../mm/madvise.js';
import { COUNTER_ROWS } from './trace-counters.js';
import {
  either,
  errno,
  int,
  listOf,
  nullable,
  objectOf,
  oneOf,
  optional,
  runsOf,
  type Shape,
  type Shaped,
  text,
  triple,
} from './trace-fields.js';
import { RAW_CALLS, rawProblem } from './trace-raw.js';

const count = int(0);
const page = int(0);
const slot = int(0, 7);
/** -1: the slot was not open. */
const device = int(-1, 31);
const word = int(0);
/** Bytes from somewhere on, in either direction. */
const bytes = int(Number.MIN_SAFE_INTEGER);
const protection = oneOf('NONE', 'R', 'RW', 'W');
const kilobytes = count;
const codes = runsOf(int(0, 255));
const access = runsOf(oneOf('ok', 'SIGSEGV', 'SIGBUS'));

/** Differences: the beginning may have had more. */
const counters = Object.fromEntries(COUNTER_ROWS.map((row) => [row, int(Number.MIN_SAFE_INTEGER)])) as Record<
  (typeof COUNTER_ROWS)[number],
  typeof count
>;

const state = objectOf({
  pm: runsOf(int(-1)),
  mc: runsOf(int(-1, 1)),
  s0: either(codes, errno),
  s1: either(codes, errno),
  rss: kilobytes,
  anon: kilobytes,
  swap: kilobytes,
  ahp: kilobytes,
  prd: kilobytes,
  prc: kilobytes,
  shd: kilobytes,
  shc: kilobytes,
  // Of hmmrec-2: soft-dirty bits.
  sd: optional(runsOf(int(0, 1))),
});

/** Common to all operations. `st1` is there while the child lives. */
const states = { st0: state, st1: optional(state) };
const common = { i: count, proc: oneOf(0, 1), ...states };
const range = { pg: page, n: count };
const mirrored = { slot, dev: device, ...range, errno, cpages: optional(count) };
/** First words of the pages, and how many pages have another last word. */
const words = { words: optional(listOf(word)), torn: optional(count) };

const OPERATIONS_1 = {
  open: { ...common, slot, dev: device, errno },
  close: { ...common, slot, dev: device, errno },
  // `off` of hmmrec-2: from that page on of the trace's file.
  mmap: { ...common, ...range, prot: protection, kind: oneOf('private', 'shared'), off: optional(page), errno },
  munmap: { ...common, ...range, errno },
  mprotect: { ...common, ...range, prot: protection, errno },
  madvise: {
    ...common,
    ...range,
    advice: oneOf(...ADVICES),
    errno,
  },
  mremap: { ...common, ...range, dst: page, errno },
  cpu_write: { ...common, ...range, k: count, res: access, torn: optional(count) },
  cpu_read: { ...common, ...range, res: access, words: listOf(nullable(word)), torn: optional(count) },
  dev_read: { ...common, ...mirrored, faults: optional(count), ...words },
  dev_write: { ...common, ...mirrored, k: count, faults: optional(count) },
  migrate_to_dev: { ...common, ...mirrored, ...words },
  migrate_to_sys: { ...common, ...mirrored },
  snapshot: { ...common, ...mirrored, prot: optional(listOf(int(0, 255))) },
  exclusive: { ...common, ...mirrored, ...words },
  check_exclusive: { ...common, ...mirrored },
  fail_alloc: { ...common, slot, dev: device, flags: count, errno },
  release_chunks: { ...common, slot, dev: device, errno },
  fork: { ...common, errno },
  exit: { ...common, status: int(Number.MIN_SAFE_INTEGER) },
  pin: { ...common, ...range, write: oneOf(0, 1), errno },
  unpin: { ...common, errno, ...words },
  splice: { ...common, ...range, errno, pages: count },
  splice_drain: { ...common, errno, ...words },
  smaps: {
    ...common,
    rss: kilobytes,
    pss: kilobytes,
    anon: kilobytes,
    ahp: kilobytes,
    swap: kilobytes,
    shc: kilobytes,
    shd: kilobytes,
    prc: kilobytes,
    prd: kilobytes,
    shmem_pmd: kilobytes,
    lck: optional(kilobytes),
    vmas: listOf(triple(page, count, text)),
  },
  state: { ...common },
} as const satisfies Readonly<Record<string, Shape>>;

/** What hmmrec-2 has beside them. */
const OPERATIONS_2 = {
  mremap_to: { ...common, ...range, len: count, dst: int(-1), dontunmap: oneOf(0, 1), errno },
  mlock: { ...common, ...range, onfault: oneOf(0, 1), errno },
  munlock: { ...common, ...range, errno },
  raw: {
    ...common,
    call: oneOf(...RAW_CALLS),
    at: bytes,
    bytes,
    flags: optional(int(0, 31)),
    to: optional(bytes),
    len: optional(bytes),
    errno,
  },
  max_maps: { ...common, n: count, errno },
  clear_refs: { ...common, what: oneOf(...CLEAR_REFS), errno },
  uffd_open: { ...common, errno },
  uffd_close: { ...common, errno },
  uffd_register: { ...common, ...range, errno },
  uffd_unregister: { ...common, ...range, errno },
  uffd_protect: { ...common, ...range, errno },
  uffd_resolve: { ...common, ...range, errno },
  fread: { ...common, ...range, errno, ...words },
  fwrite: { ...common, ...range, k: count, errno },
  ftruncate: { ...common, n: count, errno },
  fsync: { ...common, errno },
  kpage: { ...common, ...range, flags: runsOf(int(-1)), maps: runsOf(int(-1)) },
  counters: { ...common, ...counters },
} as const satisfies Readonly<Record<string, Shape>>;

const OPERATIONS = { ...OPERATIONS_1, ...OPERATIONS_2 };

export type OperationName = keyof typeof OPERATIONS;
type OperationOf<Name extends OperationName> = { op: Name } & Shaped<(typeof OPERATIONS)[Name]>;
export type TraceOperation = { [Name in OperationName]: OperationOf<Name> }[OperationName];

const kinds = Object.entries(OPERATIONS).map(([name, shape]) => {
  const { st0: _, st1: __, ...head } = { ...shape, op: oneOf(name) };
  return { name, whole: objectOf({ ...head, ...states }), head: objectOf(head) };
});
const schemas = kinds.map(({ whole }) => whole.schema) as unknown as [z.ZodObject, ...z.ZodObject[]];
const operation = z.discriminatedUnion('op', schemas) as unknown as z.ZodType<TraceOperation>;
const wholeTests = new Map<unknown, (value: unknown) => boolean>(kinds.map(({ name, whole }) => [name, whole.test]));
const headTests = new Map<unknown, (value: unknown) => boolean>(kinds.map(({ name, head }) => [name, head.test]));

const opOf = (data: unknown): unknown => ((data ?? {}) as { readonly op?: unknown }).op;
/** Is it an operation that the schema takes? Says the same, and nothing of what is wrong. */
const isOperation = (data: unknown): data is TraceOperation => wholeTests.get(opOf(data))?.(data) ?? false;
/** The same of an operation without its states. */
const isHead = (data: unknown): boolean => headTests.get(opOf(data))?.(data) ?? false;

const header = z.strictObject({
  trace: z.enum(['hmmrec-1', 'hmmrec-2'], { error: 'expected the format "hmmrec-1" or "hmmrec-2"' }),
  kernel: z.string(),
  kernel_version: z.string(),
  machine: z.string(),
  driver: z.string(),
  devices: z.array(z.string().regex(/:(private|coherent)$/, 'expected a name and ":private" or ":coherent"')).min(1),
  page_size: z.literal(4096),
  pmd_size: z.literal(2097152),
  thp_enabled: z.string(),
  swap_pages: count.schema.optional(),
  file_pages: count.schema.optional(),
  arena_pages: z
    .int()
    .positive()
    .max(2 ** 20),
  arena_base: z
    .string()
    .regex(/^0x[0-9a-f]{1,12}$/, 'expected an address like 0x100000000000')
    .transform(Number)
    .refine((base) => base % 2097152 === 0, 'the arena must start at a multiple of 2 MiB'),
  scenario: z.string(),
  seed: count.schema.optional(),
  len: count.schema.optional(),
});

const trailer = z.strictObject({ end: z.literal(true), ops: count.schema });

export type TraceHeader = z.infer<typeof header>;
export type TraceState = NonNullable<TraceOperation['st1']>;
/** One operation, and where it stands in the file. */
export interface TraceLine {
  readonly line: number;
  readonly operation: TraceOperation;
}

export interface Trace {
  readonly file: string;
  readonly header: TraceHeader;
  readonly lines: readonly TraceLine[];
}

/**
 * The trace in `text`.
 * @param file the name for messages
 * @throws PfnlessError ERR_PFNLESS_FILE, naming file and line, at the first line that is not as the format has it
 */
export function parseTrace(text: string, file: string): Trace {
  const rows = text.split('\n');
  while (rows.length > 0 && rows.at(-1)!.trim() === '') rows.pop();
  if (rows.length === 0) throw fileError(`${file}:1: the trace is empty; expected a header line`);
  const head = parseLine(header, rows[0]!, `${file}:1`);
  const lines: TraceLine[] = [];
  const states = new Map<string, TraceState>();
  const covered = new Set<TraceState>();
  for (let at = 1; at < rows.length - 1; at++) {
    const where = `${file}:${at + 1}`;
    const parsed = parseOperation(rows[at]!, where, states);
    const problem =
      uncovered('st0', parsed.st0, head, covered) ??
      uncovered('st1', parsed.st1, head, covered) ??
      inconsistency(parsed, head);
    if (problem !== null) throw fileError(`${where}: ${problem}`);
    lines.push({ line: at + 1, operation: parsed });
  }
  const where = `${file}:${rows.length}`;
  if (rows.length === 1)
    throw fileError(`${where}: the trace ends after its header; expected a last line {"end":true,...}`);
  const { ops } = parseLine(trailer, rows.at(-1)!, where);
  if (ops !== lines.length)
    throw fileError(`${where}: ops: the trailer counts ${ops} operations, not the ${lines.length} above`);
  return { file, header: head, lines };
}

/** What is wrong with the pages that a state covers. `covered`: states in which nothing was. */
function uncovered(
  name: 'st0' | 'st1',
  seen: TraceState | undefined,
  { arena_pages }: TraceHeader,
  covered: Set<TraceState>,
): string | null {
  if (seen === undefined || covered.has(seen)) return null;
  for (const field of ['pm', 'mc', 's0', 's1'] as const) {
    const value = seen[field];
    if (typeof value === 'string') continue;
    let pages = 0;
    for (let run = 0; run < value.length; run++) pages += value[run]![1];
    if (pages !== arena_pages) return `${name}.${field}: covers ${pages} pages, not the arena's ${arena_pages}`;
  }
  covered.add(seen);
  return null;
}

/** What a schema cannot say: how the other fields fit each other. */
function inconsistency(operation: TraceOperation, { trace, arena_pages, devices }: TraceHeader): string | null {
  if ('pg' in operation && operation.pg + operation.n > arena_pages) {
    return `pg: the range of ${operation.n} pages at ${operation.pg} leaves the arena of ${arena_pages} pages`;
  }
  if (operation.op === 'mremap' && operation.dst + operation.n > arena_pages) {
    return `dst: the range of ${operation.n} pages at ${operation.dst} leaves the arena of ${arena_pages} pages`;
  }
  if (operation.op === 'open' && (operation.dev < 0 || operation.dev >= devices.length)) {
    return `dev: there is no device ${operation.dev}, the trace has ${devices.length}`;
  }
  if (operation.op === 'mremap_to' && operation.dst + operation.len > arena_pages) {
    return `dst: the range of ${operation.len} pages at ${operation.dst} leaves the arena of ${arena_pages} pages`;
  }
  const problem = operation.op === 'raw' ? rawProblem(operation, arena_pages) : null;
  return problem ?? unlikeFormat(operation, trace);
}

const ADVICE_1: ReadonlySet<string> = new Set(['DONTNEED', 'HUGEPAGE', 'NOHUGEPAGE', 'COLLAPSE', 'FREE']);

/** What only the other format has, or what this one always has and the line has not. */
function unlikeFormat(operation: TraceOperation, format: TraceHeader['trace']): string | null {
  const second = format === 'hmmrec-2';
  for (const name of ['st0', 'st1'] as const) {
    const state = operation[name];
    if (state !== undefined && (state.sd !== undefined) !== second) {
      return `${name}.sd: ${second ? 'missing; every state of hmmrec-2 has it' : 'of hmmrec-2, the trace is hmmrec-1'}`;
    }
  }
  if (operation.op === 'smaps' && (operation.lck !== undefined) !== second) {
    return `lck: ${second ? 'missing; smaps of hmmrec-2 has it' : 'of hmmrec-2, the trace is hmmrec-1'}`;
  }
  if (second) return null;
  if (operation.op in OPERATIONS_2) return `op: ${operation.op} is of hmmrec-2, the trace is hmmrec-1`;
  if (operation.op === 'madvise' && !ADVICE_1.has(operation.advice)) {
    return `advice: ${operation.advice} is of hmmrec-2, the trace is hmmrec-1`;
  }
  return operation.op === 'mmap' && operation.off !== undefined ? 'off: of hmmrec-2, the trace is hmmrec-1' : null;
}

/** What the schema of an operation says to a line that is JSON. */
export const parseWithSchema = (data: unknown, where: string): TraceOperation => conforming(operation, data, where);

/** @param states states of the trace so far, by their text */
function parseOperation(line: string, where: string, states: Map<string, TraceState>): TraceOperation {
  const known = parseOrdinary(line, states);
  if (known !== undefined) return known;
  const data = parseJson(line, where);
  return isOperation(data) ? data : parseWithSchema(data, where);
}

const ST0 = ',"st0":';
const ST1 = ',"st1":';

/**
 * A line whose last members are its states, each parsed once for all lines that have it: a state is long, and one line in two
 * leaves it as it was. The parts of such a line are JSON exactly if it is. `undefined`: the line is not so, or wrong.
 */
export function parseOrdinary(line: string, states: Map<string, TraceState>): TraceOperation | undefined {
  const first = line.indexOf(ST0);
  const second = line.indexOf(ST1, first + 1);
  if (first < 0 || !line.endsWith('}')) return undefined;
  const st0 = stateOf(line.slice(first + ST0.length, second < 0 ? -1 : second), states);
  const st1 = second < 0 ? undefined : stateOf(line.slice(second + ST1.length, -1), states);
  if (st0 === undefined || (second >= 0 && st1 === undefined)) return undefined;
  try {
    const data = JSON.parse(`${line.slice(0, first)}}`);
    if (!isHead(data)) return undefined;
    const operation = data as TraceOperation;
    operation.st0 = st0;
    if (st1 !== undefined) operation.st1 = st1;
    return operation;
  } catch {
    return undefined;
  }
}

function stateOf(json: string, states: Map<string, TraceState>): TraceState | undefined {
  const known = states.get(json);
  if (known !== undefined) return known;
  try {
    const data: unknown = JSON.parse(json);
    if (!state.test(data)) return undefined;
    states.set(json, data as TraceState);
    return data as TraceState;
  } catch {
    return undefined;
  }
}

const parseLine = <T>(schema: z.ZodType<T>, line: string, where: string): T =>
  conforming(schema, parseJson(line, where), where);

function parseJson(line: string, where: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw fileError(`${where}: not a line of JSON: ${(cause as Error).message}`, cause);
  }
}

function conforming<T>(schema: z.ZodType<T>, data: unknown, where: string): T {
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  throw fileError(`${where}: ${path.length === 0 ? 'line' : path.join('.')}: ${message}`, parsed.error);
}

const fileError = (message: string, cause?: unknown): PfnlessError =>
  new PfnlessError('ERR_PFNLESS_FILE', message, { cause });
