/**
 * Random programs on a machine that has far too little RAM, against a model of plain bytes: stores, loads, forks and unmapping by one
 * process at a time, while reclaim, advice, migrations and evictions, which must change nothing, run in between in a random order.
 * After each step everything is counted. Who finds no memory, with RAM, swap and device full, is told so and nothing has changed.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { VM_FAULT_OOM, VM_FAULT_SIGSEGV } from '#src/abi/errno';
import type { VirtAddr } from '#src/base/brand';
import { framesConserved } from '#src/check/frames-conserved';
import { pageAccounting } from '#src/check/page-accounting';
import { rmap } from '#src/check/rmap';
import { swap } from '#src/check/swap';
import type { MachineState } from '#src/machine/state';
import { forkMm } from '#src/mm/fork';
import { type Advice, doMadvise } from '#src/mm/madvise';
import { exitMm, type MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap } from '#src/mm/mmap';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { copyFromUser, copyToUser } from '#src/mm/uaccess';
import { tryToFreePages } from '#src/mm/vmscan';
import type { Sleeps } from '#src/sync/task';
import { Bench, describeEach, type FakeDriver, PAGE, run, runChosen } from './mm-fixture';

const PAGES = 24;
/** The arena lies across a border of leaf tables; the same far above is where mremap moves it. */
const BASE = 2 ** 30 + 2 ** 21 - (PAGES / 2) * PAGE;
/** Frames that are free when a program begins, with all pages of two processes in RAM. */
const FRAMES = 6;

type Change =
  | { kind: 'store'; page: number; count: number; byte: number }
  | { kind: 'load'; page: number; count: number }
  | { kind: 'munmap' | 'mmap' | 'DONTNEED' | 'read-only' | 'writable' | 'swap ends'; page: number; count: number }
  | { kind: 'fork' }
  | { kind: 'exit' };
type Disturbance =
  | { kind: 'reclaim'; page: number; count: number; subject: number }
  | { kind: 'advise'; advice: Advice; page: number; count: number; subject: number }
  | { kind: 'to device' | 'to system'; page: number; count: number; subject: number }
  | { kind: 'evict'; page: number; count: number; subject: number };
interface Step {
  readonly subject: number;
  readonly change: Change;
  readonly disturbances: readonly Disturbance[];
  readonly schedule: number;
}

const page = fc.nat(PAGES - 1);
const count = fc.integer({ min: 1, max: PAGES });
const subject = fc.nat(2);
const byte = fc.integer({ min: 1, max: 255 });
const change: fc.Arbitrary<Change> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('store' as const), page, count, byte }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('load' as const), page, count }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom('munmap', 'mmap', 'mmap', 'DONTNEED', 'read-only', 'writable', 'swap ends') as fc.Arbitrary<
        'munmap' | 'mmap' | 'DONTNEED' | 'read-only' | 'writable' | 'swap ends'
      >,
      page,
      count,
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('fork' as const) }) },
  fc.record({ kind: fc.constant('exit' as const) }),
);
const advice = fc.constantFrom<Advice>('PAGEOUT', 'PAGEOUT', 'WILLNEED', 'COLD');
const disturbance: fc.Arbitrary<Disturbance> = fc.oneof(
  fc.record({ kind: fc.constant('reclaim' as const), page, count, subject }),
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('advise' as const), advice, page, count, subject }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom('to device' as const, 'to system' as const), page, count, subject }),
  },
  fc.record({ kind: fc.constant('evict' as const), page, count, subject }),
);
const program = fc.array(
  fc.record<Step>({ subject, change, disturbances: fc.array(disturbance, { maxLength: 3 }), schedule: fc.nat() }),
  { minLength: 1, maxLength: 40 },
);

/** A source of choices. */
function choices(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % below;
  };
}

interface Subject {
  readonly mm: MmStruct;
  /** What each page holds, and whether it may be written; `null` where nothing is mapped. */
  readonly model: ({ byte: number; writable: boolean } | null)[];
}

const RUNS = Number(process.env.PFNLESS_RUNS ?? 40);
const CHECKERS = [framesConserved, pageAccounting, rmap, swap];

class World {
  readonly bench: Bench;
  readonly driver: FakeDriver;
  readonly subjects: Subject[] = [];
  readonly #hoard: number[] = [];
  #pid = 10;

  constructor(addressing: 'legacy' | 'offset', swapPages: number) {
    const bench = new Bench(addressing, 1);
    this.bench = bench;
    this.driver = bench.driver();
    // A small device: its memory runs out too.
    this.driver.freePages.splice(16);
    if (swapPages > 1) expect(bench.kernel.swap.swapon(swapPages * PAGE)).toBe(0);
    for (let i = 0; i < 2; i++) this.subjects.push({ mm: bench.mm(), model: Array(PAGES).fill(null) });
    for (const { mm, model } of this.subjects) {
      run(doMmap(bench.kernel, mm, { length: PAGES * PAGE, prot: 'rw', fixed: true, addr: BASE as VirtAddr }));
      for (let i = 0; i < PAGES; i++) {
        model[i] = { byte: i + 1, writable: true };
        expect(bench.store(mm, BASE + i * PAGE, i + 1).fault).toBe(0);
      }
    }
    while (bench.free > FRAMES) this.#hoard.push(bench.kernel.buddy.allocPages(0));
  }

  step({ subject, change, disturbances, schedule }: Step): void {
    const chosen = this.subjects[subject % this.subjects.length];
    if (chosen === undefined) return;
    const choose = choices(schedule);
    this.bench.preemption.on = true;
    this.bench.preemption.choose = () => choose(2) === 1;
    const tasks = [this.change(chosen, change), ...disturbances.map((each) => this.disturb(each))];
    runChosen((ready) => (ready.length === 0 ? [] : [ready[choose(ready.length)]!]), ...tasks);
    this.bench.preemption.on = false;
    this.verify();
  }

  *change({ mm, model }: Subject, change: Change): Sleeps<void> {
    const { kernel } = this.bench;
    if (change.kind === 'fork') return yield* this.fork(mm, model);
    if (change.kind === 'exit') {
      if (this.subjects.length < 2) return;
      this.subjects.splice(
        this.subjects.findIndex((each) => each.mm === mm),
        1,
      );
      return yield* exitMm(kernel, mm);
    }
    const at = (BASE + change.page * PAGE) as VirtAddr;
    const pages = Math.min(change.count, PAGES - change.page);
    const cells = Array.from({ length: pages }, (_, i) => change.page + i);
    if (change.kind === 'store') {
      for (const i of cells) yield* this.store(mm, model, i, change.byte);
    } else if (change.kind === 'load') {
      for (const i of cells) yield* this.load(mm, model, i);
    } else if (change.kind === 'munmap') {
      expect(yield* doMunmap(kernel, mm, at, pages * PAGE)).toBe(0);
      for (const i of cells) model[i] = null;
    } else if (change.kind === 'mmap') {
      yield* doMmap(kernel, mm, { length: pages * PAGE, prot: 'rw', fixed: true, addr: at });
      for (const i of cells) model[i] = { byte: 0, writable: true };
    } else if (change.kind === 'DONTNEED') {
      yield* doMadvise(kernel, mm, at, pages * PAGE, 'DONTNEED');
      for (const i of cells) if (model[i]) model[i]!.byte = 0;
    } else if (change.kind === 'swap ends') {
      yield* this.moveFirstToLast(mm, model);
    } else {
      const writable = change.kind === 'writable';
      // It ends at the first hole.
      yield* doMprotect(kernel, mm, at, pages * PAGE, writable ? 'rw' : 'r');
      for (const i of cells) {
        if (model[i] === null) break;
        model[i]!.writable = writable;
      }
    }
  }

  *store(mm: MmStruct, model: Subject['model'], i: number, value: number): Sleeps<void> {
    const cell = model[i]!;
    const { fault } = yield* copyToUser(this.bench.kernel, mm, (BASE + i * PAGE) as VirtAddr, Uint8Array.of(value));
    if (cell === null || !cell.writable) expect(fault).toBe(VM_FAULT_SIGSEGV);
    else if (fault === 0) cell.byte = value;
    else expect(fault).toBe(VM_FAULT_OOM);
  }

  *load(mm: MmStruct, model: Subject['model'], i: number): Sleeps<void> {
    const cell = model[i]!;
    const out = new Uint8Array(2);
    const { fault } = yield* copyFromUser(this.bench.kernel, mm, (BASE + i * PAGE) as VirtAddr, out);
    if (cell === null) expect(fault).toBe(VM_FAULT_SIGSEGV);
    else if (fault === 0) expect([...out]).toEqual([cell.byte, 0]);
    else expect(fault).toBe(VM_FAULT_OOM);
  }

  /** mremap of the first page over the last. */
  *moveFirstToLast(mm: MmStruct, model: Subject['model']): Sleeps<void> {
    if (model[0] === null) return;
    const to = (BASE + (PAGES - 1) * PAGE) as VirtAddr;
    const moved = yield* doMremap(this.bench.kernel, mm, BASE as VirtAddr, PAGE, PAGE, { maymove: true, fixedAt: to });
    // What was there is gone even where there was no memory for a table.
    if (moved === to) {
      model[PAGES - 1] = model[0]!;
      model[0] = null;
    } else model[PAGES - 1] = null;
  }

  *fork(mm: MmStruct, model: Subject['model']): Sleeps<void> {
    if (this.subjects.length >= 3) return;
    const child = yield* forkMm(this.bench.kernel, mm, ++this.#pid);
    if (child !== undefined) this.subjects.push({ mm: child, model: model.map((cell) => cell && { ...cell }) });
  }

  *disturb(what: Disturbance): Sleeps<unknown> {
    const { kernel } = this.bench;
    if (what.kind === 'reclaim') return yield* tryToFreePages(kernel, what.count);
    if (what.kind === 'evict') {
      const pages = [...this.driver.contents.keys()].slice(what.page, what.page + what.count);
      return pages.length === 0 ? 0 : yield* this.driver.evict(pages);
    }
    const chosen = this.subjects[what.subject % this.subjects.length];
    if (chosen === undefined || chosen.mm.exiting) return;
    const at = (BASE + what.page * PAGE) as VirtAddr;
    const pages = Math.min(what.count, PAGES - what.page);
    if (what.kind === 'advise') return yield* doMadvise(kernel, chosen.mm, at, pages * PAGE, what.advice);
    if (what.kind === 'to device') return yield* this.driver.toDevice(chosen.mm, at, pages);
    return yield* this.driver.toSystem(chosen.mm, at, pages);
  }

  verify(): void {
    const { bench, driver } = this;
    const { kernel } = bench;
    const heldPages = this.#hoard.map((frame) => [frame, 1]);
    const state = { kernel, heldPages } as unknown as MachineState;
    expect(CHECKERS.flatMap((checker) => [...checker.look(state)])).toEqual([]);
    const contents = new Uint8Array(PAGE);
    for (const { mm, model } of this.subjects) {
      expect([mm.mmapLock.locked, mm.notifiers.activeRanges]).toEqual([false, 0]);
      for (const [i, cell] of model.entries()) {
        const at = BASE + i * PAGE;
        const kind = bench.kind(mm, at);
        expect(kind).not.toMatch(/^migration/);
        if (kind === 'none') {
          expect(cell?.byte ?? 0).toBe(0);
          continue;
        }
        expect(cell).not.toBeNull();
        if (kind === 'swap') this.#readSwap(mm, at, contents);
        else contents.set(driver.bytesOf(bench.page(mm, at)));
        expect(contents[0]).toBe(cell!.byte);
      }
    }
    expect(driver.pgmap.ref!.count).toBe(driver.used + 1);
  }

  /** Bytes behind a swap entry: of the page in the swap cache, if there is one. */
  #readSwap(mm: MmStruct, at: number, contents: Uint8Array): void {
    const { kernel } = this.bench;
    const pte = this.bench.pte(mm, at);
    const slot = Number(((pte >> 9n) ^ ((1n << 50n) - 1n)) & ((1n << 40n) - 1n)) as never;
    const cached = kernel.swap.cachedPage(slot);
    if (cached !== 0) contents.set(this.driver.bytesOf(cached));
    else kernel.swap.read(slot, contents);
  }

  finish(): void {
    const { buddy, memmap } = this.bench.kernel;
    for (const frame of this.#hoard) {
      memmap.words[frame * 16 + 13] = 0;
      buddy.freePages(frame as never, 0);
    }
    this.bench.finish();
  }
}

describeEach('random programs without enough RAM', (addressing) => {
  it.each([0, 8, 200])('memory holds what was stored, with %i pages of swap', (swapPages) => {
    const seen = { reclaimed: 0, read: 0 };
    fc.assert(
      fc.property(program, (steps) => {
        const world = new World(addressing, swapPages);
        for (const step of steps) world.step(step);
        seen.reclaimed += world.bench.kernel.stats.pgsteal;
        seen.read += world.bench.kernel.stats.pswpin;
        world.finish();
      }),
      { numRuns: RUNS },
    );
    // The programs are hard enough on the machine to be worth running.
    if (swapPages > 0) expect(Math.min(seen.reclaimed, seen.read)).toBeGreaterThan(RUNS / 4);
  });
});
