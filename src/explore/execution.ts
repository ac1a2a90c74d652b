/**
 * One execution of a program on a world: set up in the tame order, explored while the tasks run, then settled, looked at by every
 * checker, read back, and taken down until nothing is left.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { assert } from '../base/errors.js';
import { ALL_CHECKERS } from '../check/boot.js';
import { failedPages, ramUse } from '../check/ram.js';
import { SharedFindings } from '../machine/state.js';
import { troubleOf } from '../machine/trouble.js';
import { createFile } from '../mm/file.js';
import { vmFilePut } from '../mm/filemap.js';
import { forkMm } from '../mm/fork.js';
import { createMm } from '../mm/mm-struct.js';
import { doMmap } from '../mm/mmap.js';
import { copyFromUser } from '../mm/uaccess.js';
import type { VmFile } from '../mm/vma.js';
import { NoProgress } from '../sched/explore/stepper.js';
import type { Strategy } from '../sched/explore/strategy.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';
import { printCall } from '../workload/program/print.js';
import { type Call, INIT, type Outcome, type Task } from '../workload/program/program.js';
import { type CallResult, perform } from './calls.js';
import { linearizable } from './history.js';
import { History, type Plan, type ProcessPlan } from './plan.js';
import { addressOf, Subject } from './subject.js';
import type { World } from './world.js';

/** Steps after which an execution counts as one without end. */
export const STEPS_MAX = 20_000;

/**
 * CPU faults for each page of each call after which somebody counts as starved, although all came to an end: who races others for a page gets it
 * within a few tries, or the rule by which they race is wrong (1afaeb8293c9: 32,000 tries).
 */
const FAULTS_PER_PAGE_MAX = 64;

/** Room for a page that is read back: one for all, as nobody reads two at a time. */
const READ_BACK = pageBuffer();

function pageBuffer(): { readonly page: Uint8Array; readonly words: Uint32Array } {
  const page = new Uint8Array(PAGE_SIZE);
  return { page, words: new Uint32Array(page.buffer) };
}

/** What must hold whenever a task stops. */
const ALWAYS = ALL_CHECKERS.filter(({ always }) => always);

/** What is wrong: the rule that was broken, and how. */
export interface Finding {
  readonly invariant: string;
  readonly message: string;
}

/** Something that a thread did, for people. */
export interface TraceEntry {
  readonly thread: string;
  readonly text: string;
}

export interface ExecutionResult {
  readonly finding: Finding | null;
  /** Results of calls, by their names. */
  readonly results: Readonly<Record<string, CallResult>>;
  readonly steps: number;
  /** Faults of CPUs, and CPU accesses that the program made. */
  readonly cpuFaults: number;
  readonly accesses: number;
}

export class Execution {
  readonly #world: World;
  readonly #plan: Plan;
  readonly #history: History;
  readonly #subjects: Subject[] = [];
  readonly #results: Record<string, CallResult> = {};
  readonly #trace: ((entry: TraceEntry) => void) | null;
  #file: VmFile | null = null;
  #accesses = 0;
  #pagesAsked = 0;

  constructor(world: World, plan: Plan, trace: ((entry: TraceEntry) => void) | null = null) {
    this.#world = world;
    this.#plan = plan;
    this.#history = new History(plan.locations.length);
    this.#trace = trace;
  }

  /** After a finding the world is of no use any more. What is no finding is thrown: a bug of pfnless, or a schedule that does not fit. */
  run(strategy: Strategy): ExecutionResult {
    const { stepper, state } = this.#world;
    const faultsBefore = state.kernel.stats.cpuFaults;
    let steps = 0;
    let cpuFaults = 0;
    let finding: Finding | null = null;
    try {
      this.#setUp();
      const before = stepper.steps;
      try {
        this.#explore(strategy);
      } finally {
        steps = stepper.steps - before;
        // Before anybody looks at what has become of the memory, and faults too.
        cpuFaults = state.kernel.stats.cpuFaults - faultsBefore;
      }
      finding = this.#settle() ?? this.#judge() ?? this.#starved(cpuFaults);
    } catch (error) {
      finding = findingOf(error, this.#world.forgetful);
    }
    return { finding, results: this.#results, steps, cpuFaults, accesses: this.#accesses };
  }

  #setUp(): void {
    const world = this.#world;
    const { program, processes } = this.#plan;
    world.reset(program.deviceMemory);
    world.environment.onPause = this.#trace === null ? null : (thread, why) => this.#tell(thread, why);
    const { kernel } = world.state;
    if (this.#plan.hasFile) this.#file = createFile(kernel, new Uint8Array(0), program.pages * PAGE_SIZE);
    for (const process of processes) if (!process.forked) world.stepper.spawn('set up', this.#begin(process));
    world.stepper.drive(STEPS_MAX, 'rest');
    if (program.init.length === 0) return;
    world.stepper.spawn(INIT, this.#calls(processes[0]!, { name: INIT, calls: program.init }));
    world.stepper.drive(STEPS_MAX, 'rest');
  }

  *#begin(process: ProcessPlan): Sleeps<void> {
    const { kernel } = this.#world.state;
    const mm = createMm(kernel, process.index + 1);
    assert(mm !== undefined, 'no RAM for a process');
    const subject = new Subject(this.#world.state, process.index, process.family, mm, this.#file);
    this.#subjects[process.index] = subject;
    const length = this.#plan.program.pages * PAGE_SIZE;
    yield* doMmap(kernel, mm, { addr: addressOf(0), length, prot: 'rw', fixed: true });
    for (const device of process.devices) yield* subject.open(device);
  }

  #explore(strategy: Strategy): void {
    const { stepper, environment } = this.#world;
    const { program, processes } = this.#plan;
    this.#world.onTaskStep = () => this.#lookAlways();
    environment.explore(strategy, program.failNth);
    stepper.decideBy(strategy);
    for (const process of processes) if (!process.forked) this.#spawn(process);
    stepper.drive(STEPS_MAX);
    stepper.decideBy(null);
    environment.explore(null);
    this.#world.onTaskStep = null;
    strategy.end?.();
  }

  #spawn(process: ProcessPlan): void {
    const { stepper, environment } = this.#world;
    for (const task of process.tasks) {
      const thread = stepper.spawn(task.name, this.#calls(process, task));
      environment.addTask(thread, process);
    }
  }

  *#calls(process: ProcessPlan, { name, calls }: Task): Sleeps<void> {
    const { stepper, environment, state } = this.#world;
    const cpu = environment.hasCpus && name !== INIT ? this.#world.addCpu() : null;
    const subject = this.#subjects[process.index]!;
    const history = this.#history;
    for (const [at, call] of calls.entries()) {
      if (at > 0 && stepper.preempt()) yield SCHEDULE_POINT;
      this.#trace?.({ thread: name, text: printCall(call) });
      const begin = history.tick();
      this.#pagesAsked += 1 + (call.last ?? 0) - (call.last === undefined ? 0 : call.page!);
      if (call.failNth !== undefined) environment.failNth(call.failNth);
      const child = call.op === 'fork' ? this.#childOf(call) : null;
      const result =
        child === null ? yield* perform(state.kernel, subject, name, call, cpu) : yield* this.#fork(subject, child);
      if (call.failNth !== undefined) environment.endCall();
      history.begin = begin;
      history.end = history.tick();
      this.#plan.record(history, process, call, result, result === 0 ? child : null);
      if (call.op === 'load' || call.op === 'store') this.#accesses++;
      if (call.into !== undefined) this.#results[call.into] = result;
      this.#trace?.({ thread: name, text: `  = ${result}` });
      this.#require(call, result);
    }
    // Nobody holds plain references for ever, and checkers cannot know of them: nothing in memory says who has them.
    subject.letGo(false, name);
  }

  /** Failures that nothing in the program can cause. */
  #require(call: Call, result: CallResult): void {
    const { failures, poisons } = this.#plan;
    if (failures || !(result === 'OOM' || (result === 'SIGBUS' && !poisons))) return;
    throw new Found({ invariant: 'no-spurious-failure', message: `${printCall(call)} got ${result} for no reason` });
  }

  #childOf(call: Call): ProcessPlan {
    return this.#plan.processes.find(({ tasks }) => tasks[0]?.name === call.child)!;
  }

  *#fork(parent: Subject, process: ProcessPlan): Sleeps<CallResult> {
    const { state } = this.#world;
    const mm = yield* forkMm(state.kernel, parent.mm, process.index + 1);
    if (mm === undefined) return 'ENOMEM';
    this.#subjects[process.index] = new Subject(state, process.index, process.family, mm, this.#file);
    this.#spawn(process);
    return 0;
  }

  /** Nothing is in flight any more: everything must hold, every byte reads back, nothing is left. */
  #settle(): Finding | null {
    const { stepper, state } = this.#world;
    stepper.drive(STEPS_MAX, 'rest');
    return (
      this.#check('at rest') ??
      this.#readBack() ??
      this.#takeDown(() => {
        const { kernel, devices } = state;
        if (kernel.mms.size > 0) return `${kernel.mms.size} processes are left`;
        const used = devices.find(({ driver }) => driver.stats().usedPages !== 0);
        if (used !== undefined) return `${used.driver.stats().usedPages} pages of ${used.spec.name} are in use`;
        // What has failed is not free again: the world gives it back before the next execution.
        const failed = [...failedPages(kernel)].filter((page) => ramUse(kernel, page) !== 'reserved').length;
        const lost = this.#world.freeAtStart - kernel.buddy.freePagesCount - failed;
        if (lost !== 0) return `${lost} frames of RAM are not free again`;
        const { swap } = kernel;
        if (swap.free !== swap.total) return `${swap.total - swap.free} pages of swap are in use`;
        for (const { id } of kernel.anonVmas) return `anon_vma ${id} is left`;
        return null;
      })
    );
  }

  #check(when: 'between steps' | 'at rest'): Finding | null {
    const shared = new SharedFindings(when);
    for (const { invariant, look } of when === 'at rest' ? ALL_CHECKERS : ALWAYS) {
      for (const message of look(this.#world.state, shared)) return { invariant, message };
    }
    return null;
  }

  /** What devices do breaks nothing that is looked at here; if it did, the next look would see it. */
  #lookAlways(): void {
    const finding = this.#check('between steps');
    if (finding !== null) throw new Found(finding);
  }

  #readBack(): Finding | null {
    const { stepper } = this.#world;
    let finding: Finding | null = null;
    for (const process of this.#plan.processes) {
      const subject = this.#subjects[process.index];
      if (subject === undefined || subject.gone) continue;
      stepper.spawn(
        'read back',
        this.#readPages(process, subject, (found) => (finding ??= found)),
      );
      stepper.drive(STEPS_MAX);
    }
    return finding;
  }

  *#readPages(process: ProcessPlan, { mm }: Subject, report: (finding: Finding) => void): Sleeps<void> {
    const { kernel } = this.#world.state;
    const history = this.#history;
    const used = this.#plan.offsetsOf(process.family);
    const { page: out, words } = READ_BACK;
    for (const page of this.#plan.watched) {
      history.begin = history.tick();
      const { fault } = yield* copyFromUser(kernel, mm, addressOf(page), out);
      history.end = history.tick();
      this.#plan.recordPage(history, process, page, fault === 0 ? words : null);
      if (fault !== 0) continue;
      for (let word = 0; word < words.length; word++) {
        if (words[word] === 0 || used.includes(4 * word)) continue;
        const message = `page ${page} of process ${process.index + 1} holds 0x${words[word]!.toString(16)} at byte ${4 * word}, where nobody stored`;
        report({ invariant: 'every-byte-reads-back', message });
        return;
      }
    }
  }

  #takeDown(leftOver: () => string | null): Finding | null {
    const { stepper } = this.#world;
    for (const subject of this.#subjects) {
      if (subject === undefined || subject.gone) continue;
      stepper.spawn('exit', subject.exit());
      stepper.drive(STEPS_MAX);
    }
    if (this.#file !== null) vmFilePut(this.#world.state.kernel, this.#file);
    stepper.drive(STEPS_MAX, 'rest');
    const left = leftOver();
    return left === null ? null : { invariant: 'nothing-left', message: left };
  }

  /** Could memory have answered so, and is it one of the outcomes that the program allows? */
  #judge(): Finding | null {
    const { locations, program } = this.#plan;
    for (const [index, { initial, pages, offset }] of locations.entries()) {
      const events = this.#history.eventsOf(index);
      if (linearizable(events, initial)) continue;
      const where = `page ${pages.join(', ')}${offset === 0 ? '' : `+${offset}`}`;
      const what = events.map(({ text, effect }) => `${text}${'value' in effect ? ` ${effect.value}` : ''}`).join(', ');
      return { invariant: 'last-writer', message: `no order of calls explains what was found at ${where}: ${what}` };
    }
    const { allowed, forbidden } = program;
    const matches = (outcome: Outcome): boolean =>
      Object.entries(outcome).every(([name, value]) => this.#results[name] === value);
    const text = Object.entries(this.#results).map(([name, value]) => `${name}=${value}`);
    if (forbidden.some(matches)) return { invariant: 'outcome', message: `${text.join(' ')} is forbidden` };
    if (allowed.length > 0 && !allowed.some(matches)) {
      return { invariant: 'outcome', message: `${text.join(' ')} is not allowed` };
    }
    return null;
  }

  #starved(cpuFaults: number): Finding | null {
    if (cpuFaults <= FAULTS_PER_PAGE_MAX * this.#pagesAsked) return null;
    return { invariant: 'starvation', message: `calls for ${this.#pagesAsked} pages took ${cpuFaults} CPU faults` };
  }

  #tell(thread: number, why: string): void {
    this.#trace?.({ thread: this.#world.stepper.nameOf(thread), text: why });
  }
}

/** A finding on the way. */
class Found extends Error {
  readonly finding: Finding;

  constructor(finding: Finding) {
    super(finding.message);
    this.finding = finding;
  }
}

/**
 * @param forgetful the kernel has forgotten something, so nothing that goes wrong is a bug of pfnless
 * @throws what is none
 */
export function findingOf(error: unknown, forgetful: boolean): Finding {
  if (error instanceof Found) return error.finding;
  if (error instanceof NoProgress) return { invariant: error.kind, message: error.message };
  const trouble = troubleOf(error, forgetful);
  if (!(error instanceof Error) || (trouble !== 'broken' && trouble !== 'oops')) throw error;
  if (trouble === 'broken') return { invariant: 'assertion', message: error.message };
  return { invariant: 'oops', message: `${error.name}: ${error.message}` };
}
