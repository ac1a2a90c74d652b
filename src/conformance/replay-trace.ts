/**
 * Replay of golden traces (`pfnless conform`): every operation that a real kernel was recorded doing is done here, and
 * every recorded result and the whole state after it must be the same.
 *
 * One machine replays many traces of recorders that were alike: after each everything exits, and as much memory must be free as
 * before. A trace that diverged, or left something behind, costs the machine its place: the next one gets a new one. The checkers,
 * who look at every struct page, look at the end.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { VirtAddr } from '../base/brand.js';
import { PfnlessError } from '../base/errors.js';
import { ALL_CHECKERS } from '../check/boot.js';
import { type BootedMachine, bootWithState } from '../machine/boot.js';
import type { MachineState } from '../machine/state.js';
import type { Addressing, ExecutorKind, Violation } from '../machine/types.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import type { Sleeps } from '../sync/task.js';
import { compareFields, compareState, type Difference, type Fields } from './compare.js';
import { explain } from './explain.js';
import { describePage } from './page-state.js';
import type { Trace, TraceOperation } from './trace.js';
import { TraceSession } from './trace-session.js';
import { type Arena, ProcessView } from './trace-state.js';

/** One operation whose outcome differs: its first differing field. */
export interface Divergence {
  readonly trace: string;
  readonly line: number;
  readonly op: string;
  readonly field: string;
  readonly expected: string;
  readonly actual: string;
  /** Further fields of the operation that differ. */
  readonly alsoDiffers: readonly string[];
  /** The page that the field is about: VMA, entry decoded, struct page, device mappings. */
  readonly page: readonly string[];
  /** What most probably was missed, with the number of the fact about the real kernel; `null` if nothing comes to mind. */
  readonly explanation: string | null;
}

export interface TraceReport {
  readonly trace: string;
  /** Operations in the file, and how many were replayed. */
  readonly recorded: number;
  readonly operations: number;
  readonly divergences: readonly Divergence[];
}

export interface ReplayOptions {
  readonly addressing: Addressing;
  readonly executor: ExecutorKind;
  /** Go on after the first divergence of a trace. */
  readonly all: boolean;
}

export class TraceReplayer {
  readonly #options: ReplayOptions;
  #booted: BootedMachine | null = null;
  /** On machines of before. */
  readonly #found: Violation[] = [];
  /** What the machine that is booted is like. */
  #recorder = '';

  constructor(options: ReplayOptions) {
    this.#options = options;
  }

  /** Have a machine for a trace. `replay` does it too: this is for who measures replay alone. */
  async prepare(trace: Trace): Promise<BootedMachine> {
    const recorder = recorderOf(trace);
    if (this.#recorder !== recorder) {
      this.#found.push(...(await this.#checkMachine()));
      await this.dispose();
    }
    this.#recorder = recorder;
    this.#booted ??= await bootMachineFor(trace, this.#options);
    return this.#booted;
  }

  /** What is thrown and is not the kernel's answer becomes a divergence of its operation. */
  async replay(trace: Trace): Promise<TraceReport> {
    const booted = await this.prepare(trace);
    const run = new TraceRun(booted.state, trace, this.#options.all);
    await run.replay();
    const { operations, divergences } = run;
    if (divergences.length > 0) await this.#discard();
    return { trace: trace.file, recorded: trace.lines.length, operations, divergences };
  }

  /** What the checkers find on the machines that replayed all these traces. To be asked before `dispose`. */
  async check(): Promise<readonly Violation[]> {
    return [...this.#found, ...(await this.#checkMachine())];
  }

  async dispose(): Promise<void> {
    const booted = this.#booted;
    this.#booted = null;
    await booted?.machine.dispose().catch(() => {});
  }

  async #checkMachine(): Promise<readonly Violation[]> {
    return (await this.#booted?.machine.check()) ?? [];
  }

  /** A machine that is not what it should be: it may not even be able to end in order. */
  async #discard(): Promise<void> {
    const over = new PfnlessError('ERR_PFNLESS_DISPOSED', 'the machine diverged from the trace');
    this.#booted?.state.executor.stop(over);
    await this.dispose();
  }
}

/**
 * What the kernels that were recorded (7.2, 7.3-rc) and their test driver forget themselves, by their source: a device that asks for the
 * middle of its own huge page is told of its beginning, and the recorder writes down what it read there; and what a device writes does not
 * become dirty. A machine of its own forgets neither.
 */
const FORGOTTEN = ['absent-pmd-offset', 'driver-marks-dirty'] as const;

/** Traces of which this is the same may share a machine. */
const recorderOf = ({ header }: Trace): string => JSON.stringify([header.devices, header.swap_pages ?? 0]);

/** As the recorder's guest: private devices that grow by 256 MiB, and a kernel with the mistakes of its day. */
function bootMachineFor({ header }: Trace, { addressing, executor }: ReplayOptions): Promise<BootedMachine> {
  const devices = header.devices.map((device, index) => {
    const memory = { name: `hmm_dmirror${index}`, memory: 256 * 2 ** 20 };
    return device.endsWith(':coherent')
      ? { ...memory, type: 'coherent' as const }
      : { ...memory, chunk: 256 * 2 ** 20 };
  });
  const memory = { ram: 256 * 2 ** 20, physicalBits: 40 };
  const swap = header.swap_pages ? [header.swap_pages * PAGE_SIZE] : [];
  return bootWithState(
    { name: 'conform', addressing, executor, memory, swap, devices, forget: FORGOTTEN },
    ALL_CHECKERS,
  );
}

/** One trace on one machine: one task, from the first process to the last exit. */
class TraceRun {
  operations = 0;
  readonly divergences: Divergence[] = [];
  readonly #state: MachineState;
  readonly #trace: Trace;
  readonly #all: boolean;
  readonly #arena: Arena;
  /** Frames that are free, or will never be again. */
  readonly #freePages: number;
  #session: TraceSession | null = null;
  /** The parent's, and the child's while it lives. */
  #views: ProcessView[] = [];
  /** Observers outlive their process. */
  readonly #opened: ProcessView[] = [];
  /** What is being done. */
  #at: { readonly line: number; readonly op: string; readonly page: number | null };

  constructor(state: MachineState, trace: Trace, all: boolean) {
    const { arena_base, arena_pages } = trace.header;
    this.#state = state;
    this.#trace = trace;
    this.#all = all;
    this.#arena = { base: arena_base as VirtAddr, pages: arena_pages };
    this.#freePages = freeOrFailed(state.kernel);
    this.#at = { line: 1, op: 'start', page: null };
  }

  /** @throws PfnlessError ERR_PFNLESS_DISPOSED when the machine ended meanwhile */
  async replay(): Promise<void> {
    try {
      await this.#state.executor.run(`replay of ${this.#trace.file}`, this.#run());
    } catch (error) {
      if (error instanceof PfnlessError && error.code === 'ERR_PFNLESS_DISPOSED') throw error;
      const actual = error instanceof Error ? error.message : String(error);
      this.#diverged([{ field: 'error', expected: 'an answer', actual, page: this.#at.page }]);
    }
  }

  *#run(): Sleeps<void> {
    const session = new TraceSession(this.#state, this.#trace.header);
    this.#session = session;
    yield* session.begin();
    this.#views = [this.#observe(session.parent.mm)];
    for (const { line, operation } of this.#trace.lines) {
      this.#at = { line, op: operation.op, page: 'pg' in operation ? operation.pg : null };
      const differences = yield* this.#step(session, operation);
      this.operations++;
      if (differences.length === 0) continue;
      this.#diverged(differences);
      if (!this.#all) return;
    }
    if (this.divergences.length === 0) yield* this.#end(session);
  }

  /** Do one operation and compare everything. */
  *#step(session: TraceSession, operation: TraceOperation): Sleeps<readonly Difference[]> {
    const found: Difference[] = [];
    const answer = yield* session.execute(operation);
    for (const { link } of this.#state.devices) if (link.lost !== null) throw link.lost;
    compareFields(operation, answer, this.operations, found);
    const { child } = session;
    if (child === null) this.#views.length = 1;
    else if (this.#views.length === 1) this.#views.push(this.#observe(child.mm));
    for (const view of this.#views) yield* view.look();
    this.#readLog(operation, answer, found);
    const { seriesApplied } = this.#state.kernel;
    compareState('st0', operation.st0, this.#views[0]!, seriesApplied, found);
    compareState('st1', operation.st1, this.#views[1] ?? null, seriesApplied, found);
    return found;
  }

  /** What the kernel warned of: nothing, if the recorded one had no reason to. */
  #readLog(operation: TraceOperation, answer: Readonly<Fields>, found: Difference[]): void {
    const { log } = this.#state;
    if (log.length === 0) return;
    const warnings = log.splice(0).join('; ');
    // A device's write to a page that only copy-on-write could make writable is a WARN in Linux, too (fact 17).
    if (operation.op === 'dev_write' && answer.errno === 'EFAULT') return;
    found.push({ field: 'kernel log', expected: 'no warning', actual: warnings, page: null });
  }

  #observe(mm: MmStruct): ProcessView {
    const view = new ProcessView(this.#state, mm, this.#arena, this.#trace.header.trace === 'hmmrec-2');
    this.#opened.push(view);
    return view;
  }

  /** Everything exits; what is left over is a divergence of the trailer. */
  *#end(session: TraceSession): Sleeps<void> {
    this.#at = { line: this.#trace.lines.length + 2, op: 'end', page: null };
    for (const view of this.#opened) yield* view.close();
    yield* session.end();
    const left = this.#leftovers(this.#state);
    if (left !== null) this.#diverged([{ field: 'leftovers', expected: 'nothing', actual: left, page: null }]);
    // Pages of devices remember some of earlier users: a trace has none before its own.
    else for (const { driver } of this.#state.devices) driver.reset?.(Infinity);
  }

  /** What is not as it was before the trace; `null` if all is. */
  #leftovers({ kernel, devices, log }: MachineState): string | null {
    const lost = this.#freePages - freeOrFailed(kernel);
    if (lost !== 0) return `${lost} frames of RAM are not free again`;
    if (kernel.mms.size > 0) return `${kernel.mms.size} address spaces`;
    for (const { driver, spec } of devices) {
      const { usedPages } = driver.stats();
      if (usedPages > 0) return `${usedPages} pages in use on ${spec.name}`;
    }
    return log.length > 0 ? `in the kernel log: ${log.join('; ')}` : null;
  }

  #diverged([first, ...others]: readonly Difference[]): void {
    const { field, expected, actual, page } = first!;
    const { line, op } = this.#at;
    this.divergences.push({
      trace: this.#trace.file,
      line,
      op,
      field,
      expected,
      actual,
      alsoDiffers: others.map((other) => `${other.field}: expected ${other.expected}, got ${other.actual}`),
      page: this.#pageText(field, page),
      explanation: explain({ op, field, expected, actual, firstDeviceType: this.#firstDeviceType() }),
    });
  }

  #firstDeviceType(): number {
    const { swapTypes } = this.#state.kernel.addressing;
    return swapTypes.kindOf.indexOf('device-private-write');
  }

  #pageText(field: string, page: number | null): string[] {
    if (page === null || this.#session === null) return [];
    const view = this.#views[field.startsWith('st1') ? 1 : 0];
    return view === undefined ? [] : describePage(this.#state, view.mm, this.#session.addressOf(page));
  }
}

/** Frames that are free, and those that have failed: but for the zero page, which was not free before. */
const freeOrFailed = ({ buddy, memoryFailures, zeroPage }: Kernel): number =>
  buddy.freePagesCount + memoryFailures.held.size - (memoryFailures.held.has(zeroPage) ? 1 : 0);
