/**
 * Replay of golden traces (`pfnless conform`): every operation that a real kernel was recorded doing is done here, and
 * every recorded result and the whole state after it must be the same.
 *
 * One machine replays many traces: after each everything exits, and as much memory must be free as before. A trace that
 * diverged, or left something behind, costs the machine its place: the next one gets a new one. The checkers, who look at
 * every struct page, look at the end.
 */
import { PfnlessError } from '../base/errors.js';
import { ALL_CHECKERS } from '../check/boot.js';
import type { DriverMirror } from '../drivers/driver.js';
import { type BootedMachine, bootWithState } from '../machine/boot.js';
import type { MachineState } from '../machine/state.js';
import type { Addressing, ExecutorKind, Process, Violation } from '../machine/types.js';
import type { MmStruct } from '../mm/mm-struct.js';
import type { Sleeps } from '../sync/task.js';
import { compareFields, compareState, type Difference, type ObservedState } from './compare.js';
import { describePage } from './page-state.js';
import type { Trace, TraceLine } from './trace.js';
import { TraceSession } from './trace-session.js';
import { type Observed, observeState } from './trace-state.js';

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
}

export interface TraceReport {
  readonly trace: string;
  /** Operations in the file, and how many were replayed. */
  readonly recorded: number;
  readonly operations: number;
  readonly divergences: readonly Divergence[];
  /** Why the trace cannot be replayed at all; `null` if it can. */
  readonly unsupported: string | null;
}

export interface ReplayOptions {
  readonly addressing: Addressing;
  readonly executor: ExecutorKind;
  /** Go on after the first divergence of a trace. */
  readonly all: boolean;
}

/** Traces of a kernel without the series have swap types 28, 29, 30; with it they are 25, 26, 27 (TRACE_FORMAT.md). */
const SERIES_TYPE_SHIFT = 3;
const FIRST_DEVICE_TYPE = 28;
const SWAP_FORMAT = 2;

export class TraceReplayer {
  readonly #options: ReplayOptions;
  #booted: BootedMachine | null = null;

  constructor(options: ReplayOptions) {
    this.#options = options;
  }

  /** @throws InvariantViolation or any error that is not the kernel's answer becomes a divergence of its operation */
  async replay(trace: Trace): Promise<TraceReport> {
    const report = { trace: trace.file, recorded: trace.lines.length, operations: 0, unsupported: whyNot(trace) };
    const divergences: Divergence[] = [];
    if (report.unsupported !== null) return { ...report, divergences };
    this.#booted ??= await bootMachineFor(trace, this.#options);
    const run = new TraceRun(this.#booted, trace);
    try {
      await run.start();
      for (const line of trace.lines) {
        report.operations++;
        const { divergence, fatal } = await run.step(line);
        if (divergence !== null) divergences.push(divergence);
        if (fatal || (divergence !== null && !this.#options.all)) break;
      }
      if (divergences.length === 0) divergences.push(...(await run.end()));
    } finally {
      if (divergences.length > 0) await this.dispose();
    }
    return { ...report, divergences };
  }

  /** What the checkers find on the machine that replayed all these traces. To be asked before `dispose`. */
  async check(): Promise<readonly Violation[]> {
    if (this.#booted === null) return [];
    return this.#booted.machine.check();
  }

  async dispose(): Promise<void> {
    const booted = this.#booted;
    this.#booted = null;
    await booted?.machine.dispose().catch(() => {});
  }
}

/** One sentence about what the trace needs and nobody has; `null` if all is there. */
function whyNot(_trace: Trace): string | null {
  return null;
}

/** As the recorder's guest: private devices that grow by 256 MiB. */
function bootMachineFor({ header }: Trace, { addressing, executor }: ReplayOptions): Promise<BootedMachine> {
  const devices = header.devices.map((_, index) => ({
    name: `hmm_dmirror${index}`,
    memory: 256 * 2 ** 20,
    chunk: 256 * 2 ** 20,
  }));
  const memory = { ram: 256 * 2 ** 20, physicalBits: 40 };
  return bootWithState({ name: 'conform', addressing, executor, memory, devices }, ALL_CHECKERS);
}

/** One trace on one machine. */
class TraceRun {
  readonly #booted: BootedMachine;
  readonly #trace: Trace;
  #session!: TraceSession;
  readonly #observed = new Map<Process, Observed>();
  readonly #freePages: number;
  #count = 0;

  constructor(booted: BootedMachine, trace: Trace) {
    this.#booted = booted;
    this.#trace = trace;
    this.#freePages = booted.state.kernel.buddy.freePagesCount;
  }

  async start(): Promise<void> {
    this.#session = await TraceSession.start(this.#booted.machine, this.#trace.header);
    await this.#observe(this.#session.parent.process);
  }

  /** Do one operation and compare everything. `fatal`: there is no going on. */
  async step({ line, operation }: TraceLine): Promise<{ divergence: Divergence | null; fatal: boolean }> {
    const firstPage = 'pg' in operation ? operation.pg : null;
    try {
      const actual = await this.#session.execute(operation);
      const { child } = this.#session;
      if (child !== null && !this.#observed.has(child.process)) await this.#observe(child.process);
      const recorded = recordedFields(operation);
      const differences = compareFields(
        recorded,
        { ...argumentsOf(operation), ...actual, i: this.#count++ },
        firstPage,
      );
      const [st0, st1] = await this.#states();
      differences.push(...compareState('st0', operation.st0, st0, this.#expectPm));
      differences.push(...compareState('st1', operation.st1, st1, this.#expectPm));
      return { divergence: this.#divergence(line, operation.op, differences), fatal: false };
    } catch (error) {
      if (error instanceof PfnlessError && error.code === 'ERR_PFNLESS_DISPOSED') throw error;
      const [problem = ''] = error instanceof Error ? [error.message] : [String(error)];
      const difference = { field: 'error', expected: 'an answer', actual: problem, page: firstPage };
      return { divergence: this.#divergence(line, operation.op, [difference]), fatal: true };
    }
  }

  /** Everything exits; what the checkers find is a divergence of the trailer. */
  async end(): Promise<Divergence[]> {
    const { state } = this.#booted;
    const line = this.#trace.lines.length + 2;
    try {
      for (const { observers } of this.#observed.values()) {
        for (const observer of observers) await state.executor.run('close observer', observer.close());
      }
      await this.#session.end();
      const left = this.#leftovers(state);
      if (left === null) return [];
      return [this.#found(line, 'end', { field: 'leftovers', expected: 'nothing', actual: left, page: null }, [])];
    } catch (error) {
      const actual = error instanceof Error ? error.message : String(error);
      return [this.#found(line, 'end', { field: 'error', expected: 'an orderly end', actual, page: null }, [])];
    }
  }

  /** What is not as it was before the trace; `null` if all is. */
  #leftovers({ kernel, devices, log }: MachineState): string | null {
    const lost = this.#freePages - kernel.buddy.freePagesCount;
    if (lost !== 0) return `${lost} frames of RAM are not free again`;
    if (kernel.mms.size > 0) return `${kernel.mms.size} address spaces`;
    for (const { driver, spec } of devices) {
      const { usedPages } = driver.stats();
      if (usedPages > 0) return `${usedPages} pages in use on ${spec.name}`;
    }
    // A device's write to a page that only copy-on-write could make writable is a WARN in Linux too.
    log.length = 0;
    return null;
  }

  /** As the recorder: a mirror on each device that is opened for snapshots alone, and outlives the process. */
  async #observe(process: Process): Promise<void> {
    const { state } = this.#booted;
    const mm = mmOf(this.#booted, process);
    const observers: DriverMirror[] = [];
    for (const { driver, spec } of state.devices) {
      observers.push(await state.executor.run(`observe ${spec.name}`, driver.open(mm, { onFault: 'mirror' })));
    }
    this.#observed.set(process, { mm, observers });
  }

  #states(): Promise<readonly [ObservedState, ObservedState | null]> {
    const { state } = this.#booted;
    const { parent, child } = this.#session;
    const arena = { base: this.#session.addressOf(0), pages: this.#trace.header.arena_pages };
    const first = this.#observed.get(parent.process)!;
    const second = child === null ? null : this.#observed.get(child.process)!;
    function* look(): Sleeps<readonly [ObservedState, ObservedState | null]> {
      const st0 = yield* observeState(state, first, arena);
      return [st0, second === null ? null : yield* observeState(state, second, arena)];
    }
    return state.executor.run('observe', look());
  }

  readonly #expectPm = (value: number): number => {
    if (!this.#booted.state.kernel.seriesApplied || value < 0) return value;
    const type = value >> 8;
    return (value & SWAP_FORMAT) !== 0 && type >= FIRST_DEVICE_TYPE ? value - (SERIES_TYPE_SHIFT << 8) : value;
  };

  #divergence(line: number, op: string, differences: readonly Difference[]): Divergence | null {
    const [first, ...others] = differences;
    if (first === undefined) return null;
    return this.#found(
      line,
      op,
      first,
      others.map(({ field, expected, actual }) => `${field}: expected ${expected}, got ${actual}`),
    );
  }

  #found(line: number, op: string, difference: Difference, alsoDiffers: readonly string[]): Divergence {
    const { field, expected, actual, page } = difference;
    return {
      trace: this.#trace.file,
      line,
      op,
      field,
      expected,
      actual,
      alsoDiffers,
      page: this.#pageText(field, page),
    };
  }

  #pageText(field: string, page: number | null): string[] {
    if (page === null) return [];
    const { parent, child } = this.#session;
    const party = field.startsWith('st1') && child !== null ? child : parent;
    const mm = this.#observed.get(party.process)?.mm;
    if (mm === undefined) return [];
    return describePage(this.#booted.state, mm, this.#session.addressOf(page));
  }
}

function mmOf({ state }: BootedMachine, { pid }: Process): MmStruct {
  for (const mm of state.kernel.mms) if (mm.pid === pid) return mm;
  throw new Error(`process ${pid} has no address space`);
}

type Recorded = Readonly<Record<string, unknown>>;

/** All fields but the states. */
function recordedFields({ st0: _, st1: __, ...fields }: TraceLine['operation']): Recorded {
  return fields;
}

/** Fields that say what to do: they are taken at their word, unless the session knows better. */
const ARGUMENTS = ['proc', 'op', 'slot', 'dev', 'pg', 'n', 'kind', 'advice', 'dst', 'write'] as const;

function argumentsOf(operation: TraceLine['operation']): Recorded {
  const recorded: Recorded = operation;
  const fields: Record<string, unknown> = {};
  for (const name of ARGUMENTS) if (name in recorded) fields[name] = recorded[name];
  if (operation.op === 'mmap' || operation.op === 'mprotect') fields.prot = operation.prot;
  return fields;
}
