/** A program made ready to run many times: its processes, and which words of memory each of its calls touches. */
import {
  type Call,
  FAILING_INJECTIONS,
  type Program,
  type Protection,
  type Task,
} from '../workload/program/program.js';
import { processesOf } from '../workload/program/validate.js';
import type { CallResult } from './calls.js';
import {
  type Effect,
  freshState,
  type HistoryEvent,
  NO_ACCESS,
  OBJECT_STATE,
  READ,
  READ_WRITE,
  type SlotKind,
  slotsOf,
} from './history.js';

/** In arenas up to this size every page is watched; in larger ones, those that calls name. */
const WATCH_ALL_PAGES = 16;

const ACCESS: Readonly<Record<Protection, number>> = { none: NO_ACCESS, r: READ, rw: READ_WRITE };

export interface ProcessPlan {
  readonly index: number;
  /** Of itself and the processes that it shares memory with: those that it was forked from, and with a file all. */
  readonly family: number;
  readonly forked: boolean;
  readonly tasks: readonly Task[];
  /** Devices that its calls name. */
  readonly devices: readonly number[];
  /** Slot of its first watched page in each word of its family. */
  readonly firstSlot: number;
}

/** Watched words at one offset of pages that are connected by mremap: one memory in the sense of history.ts. */
interface Location {
  readonly family: number;
  readonly offset: number;
  readonly pages: readonly number[];
  /** Slots of pages and processes; those of objects come behind. */
  readonly views: number;
  readonly initial: readonly number[];
}

export class Plan {
  readonly program: Program;
  readonly processes: readonly ProcessPlan[];
  /** Pages that are read back at the end. */
  readonly watched: readonly number[];
  /** Something may run out or is made to fail. */
  readonly failures: boolean;
  /** Memory is made to fail. */
  readonly poisons: boolean;
  readonly locations: readonly Location[];
  /** The program has a file. */
  readonly hasFile: boolean;
  /** Families in which somebody forks. */
  readonly #forking: ReadonlySet<number>;
  /**
   * A userfaultfd changes entries: what a device stores fails where they protect, and also where they did, since its own page
   * stays readable only until the CPU has had it.
   */
  readonly #protects: boolean;
  /** Entries may lose their right to write although the mapping has it. */
  readonly #writeProtects: boolean;
  /** Number of the object that a call maps, among all; -1 for those that map none. The file is 0. */
  readonly #objectOf: ReadonlyMap<Call, number>;
  /** Some page may be a copy of a file's. */
  readonly #copies: boolean;

  constructor(program: Program) {
    this.program = program;
    this.processes = plannedProcesses(program);
    this.watched = watchedPages(program);
    const calls = allCalls(program);
    this.failures =
      program.failNth > 0 ||
      program.inject.some((injection) => FAILING_INJECTIONS.includes(injection)) ||
      calls.some(({ op, failNth, feature }) => op === 'fail_alloc' || failNth !== undefined || feature === 'sigbus');
    this.poisons = calls.some(({ advice }) => advice === 'hwpoison');
    this.#protects = calls.some(({ op }) => op === 'uffd_register');
    this.#forking = new Set(this.processes.filter(({ forked }) => forked).map(({ family }) => family));
    this.#writeProtects = calls.some(({ op }) => op === 'mprotect' || op === 'clear_refs');
    this.hasFile = calls.some(isOfFile);
    this.#copies = calls.some(({ backing }) => backing === 'private-file');
    const shared = calls.filter(({ backing }) => backing === 'shared');
    this.#objectOf = new Map(
      calls.flatMap((call) =>
        call.backing === undefined ? [] : [[call, isOfFile(call) ? 0 : 1 + shared.indexOf(call)] as const],
      ),
    );
    const objects = this.#objectOf.size === 0 ? 0 : 1 + shared.length;
    this.locations = plannedLocations(program, this.processes, this.watched, objects);
  }

  /** Record what a call did to memory. @param child process that it forked */
  record(history: History, process: ProcessPlan, call: Call, result: CallResult, child: ProcessPlan | null): void {
    const { begin, end } = history;
    for (const { page, offset, effect, maybe } of this.#effects(process, call, result, child)) {
      for (const [index, location] of this.locations.entries()) {
        if (location.family !== process.family || (offset !== null && offset !== location.offset)) continue;
        const at = location.pages.indexOf(page);
        if (at < 0) continue;
        const slots = location.pages.length;
        const slot = process.firstSlot * slots + at;
        const resolved = resolve(effect, location, process.firstSlot * slots, at);
        for (const each of effect.kind === 'poison' ? slotsOf(location.initial) : [slot]) {
          history.add(index, { slot: each, effect: resolved, maybe, begin, end, text: call.op });
        }
      }
    }
  }

  /** A whole page as the end of the run finds it: `null` where it cannot be read. */
  recordPage(history: History, process: ProcessPlan, page: number, words: Uint32Array | null): void {
    const { begin, end } = history;
    for (const [index, location] of this.locations.entries()) {
      if (location.family !== process.family) continue;
      const at = location.pages.indexOf(page);
      if (at < 0) continue;
      const slot = process.firstSlot * location.pages.length + at;
      const effect: Effect =
        words === null
          ? { kind: 'refused', write: false, excused: false }
          : { kind: 'load', value: words[location.offset / 4]! };
      history.add(index, { slot, effect, maybe: false, begin, end, text: 'read back' });
    }
  }

  /** Offsets at which a page of a process may hold something else than zero. */
  offsetsOf(family: number): readonly number[] {
    return this.locations.filter((location) => location.family === family).map(({ offset }) => offset);
  }

  *#effects(process: ProcessPlan, call: Call, result: CallResult, child: ProcessPlan | null): Generator<PageEffect> {
    const { op } = call;
    const done = typeof result === 'number';
    const page = call.page ?? 0;
    const offset = call.offset ?? 0;
    switch (op) {
      case 'load':
      case 'read':
        if (done) yield { page, offset, effect: { kind: 'load', value: result }, maybe: false };
        else yield* this.#refused(process, call, result, false);
        return;
      case 'store':
      case 'write':
      case 'fill':
      case 'add':
        // A store anywhere in the page is the end of what it shares.
        if (this.#copies) yield { page, offset: null, effect: { kind: 'copy' }, maybe: true };
        if (!done) yield* this.#refused(process, call, result, true);
        else yield { page, offset, effect: { kind: op === 'add' ? 'add' : 'store', value: call.value! }, maybe: false };
        return;
      case 'soft_dirty':
        return;
      case 'touch':
        if (!done) yield* this.#refused(process, call, result, false);
        return;
      case 'fork':
        if (child === null) return;
        for (const each of this.watched) {
          yield { page: each, offset: null, effect: { kind: 'fork', child: child.firstSlot }, maybe: false };
        }
        return;
      default:
        for (const at of this.watched) {
          if (at < page || at > (call.last ?? -1)) continue;
          for (const effect of this.#rangeEffects(call, at, done)) {
            yield { page: at, offset: null, effect, maybe: !done || effect.kind === 'poison' };
          }
          // Whoever takes pages for writing copies those of a file first.
          if (this.#copies) yield { page: at, offset: null, effect: { kind: 'copy' }, maybe: true };
        }
    }
  }

  #readOnlyPages({ family }: ProcessPlan, write: boolean): boolean {
    return this.#forking.has(family) || (write && this.#writeProtects);
  }

  *#refused(process: ProcessPlan, call: Call, result: string, write: boolean): Generator<PageEffect> {
    // No mirror: nothing was asked of memory.
    if (result === 'EBADF') return;
    const onDevice = call.device !== undefined;
    // A device does not make a read-only page of its own memory writable (hmm_range_fault takes such a page as it is), and may find its
    // memory full of pages that are held.
    const excused =
      this.failures ||
      (onDevice && this.#protects) ||
      (onDevice && (this.#readOnlyPages(process, write) || result === 'ENOMEM' || result === 'EOPNOTSUPP'));
    const effect: Effect = { kind: 'refused', write, excused };
    yield { page: call.page!, offset: call.offset ?? 0, effect, maybe: false };
  }

  *#rangeEffects(call: Call, page: number, done: boolean): Generator<Effect> {
    switch (call.op) {
      case 'mmap':
        if (done) {
          const object = this.#objectOf.get(call) ?? NO_OBJECT;
          yield {
            kind: 'map',
            access: ACCESS[call.protection ?? 'rw'],
            object,
            copies: call.backing === 'private-file',
          };
        } else yield { kind: 'unmap' };
        return;
      case 'munmap':
        yield { kind: 'unmap' };
        return;
      case 'mprotect':
        yield { kind: 'protect', access: ACCESS[call.protection!] };
        return;
      case 'mremap': {
        const to = call.to! + (page - call.page!);
        // What is mapped at the destination goes before anything else is looked at.
        yield done ? { kind: 'move', to, leaves: call.dontunmap === true } : { kind: 'clear destination', to };
        return;
      }
      case 'madvise':
        // Of all who have the page, wherever it is by then, or of nobody: it may have been copied meanwhile.
        if (call.advice === 'hwpoison') yield { kind: 'poison' };
        else if (call.advice === 'dontneed') yield { kind: 'discard' };
        else if (call.advice === 'free') yield { kind: 'lazyfree' };
    }
  }
}

interface PageEffect {
  readonly page: number;
  /** `null`: the whole page. */
  readonly offset: number | null;
  /** Slots in it are pages, or processes, until they are resolved. */
  readonly effect: Effect;
  readonly maybe: boolean;
}

/** The events of one execution, by location. */
export class History {
  readonly #events: HistoryEvent[][];
  #clock = 0;
  begin = 0;
  end = 0;

  constructor(locations: number) {
    this.#events = Array.from({ length: locations }, () => []);
  }

  tick(): number {
    return ++this.#clock;
  }

  add(location: number, event: HistoryEvent): void {
    this.#events[location]!.push(event);
  }

  eventsOf(location: number): readonly HistoryEvent[] {
    return this.#events[location]!;
  }
}

/** Pages and processes become slots. */
function resolve(effect: Effect, { pages, views }: Location, base: number, at: number): Effect {
  if (effect.kind === 'fork') return { ...effect, child: effect.child * pages.length + at };
  if (effect.kind === 'map' && effect.object !== NO_OBJECT) {
    return { ...effect, object: views + effect.object * pages.length + at };
  }
  if (effect.kind === 'move' || effect.kind === 'clear destination') {
    return { ...effect, to: base + pages.indexOf(effect.to) };
  }
  return effect;
}

const NO_OBJECT = -1;
const isOfFile = ({ backing }: Call): boolean => backing === 'file' || backing === 'private-file';

const allCalls = (program: Program): Call[] => [...program.init, ...program.tasks.flatMap(({ calls }) => calls)];

function plannedProcesses(program: Program): ProcessPlan[] {
  const byName = new Map(program.tasks.map((task) => [task.name, task]));
  const raw = processesOf(program);
  const ofTask = new Map(raw.flatMap(({ tasks }, index) => tasks.map((name) => [name, index] as const)));
  const everybodyShares = allCalls(program).some(isOfFile);
  const familyOf = (index: number): number => {
    if (everybodyShares) return 0;
    const { forkedBy } = raw[index]!;
    return forkedBy === null ? index : familyOf(ofTask.get(forkedBy)!);
  };
  const inFamily = new Map<number, number>();
  return raw.map(({ tasks, forkedBy }, index) => {
    const family = familyOf(index);
    // The one that others are forked from comes first.
    const firstSlot = inFamily.get(family) ?? 0;
    inFamily.set(family, firstSlot + 1);
    const own = tasks.map((name) => byName.get(name)!);
    const calls = [...(index === 0 ? program.init : []), ...own.flatMap((task) => task.calls)];
    const devices = [...new Set(calls.flatMap(({ device }) => device ?? []))].sort((a, b) => a - b);
    return { index, family, forked: forkedBy !== null, tasks: own, devices, firstSlot };
  });
}

function watchedPages(program: Program): number[] {
  if (program.pages <= WATCH_ALL_PAGES) return Array.from({ length: program.pages }, (_, page) => page);
  const named = allCalls(program).flatMap(({ page, last, to }) =>
    page === undefined
      ? []
      : [page, ...(last === undefined ? [] : [last]), ...(to === undefined ? [] : [to, to + (last ?? page) - page])],
  );
  return [...new Set(named)].sort((a, b) => a - b);
}

/** @param objects that are shared, beside the words of each process */
function plannedLocations(
  program: Program,
  processes: readonly ProcessPlan[],
  watched: readonly number[],
  objects: number,
): Location[] {
  const components = connected(program, watched);
  return [...new Set(processes.map(({ family }) => family))].flatMap((family) => {
    const members = processes.filter((process) => process.family === family);
    const calls = [
      ...(family === 0 ? program.init : []),
      ...members.flatMap(({ tasks }) => tasks.flatMap((t) => t.calls)),
    ];
    const words = calls.filter(({ page, last }) => page !== undefined && last === undefined);
    const offsets = new Set(words.map(({ offset }) => offset ?? 0));
    if (offsets.size === 0) offsets.add(0);
    return components.flatMap((pages) =>
      [...offsets].map((offset) => {
        const slots = members.flatMap(({ forked }) => pages.map((): SlotKind => (forked ? 'absent' : 'mapped')));
        const words = Array.from({ length: objects * pages.length }, () => OBJECT_STATE).flat();
        return { family, offset, pages, views: slots.length, initial: [...freshState(slots), ...words] };
      }),
    );
  });
}

/** Watched pages in groups between which no mapping moves. */
function connected(program: Program, watched: readonly number[]): number[][] {
  const groupOf = new Map(watched.map((page) => [page, [page]]));
  for (const { op, page, last, to } of allCalls(program)) {
    if (op !== 'mremap') continue;
    for (let at = page!; at <= last!; at++) {
      const from = groupOf.get(at);
      const target = groupOf.get(to! + (at - page!));
      if (from === undefined || target === undefined || from === target) continue;
      from.push(...target);
      for (const each of target) groupOf.set(each, from);
    }
  }
  return [...new Set(groupOf.values())];
}
