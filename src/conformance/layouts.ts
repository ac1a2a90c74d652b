/**
 * Replay of recorded placements of device memory (`pfnless layouts`): a line of the file is one machine, with its physical
 * address map before the driver came and every region that the driver then asked for, as a real kernel answered.
 *
 * The map is rebuilt from the top level of the recorded /proc/iomem; each request goes to the emulated resource tree; start and
 * end must agree to the byte, a refusal with a refusal (a driver may hide which errno it was). A machine that was out of
 * RAM rather than of address space (`layoutOnly: false`) is set aside: nothing here models its RAM.
 */
import { z } from 'zod';
import type { Errno } from '../abi/errno.js';
import { PfnlessError } from '../base/errors.js';
import { type Resource, ResourceTree } from '../mm/resource.js';

/** A request whose answer differs. Answers read `0xfff0000000-0xffffffffff` or `refused (ERANGE)`. */
export interface LayoutMismatch {
  readonly case: string;
  /** Index in the case's list of requests. */
  readonly request: number;
  readonly expected: string;
  readonly actual: string;
}

export interface LayoutsReport {
  /** Machines in the file. */
  readonly cases: number;
  /** Requests compared. */
  readonly requests: number;
  readonly mismatches: readonly LayoutMismatch[];
  /** Machines that were not replayed, because RAM decided there. */
  readonly setAside: number;
  /** Requests of those machines. */
  readonly skipped: number;
}

const address = z
  .string()
  .regex(/^0x[0-9a-f]{1,16}$/i, 'expected an address like 0x10000000')
  .transform(Number)
  .refine((value) => value < 2 ** 53, 'address beyond 2^53');
const range = z
  .object({ start: address, end: address })
  .refine(({ start, end }) => start <= end, 'a range must not end before it starts');
const refusal = z.object({ error: z.string() });

const request = z.discriminatedUnion('op', [
  z.object({
    op: z.literal('request'),
    /** Up to 2^64, where a double is no longer exact: all that is asked of such a size is that it does not fit. */
    bytes: z.number().refine((bytes) => bytes >= 0 && Number.isInteger(bytes), 'expected a number of bytes'),
    name: z.string(),
    result: z.union([range, refusal]),
  }),
  z.object({ op: z.literal('release'), name: z.string() }),
]);

const layoutCase = z.object({
  name: z.string(),
  physBits: z.int().min(1).max(52),
  maxPhysmemBits: z.int().min(1).max(52),
  sectionBytes: z.int().positive(),
  iomemResourceEnd: address,
  directMapPhysmemEnd: address,
  iomemBefore: z.array(z.object({ start: address, end: address, name: z.string(), depth: z.int().min(0) })),
  requests: z.array(request),
  layoutOnly: z.boolean().default(true),
});

type LayoutCase = z.infer<typeof layoutCase>;
type Answer = z.infer<typeof range> | z.infer<typeof refusal>;

/**
 * Replay every machine of `text`, in JSON lines.
 * @param file the name for messages
 * @throws PfnlessError ERR_PFNLESS_FILE, naming file and line, when a line is not a recorded machine or there is none
 */
export function replayLayouts(text: string, file: string): LayoutsReport {
  const mismatches: LayoutMismatch[] = [];
  const report = { cases: 0, requests: 0, mismatches, setAside: 0, skipped: 0 };
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const where = `${file}:${index + 1}`;
    const machine = parseCase(line, where);
    const requests = machine.requests.filter(({ op }) => op === 'request').length;
    report.cases++;
    if (machine.layoutOnly) {
      report.requests += requests;
      replayCase(machine, where, mismatches);
    } else {
      report.setAside++;
      report.skipped += requests;
    }
  }
  if (report.cases === 0) throw fileError(`${file}: no recorded machine in it; expected one JSON object a line`);
  return report;
}

function parseCase(line: string, where: string): LayoutCase {
  let data: unknown;
  try {
    data = JSON.parse(line);
  } catch (cause) {
    throw fileError(`${where}: not a line of JSON: ${(cause as Error).message}`, cause);
  }
  const parsed = layoutCase.safeParse(data);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0];
  throw fileError(`${where}: ${path.length === 0 ? 'record' : path.join('.')}: ${message}`, parsed.error);
}

function replayCase(machine: LayoutCase, where: string, mismatches: LayoutMismatch[]): void {
  const iomem = rebuildMap(machine, where);
  const placed = new Map<string, Resource[]>();
  for (const [index, request] of machine.requests.entries()) {
    const { name } = request;
    const regions = placed.get(name) ?? [];
    if (request.op === 'release') {
      for (const region of regions) iomem.releaseMemRegion(region);
      placed.delete(name);
      continue;
    }
    const region = iomem.requestFreeMemRegion(request.bytes, name);
    if (typeof region !== 'string') placed.set(name, [...regions, region]);
    const answer = answerOf(region);
    if (!agree(answer, request.result)) {
      mismatches.push({ case: machine.name, request: index, expected: say(request.result), actual: say(answer) });
    }
  }
}

function rebuildMap(machine: LayoutCase, where: string): ResourceTree {
  const iomem = new ResourceTree({
    physBits: machine.physBits,
    maxPhysmemBits: machine.maxPhysmemBits,
    rootEnd: machine.iomemResourceEnd,
    directMapEnd: machine.directMapPhysmemEnd,
    sectionSize: machine.sectionBytes,
  });
  for (const { depth, ...entry } of machine.iomemBefore) {
    if (depth > 0) continue;
    if (typeof iomem.insert(entry) === 'string') {
      throw fileError(`${where}: iomemBefore: ${say(entry)} (${entry.name}) overlaps another entry or leaves the map`);
    }
  }
  return iomem;
}

const answerOf = (region: Resource | Errno): Answer => (typeof region === 'string' ? { error: region } : region);

function agree(actual: Answer, recorded: Answer): boolean {
  if ('error' in actual || 'error' in recorded) return 'error' in actual && 'error' in recorded;
  return actual.start === recorded.start && actual.end === recorded.end;
}

function say(answer: Answer): string {
  if ('error' in answer) return `refused (${answer.error})`;
  return `0x${answer.start.toString(16)}-0x${answer.end.toString(16)}`;
}

const fileError = (message: string, cause?: unknown): PfnlessError =>
  new PfnlessError('ERR_PFNLESS_FILE', message, { cause });
