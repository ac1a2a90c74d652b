/**
 * Random programs against a model of plain bytes. In each step one process does something that changes what memory means (a
 * mapping, a store by CPU or device), while migrations, evictions and device faults, which must not, run in between in a random
 * order. After each step everything is counted.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { VM_FAULT_SIGSEGV } from '#src/abi/errno';
import { HMM_PFN_REQ_FAULT, HMM_PFN_REQ_WRITE, HMM_PFN_WRITE, hmmPfnFlags, makeHmmPfns } from '#src/abi/hmm-pfn';
import { pteWrite } from '#src/abi/pte';
import { softleafFromPte } from '#src/abi/softleaf';
import type { Page, VirtAddr } from '#src/base/brand';
import { hmmRangeFault } from '#src/mm/hmm';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap, type Protection } from '#src/mm/mmap';
import {
  type MmuIntervalNotifier,
  mmuIntervalNotifierInsert,
  mmuIntervalNotifierRemove,
  mmuIntervalReadBegin,
  mmuIntervalReadRetry,
  mmuIntervalSetSeq,
} from '#src/mm/mmu-notifier';
import { leafKind } from '#src/mm/softleaf';
import { copyFromUser, copyToUser } from '#src/mm/uaccess';
import { SCHEDULE_POINT, type Sleeps } from '#src/sync/task';
import { Bench, describeEach, type FakeDriver, isLocked, PAGE, refCount, run, runChosen } from './mm-fixture';

const PAGES = 12;
/** The arena lies across a border of leaf tables. */
const BASE = 2 ** 30 + 2 ** 21 - (PAGES / 2) * PAGE;
const DEVICE_PAGES = 512;

/** One process: the kernel's, the model's, and what each of two devices may reach. */
interface Subject {
  readonly mm: MmStruct;
  readonly mirrors: readonly Mirror[];
  /** What a page should hold, or `null` where nothing is mapped. */
  readonly model: ({ prot: Protection; byte: number } | null)[];
}

/** A device's page table for one process, with a slow TLB: what is invalidated is used a little longer. */
class Mirror {
  readonly entries = new Map<number, { page: Page; write: boolean }>();
  readonly notifier: MmuIntervalNotifier;

  readonly bench: Bench;
  readonly mm: MmStruct;
  readonly driver: FakeDriver;

  constructor(bench: Bench, mm: MmStruct, driver: FakeDriver) {
    this.bench = bench;
    this.mm = mm;
    this.driver = driver;
    this.notifier = mmuIntervalNotifierInsert(mm, 0, 2 ** 47, {
      invalidate: (self, range, curSeq) => this.#invalidate(self, range.start, range.end, curSeq),
    });
  }

  *#invalidate(self: MmuIntervalNotifier, start: number, end: number, curSeq: number): Sleeps<void> {
    mmuIntervalSetSeq(self, curSeq);
    yield SCHEDULE_POINT;
    for (const addr of [...this.entries.keys()]) if (addr >= start && addr < end) this.entries.delete(addr);
  }

  /** Make the device able to access a page: 0, EFAULT or EPERM. */
  *fault(addr: number, write: boolean): Sleeps<string | 0> {
    const { kernel } = this.bench;
    yield* this.mm.mmapLock.downRead();
    try {
      for (;;) {
        const notifierSeq = yield* mmuIntervalReadBegin(this.notifier);
        const hmmPfns = makeHmmPfns(1);
        const outcome = yield* hmmRangeFault(kernel, {
          notifier: this.notifier,
          notifierSeq,
          start: addr as VirtAddr,
          end: (addr + PAGE) as VirtAddr,
          hmmPfns,
          defaultFlags: write ? HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE : HMM_PFN_REQ_FAULT,
          pfnFlagsMask: 0,
          devPrivateOwner: this.driver.owner,
        });
        if (outcome === 'EBUSY' || mmuIntervalReadRetry(this.notifier, notifierSeq)) continue;
        if (outcome !== 0) return outcome;
        this.entries.set(addr, {
          page: kernel.addressing.hmmPfnToPage(hmmPfns, 0),
          write: (hmmPfnFlags(hmmPfns, 0) & HMM_PFN_WRITE) !== 0,
        });
        return 0;
      }
    } finally {
      this.mm.mmapLock.upRead();
    }
  }
}

type Change =
  | { kind: 'mmap'; page: number; count: number; prot: Protection }
  | { kind: 'munmap'; page: number; count: number }
  | { kind: 'load'; page: number }
  | { kind: 'store'; page: number; byte: number }
  | { kind: 'device store'; page: number; byte: number; device: number };
type Disturbance =
  | { kind: 'to device' | 'to system'; page: number; count: number; device: number; subject: number }
  | { kind: 'evict'; from: number; count: number; device: number }
  | { kind: 'device load'; page: number; device: number; subject: number };
interface Step {
  readonly subject: number;
  readonly change: Change;
  readonly disturbances: readonly Disturbance[];
  /** Source of the order of turns. */
  readonly schedule: number;
}

const page = fc.nat(PAGES - 1);
const count = fc.integer({ min: 1, max: PAGES });
const byte = fc.integer({ min: 1, max: 255 });
const device = fc.nat(1);
const subject = fc.nat(1);
const prot = fc.constantFrom<Protection>('rw', 'rw', 'rw', 'r', 'none');
const change: fc.Arbitrary<Change> = fc.oneof(
  fc.record({ kind: fc.constant('mmap' as const), page, count, prot }),
  fc.record({ kind: fc.constant('munmap' as const), page, count }),
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('load' as const), page }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('store' as const), page, byte }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('device store' as const), page, byte, device }) },
);
const disturbance: fc.Arbitrary<Disturbance> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('to device' as const), page, count, device, subject }) },
  fc.record({ kind: fc.constant('to system' as const), page, count, device, subject }),
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('evict' as const), from: fc.nat(30), count, device }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('device load' as const), page, device, subject }) },
);
const program = fc.array(
  fc.record<Step>({ subject, change, disturbances: fc.array(disturbance, { maxLength: 3 }), schedule: fc.nat() }),
  { minLength: 1, maxLength: 25 },
);

/** A source of choices. */
function choices(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % below;
  };
}

class World {
  readonly bench: Bench;
  readonly drivers: readonly FakeDriver[];
  readonly subjects: readonly Subject[];

  constructor(addressing: 'legacy' | 'offset') {
    const bench = new Bench(addressing, 4);
    this.bench = bench;
    const drivers = [bench.driver(DEVICE_PAGES), bench.driver(DEVICE_PAGES)];
    this.drivers = drivers;
    this.subjects = [0, 1].map(() => {
      const mm = bench.mm();
      return { mm, mirrors: drivers.map((each) => new Mirror(bench, mm, each)), model: Array(PAGES).fill(null) };
    });
  }

  step({ subject, change, disturbances, schedule }: Step): void {
    const choose = choices(schedule);
    this.bench.preemption.on = true;
    this.bench.preemption.choose = () => choose(2) === 1;
    const tasks = [this.change(this.subjects[subject]!, change), ...disturbances.map((each) => this.disturb(each))];
    runChosen((ready) => (ready.length === 0 ? [] : [ready[choose(ready.length)]!]), ...tasks);
    this.bench.preemption.on = false;
    for (const each of this.subjects) this.verify(each);
    this.verifyDevices();
  }

  *change({ mm, model, mirrors }: Subject, change: Change): Sleeps<void> {
    const { kernel } = this.bench;
    const at = (BASE + change.page * PAGE) as VirtAddr;
    const cell = model[change.page]!;
    if (change.kind === 'mmap') {
      const pages = Math.min(change.count, PAGES - change.page);
      const request = { length: pages * PAGE, prot: change.prot, fixed: true, addr: at };
      expect(yield* doMmap(kernel, mm, request)).toBe(at);
      for (let i = 0; i < pages; i++) model[change.page + i] = { prot: change.prot, byte: 0 };
    } else if (change.kind === 'munmap') {
      const pages = Math.min(change.count, PAGES - change.page);
      expect(yield* doMunmap(kernel, mm, at, pages * PAGE)).toBe(0);
      model.fill(null, change.page, change.page + pages);
    } else if (change.kind === 'load') {
      const out = new Uint8Array(2);
      const { fault } = yield* copyFromUser(kernel, mm, at, out);
      const allowed = cell !== null && cell.prot !== 'none';
      expect(fault).toBe(allowed ? 0 : VM_FAULT_SIGSEGV);
      if (allowed) expect([...out]).toEqual([cell.byte, 0]);
    } else if (change.kind === 'store') {
      const { fault } = yield* copyToUser(kernel, mm, at, Uint8Array.of(change.byte));
      const allowed = cell?.prot === 'rw';
      expect(fault).toBe(allowed ? 0 : VM_FAULT_SIGSEGV);
      if (allowed) cell.byte = change.byte;
    } else {
      const mirror = mirrors[change.device]!;
      for (;;) {
        const entry = mirror.entries.get(at);
        if (entry?.write) {
          // The device stores through its page table, without asking anybody.
          mirror.driver.bytesOf(entry.page)[0] = change.byte;
          cell!.byte = change.byte;
          return;
        }
        const errno = yield* mirror.fault(at, true);
        const wanted = cell === null || cell.prot === 'none' ? 'EFAULT' : cell.prot === 'r' ? 'EPERM' : 0;
        if (errno === 'EFAULT' && wanted === 'EPERM') throw new Error('EFAULT for a page that may be read');
        if (wanted !== 0) {
          // A page of the device's own that is read-only is reported as it is: the driver refuses the store.
          if (errno !== 0) expect(errno).toBe(wanted);
          return;
        }
        expect(errno).toBe(0);
        // A page of our own whose entry is read-only stays so until it leaves the device (KERNEL_FACTS 17).
        if (mirror.entries.get(at)?.write === false) return;
      }
    }
  }

  *disturb(what: Disturbance): Sleeps<unknown> {
    const driver = this.drivers[what.device]!;
    if (what.kind === 'evict') {
      const pages = [...driver.contents.keys()].slice(what.from, what.from + what.count);
      return pages.length === 0 ? 0 : yield* driver.evict(pages);
    }
    const { mm, mirrors } = this.subjects[what.subject]!;
    const at = BASE + what.page * PAGE;
    if (what.kind === 'device load') return yield* mirrors[what.device]!.fault(at, false);
    const pages = Math.min(what.count, PAGES - what.page);
    return what.kind === 'to device' ? yield* driver.toDevice(mm, at, pages) : yield* driver.toSystem(mm, at, pages);
  }

  /** What one process has, against the model and against the counters. */
  verify({ mm, model, mirrors }: Subject): void {
    const { bench } = this;
    expect([mm.mmapLock.locked, mm.notifiers.activeRanges, mm.notifiers.invalidateSeq % 2]).toEqual([false, 0, 0]);
    let resident = 0;
    for (const [i, cell] of model.entries()) {
      const at = BASE + i * PAGE;
      const kind = bench.kind(mm, at);
      expect(kind).not.toMatch(/^migration/);
      if (kind === 'none') {
        expect(cell?.byte ?? 0).toBe(0);
        for (const { entries } of mirrors) expect(entries.has(at)).toBe(false);
        continue;
      }
      expect(cell).not.toBeNull();
      const page = bench.page(mm, at);
      expect(this.#byteOf(page)).toBe(cell!.byte);
      if (page === bench.kernel.zeroPage) {
        expect(pteWrite(bench.pte(mm, at))).toBe(false);
      } else {
        resident++;
        expect([refCount(bench.kernel, page), bench.field(page, 'mapcount') + 1]).toEqual([1, 1]);
        expect(isLocked(bench.kernel, page)).toBe(false);
      }
      this.#verifyMirrors(mm, at, page, mirrors);
    }
    expect(mm.rssAnon).toBe(resident);
  }

  /** A device may reach what the CPU's page table says, and no more. */
  #verifyMirrors(mm: MmStruct, at: number, page: Page, mirrors: readonly Mirror[]): void {
    const { bench } = this;
    const pte = bench.pte(mm, at);
    const kind = bench.kind(mm, at);
    const writable =
      kind === 'present' ? pteWrite(pte) : leafKind(bench.kernel, softleafFromPte(pte)) === 'device-private-write';
    for (const { entries, driver } of mirrors) {
      const entry = entries.get(at);
      if (entry === undefined) continue;
      expect(entry.page).toBe(page);
      expect(!entry.write || writable).toBe(true);
      if (kind !== 'present') expect(driver.contents.has(page)).toBe(true);
    }
  }

  #byteOf(page: Page): number {
    const driver = this.drivers.find(({ contents }) => contents.has(page)) ?? this.drivers[0]!;
    return driver.bytesOf(page)[0]!;
  }

  verifyDevices(): void {
    for (const { used, pgmap, freePages } of this.drivers) {
      expect(used + freePages.length).toBe(DEVICE_PAGES);
      expect(pgmap.ref!.count).toBe(used + 1);
    }
  }

  finish(): void {
    for (const { mirrors } of this.subjects) for (const each of mirrors) run(mmuIntervalNotifierRemove(each.notifier));
    this.bench.finish();
  }
}

describeEach('random programs', (addressing) => {
  it('memory holds what was stored, and everything is accounted for', () => {
    fc.assert(
      fc.property(program, (steps) => {
        const world = new World(addressing);
        for (const step of steps) world.step(step);
        world.finish();
      }),
      { numRuns: Number(process.env.PFNLESS_RUNS ?? 60) },
    );
  });
});
