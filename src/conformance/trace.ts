/**
 * Golden traces of a real kernel ("hmmrec-1"): what a line may say. One JSON object a line: a header, one line an operation,
 * a trailer. Pages are indices in the trace's arena; numbers in `st0` and `st1` are what the kernel's own views showed.
 */
import { z } from 'zod';
import { PfnlessError } from '../base/errors.js';

const count = z.int().min(0);
const page = z.int().min(0);
const slot = z.int().min(0).max(7);
/** -1: the slot was not open. */
const device = z.int().min(-1).max(31);
const word = z.int().min(0);
/** "0", or an errno's name. */
const errno = z.string().regex(/^(0|E[A-Z0-9]+)$/, 'expected "0" or the name of an errno');
const protection = z.enum(['NONE', 'R', 'RW', 'W']);
const kilobytes = count;

/** [value, how many pages in a row]. */
const runs = <T extends z.ZodType>(value: T) => z.array(z.tuple([value, z.int().positive()]));
const codes = runs(z.int().min(0).max(255));

const state = z.strictObject({
  pm: runs(z.int().min(-1)),
  mc: runs(z.int().min(-1).max(1)),
  s0: z.union([codes, errno]),
  s1: z.union([codes, errno]),
  rss: kilobytes,
  anon: kilobytes,
  swap: kilobytes,
  ahp: kilobytes,
  prd: kilobytes,
  prc: kilobytes,
  shd: kilobytes,
  shc: kilobytes,
});

/** Common to all operations. `st1` is there while the child lives. */
const common = { i: count, proc: z.union([z.literal(0), z.literal(1)]), st0: state, st1: state.optional() };
const range = { pg: page, n: count };
const mirrored = { slot, dev: device, ...range, errno, cpages: count.optional() };
const words = z.array(word);

const operation = z.discriminatedUnion('op', [
  z.strictObject({ ...common, op: z.literal('open'), slot, dev: device, errno }),
  z.strictObject({ ...common, op: z.literal('close'), slot, dev: device, errno }),
  z.strictObject({
    ...common,
    ...range,
    op: z.literal('mmap'),
    prot: protection,
    kind: z.enum(['private', 'shared']),
    errno,
  }),
  z.strictObject({ ...common, ...range, op: z.literal('munmap'), errno }),
  z.strictObject({ ...common, ...range, op: z.literal('mprotect'), prot: protection, errno }),
  z.strictObject({
    ...common,
    ...range,
    op: z.literal('madvise'),
    advice: z.enum(['DONTNEED', 'HUGEPAGE', 'NOHUGEPAGE', 'COLLAPSE', 'FREE']),
    errno,
  }),
  z.strictObject({ ...common, ...range, op: z.literal('mremap'), dst: page, errno }),
  z.strictObject({
    ...common,
    ...range,
    op: z.literal('cpu_write'),
    k: count,
    res: runs(z.enum(['ok', 'SIGSEGV', 'SIGBUS'])),
    torn: count.optional(),
  }),
  z.strictObject({
    ...common,
    ...range,
    op: z.literal('cpu_read'),
    res: runs(z.enum(['ok', 'SIGSEGV', 'SIGBUS'])),
    words: z.array(word.nullable()),
    torn: count.optional(),
  }),
  z.strictObject({
    ...common,
    ...mirrored,
    op: z.literal('dev_read'),
    faults: count.optional(),
    words: words.optional(),
    torn: count.optional(),
  }),
  z.strictObject({ ...common, ...mirrored, op: z.literal('dev_write'), k: count, faults: count.optional() }),
  z.strictObject({
    ...common,
    ...mirrored,
    op: z.literal('migrate_to_dev'),
    words: words.optional(),
    torn: count.optional(),
  }),
  z.strictObject({ ...common, ...mirrored, op: z.literal('migrate_to_sys') }),
  z.strictObject({ ...common, ...mirrored, op: z.literal('snapshot'), prot: z.array(word.max(255)).optional() }),
  z.strictObject({
    ...common,
    ...mirrored,
    op: z.literal('exclusive'),
    words: words.optional(),
    torn: count.optional(),
  }),
  z.strictObject({ ...common, ...mirrored, op: z.literal('check_exclusive') }),
  z.strictObject({ ...common, op: z.literal('fail_alloc'), slot, dev: device, flags: count, errno }),
  z.strictObject({ ...common, op: z.literal('release_chunks'), slot, dev: device, errno }),
  z.strictObject({ ...common, op: z.literal('fork'), errno }),
  z.strictObject({ ...common, op: z.literal('exit'), status: z.int() }),
  z.strictObject({
    ...common,
    ...range,
    op: z.literal('pin'),
    write: z.union([z.literal(0), z.literal(1)]),
    errno,
  }),
  z.strictObject({ ...common, op: z.literal('unpin'), errno, words: words.optional(), torn: count.optional() }),
  z.strictObject({ ...common, ...range, op: z.literal('splice'), errno, pages: count }),
  z.strictObject({ ...common, op: z.literal('splice_drain'), errno, words: words.optional(), torn: count.optional() }),
  z.strictObject({
    ...common,
    op: z.literal('smaps'),
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
    vmas: z.array(z.tuple([page, count, z.string()])),
  }),
  z.strictObject({ ...common, op: z.literal('state') }),
]);

const header = z.strictObject({
  trace: z.literal('hmmrec-1', { error: 'expected the format "hmmrec-1"' }),
  kernel: z.string(),
  kernel_version: z.string(),
  machine: z.string(),
  driver: z.string(),
  devices: z.array(z.string().regex(/:private$/, 'only private devices can be replayed')).min(1),
  page_size: z.literal(4096),
  pmd_size: z.literal(2097152),
  thp_enabled: z.string(),
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
  seed: count.optional(),
  len: count.optional(),
});

const trailer = z.strictObject({ end: z.literal(true), ops: count });

export type TraceHeader = z.infer<typeof header>;
export type TraceOperation = z.infer<typeof operation>;
export type TraceState = z.infer<typeof state>;
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
  for (let at = 1; at < rows.length - 1; at++) {
    const where = `${file}:${at + 1}`;
    const parsed = parseLine(operation, rows[at]!, where);
    const problem = inconsistency(parsed, head);
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

/** What a schema cannot say: how fields fit each other. */
function inconsistency(operation: TraceOperation, { arena_pages, devices }: TraceHeader): string | null {
  for (const name of ['st0', 'st1'] as const) {
    const seen = operation[name];
    if (seen === undefined) continue;
    for (const field of ['pm', 'mc', 's0', 's1'] as const) {
      const value = seen[field];
      if (typeof value === 'string') continue;
      const pages = value.reduce((sum, [, length]) => sum + length, 0);
      if (pages !== arena_pages) return `${name}.${field}: covers ${pages} pages, not the arena's ${arena_pages}`;
    }
  }
  if ('pg' in operation && operation.pg + operation.n > arena_pages) {
    return `pg: the range of ${operation.n} pages at ${operation.pg} leaves the arena of ${arena_pages} pages`;
  }
  if (operation.op === 'mremap' && operation.dst + operation.n > arena_pages) {
    return `dst: the range of ${operation.n} pages at ${operation.dst} leaves the arena of ${arena_pages} pages`;
  }
  if (operation.op === 'open' && (operation.dev < 0 || operation.dev >= devices.length)) {
    return `dev: there is no device ${operation.dev}, the trace has ${devices.length}`;
  }
  return null;
}

function parseLine<T>(schema: z.ZodType<T>, line: string, where: string): T {
  let data: unknown;
  try {
    data = JSON.parse(line);
  } catch (cause) {
    throw fileError(`${where}: not a line of JSON: ${(cause as Error).message}`, cause);
  }
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  throw fileError(`${where}: ${path.length === 0 ? 'line' : path.join('.')}: ${message}`, parsed.error);
}

const fileError = (message: string, cause?: unknown): PfnlessError =>
  new PfnlessError('ERR_PFNLESS_FILE', message, { cause });
