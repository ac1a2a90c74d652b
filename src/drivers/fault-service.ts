/**
 * Serving replayable faults: take a batch from the ring, give the device what its lanes need, tell it to replay.
 * Linux: dmirror_fault() and dmirror_range_fault() in lib/test_hmm.c; batches as in NVIDIA's UVM (256).
 *
 * With `migrate` a faulting page is brought into device memory first, which is what GPU drivers do; whatever cannot move is
 * mapped where it is, if the access allows that. Atomics on RAM never do: the page must move, or, where somebody holds it here, the
 * CPU must do without it.
 */
import { PAGE_SIZE, TASK_SIZE } from '../abi/address.js';
import { DEVICE_PTE_ATOMIC, DEVICE_PTE_WRITE } from '../abi/device-pte.js';
import { ERRNO_NUMBER } from '../abi/errno.js';
import { ACCESS_ATOMIC, ACCESS_READ, type Access, FAULT_BATCH_MAX, FAULT_PACKET } from '../abi/packet.js';
import { RINGS } from '../abi/queue.js';
import { NULL_PAGE, type VirtAddr } from '../base/brand.js';
import { injects } from '../base/injection.js';
import { findHugePmd, hugeAlignDown } from '../mm/huge-pmd.js';
import { handleMmFault } from '../mm/memory.js';
import { entryIsReadOnly, mapsCoherentPage, mapsFilePage } from '../mm/page-vma-mapped.js';
import { NO_TABLE, nextLeaf } from '../mm/pgtable.js';
import { VM_READ, VM_SHARED, VM_WRITE, vmaLookup, vmaMayMigrate } from '../mm/vma.js';
import { RingConsumer } from '../sync/ring.js';
import { SCHEDULE_POINT, type Sleeps, waitUntil } from '../sync/task.js';
import type { DeviceLink } from '../transport/device-link.js';
import { CopyBatch } from './copy-batch.js';
import type { Dmirror } from './dmirror.js';
import { takeExclusive } from './exclusive.js';
import { bringHome, faultRange } from './fault-range.js';
import { beginToDevice, endToDevice, MIGRATE_BATCH_PAGES, type Round } from './migration.js';
import { copyPages, type MigrationContext } from './migration-targets.js';

const { word: FAULT } = FAULT_PACKET;
/** Batches in which a page may find device memory full before its lanes are told: pages are mostly only held for a moment. */
const STARVED_ATTEMPTS = 64;
/** Batches in which a page that is wanted for atomics is moved in vain before the CPU has to do without it: mostly it is only held for a moment. */
const STUCK_ATTEMPTS = 4;
/** Invalidations that a page's lookup may meet before its lanes are left to fault again: a batch must come to its end. */
const CONTENDED_ATTEMPTS = 3;
/** Faults of a CPU that make a page fit for stores, at the most: home, and its own. */
const WRITE_FAULTS = 2;
/** Turns of other tasks by which the service may be made late. */
const LATE_TURNS_MAX = 16;

/** A mirror whose faults are served, and how. */
export interface ServedMirror {
  readonly dmirror: Dmirror;
  readonly onFault: 'migrate' | 'mirror';
}

/** Neighbouring pages that want the same access: [start, end) in bytes. */
interface Run {
  readonly start: number;
  end: number;
  readonly access: Access;
}

interface PageFault {
  readonly address: number;
  access: Access;
}

interface FaultBatch {
  readonly contexts: Map<number, PageFault[]>;
  /** Number of the last record taken. */
  readonly upTo: number;
}

export class FaultService {
  readonly #ctx: MigrationContext;
  readonly #link: DeviceLink;
  readonly #ring: RingConsumer;
  readonly #mirrors: ReadonlyMap<number, ServedMirror>;
  faults = 0;
  batches = 0;

  /** @param mirrors by context */
  constructor(ctx: MigrationContext, link: DeviceLink, mirrors: ReadonlyMap<number, ServedMirror>) {
    this.#ctx = ctx;
    this.#link = link;
    this.#mirrors = mirrors;
    this.#ring = new RingConsumer(link.memories.queue, RINGS.faults);
  }

  *serve(): Sleeps<never> {
    const { owner } = this.#ctx;
    let lostPeers = 0;
    const hasLostPeer = (): boolean => owner.shared && owner.lost > lostPeers;
    const isWanted = (): boolean => this.#link.lost === null && (this.#ring.pending() > 0 || hasLostPeer());
    for (;;) {
      yield* waitUntil(`faults of ${this.#link.name}`, isWanted);
      if (hasLostPeer()) {
        lostPeers = owner.lost;
        // What was mapped in its memory is gone with it.
        for (const { dmirror } of this.#mirrors.values()) yield* dmirror.forget(0, TASK_SIZE);
        continue;
      }
      yield* this.#trouble();
      const { contexts, upTo } = this.#takeBatch();
      for (const [context, faults] of contexts) {
        const mirror = this.#mirrors.get(context);
        // Nobody waits for the faults of a context that is being closed: its launches are over.
        if (mirror === undefined || mirror.dmirror.closing) continue;
        yield* this.#serveContext(mirror, faults, upTo);
      }
    }
  }

  /** What may be injected before a batch is taken: that it is late, and that the ring is small until the next one. */
  *#trouble(): Sleeps<void> {
    const { kernel, queue } = this.#ctx;
    if (kernel.inject === null) return;
    if (injects(kernel, 'fault-service-late')) {
      for (let turns = kernel.inject.below(LATE_TURNS_MAX); turns >= 0; turns--) yield SCHEDULE_POINT;
    }
    queue.limitFaults(injects(kernel, 'fault-ring-full') ? 1 : 0);
  }

  /** Up to FAULT_BATCH_MAX faults, by context; faults on one page become one, of the stronger access. */
  #takeBatch(): FaultBatch {
    const batch = new Map<number, Map<number, PageFault>>();
    const ring = this.#ring;
    let taken = 0;
    let upTo = 0;
    for (; taken < FAULT_BATCH_MAX && ring.pending() > 0; taken++) {
      const at = ring.peek();
      upTo = ring.words[at + FAULT.sequence];
      const context = ring.words[at + FAULT.context];
      const address = ring.floats[at / 2 + FAULT.address];
      const access = ring.words[at + FAULT.access] as Access;
      ring.release();
      let pages = batch.get(context);
      if (pages === undefined) batch.set(context, (pages = new Map()));
      const seen = pages.get(address);
      if (seen === undefined) pages.set(address, { address, access });
      else seen.access = Math.max(seen.access, access) as Access;
    }
    this.faults += taken;
    this.batches++;
    const contexts = new Map<number, PageFault[]>();
    for (const [context, pages] of batch) {
      contexts.set(
        context,
        [...pages.values()].sort((a, b) => a.address - b.address),
      );
    }
    return { contexts, upTo };
  }

  *#serveContext(mirror: ServedMirror, faults: readonly PageFault[], upTo: number): Sleeps<void> {
    const { dmirror } = mirror;
    const { mmapLock } = dmirror.mm;
    const { queue } = this.#ctx;
    dmirror.serving++;
    yield* mmapLock.downRead();
    try {
      const runs = gather(faults);
      for (const run of runs) if (run.access !== ACCESS_READ) yield* this.#makeWritable(dmirror, run);
      const moving = (mirror.onFault === 'migrate' ? runs : runs.filter(({ access }) => access === ACCESS_ATOMIC))
        .flatMap((run) => this.#movable(dmirror, run))
        .filter(({ start, end }) => !dmirror.mapsOwnMemory(start, end));
      const whole = wholeHugePages(this.#ctx, dmirror, moving);
      for (const { start, end } of whole) yield* bringHome(this.#ctx, dmirror, start, end);
      let starved = yield* this.#bringToDevice(dmirror, whole);
      // Where there is no room for all of a huge page, there may be for the page that is wanted.
      if (starved && whole !== moving) starved = yield* this.#bringToDevice(dmirror, moving);
      const missing: Run[] = [];
      for (const run of runs) {
        if (satisfied(dmirror, run.start, run.end, run.access)) dmirror.forgetAttempts(run.start, run.end);
        else missing.push(run);
      }
      // What is there is told at once: until its lanes have run nobody takes it away, so of all who compete for pages some get
      // on. What takes longer comes after it.
      if (missing.length > 0 && missing.length < runs.length) yield* queue.replay(dmirror.context, upTo);
      for (const run of missing) {
        // A fault on one page is a fault on all that follow: pages of our own memory are asked for apart from the others, or
        // they would be sent home.
        for (const part of apart(run, (at) => dmirror.mapsOwnMemory(at, at + PAGE_SIZE)))
          yield* this.#serveRun(dmirror, part, starved);
      }
      yield* queue.replay(dmirror.context, upTo);
    } finally {
      mmapLock.upRead();
      dmirror.serving--;
    }
  }

  /**
   * What is to be written must be this process's own, and nobody may wait to hear of the store: as the CPU would, before it moves. Afterwards it
   * would be a page of the device that may only be read, which `hmm_range_fault()` reports as it is. Returns whether there was such a page.
   */
  *#makeWritable(dmirror: Dmirror, { start, end }: Run): Sleeps<boolean> {
    const { kernel } = this.#ctx;
    let found = false;
    for (let at = start; at < end; at += PAGE_SIZE) {
      const vma = vmaLookup(dmirror.mm, at);
      if (vma === undefined || (vma.flags & VM_WRITE) === 0) continue;
      // One that is on the device comes home first. What it cannot have, the mirror is told below.
      for (let faults = 0; faults < WRITE_FAULTS && entryIsReadOnly(kernel, dmirror.mm, at as VirtAddr); faults++) {
        found = true;
        yield* handleMmFault(kernel, vma, at as VirtAddr, true);
      }
    }
    return found;
  }

  /**
   * A run without what cannot move: coherent memory, which is within the device's reach and which nobody but its own driver moves,
   * and pages of files and shared memory. An attempt would only take the page from all devices that have it mapped, in all
   * processes, and two that share one could keep each other from it for ever.
   */
  #movable(dmirror: Dmirror, run: Run): Run[] {
    const { kernel } = this.#ctx;
    const stays = (at: number): boolean =>
      mapsCoherentPage(kernel, dmirror.mm, at as VirtAddr) || mapsFilePage(kernel, dmirror.mm, at as VirtAddr);
    return apart(run, stays).filter(({ start }) => !stays(start));
  }

  /** Pages that are neighbours and want the same access: make the device's page table allow it, if they are to be had now. */
  *#serveRun(dmirror: Dmirror, run: Run, starved: boolean): Sleeps<void> {
    const { start, end, access } = run;
    if (satisfied(dmirror, start, end, access)) return;
    const write = access !== ACCESS_READ;
    const fault = () => faultRange(this.#ctx, dmirror, start, end, write, CONTENDED_ATTEMPTS);
    let errno = yield* fault();
    // What was writable may be on the device by now, read-only, where another migration has taken it: it is copied again.
    for (let again = 0; again < WRITE_FAULTS && errno === 'EFAULT' && write; again++) {
      if (!(yield* this.#makeWritable(dmirror, run))) break;
      errno = yield* fault();
    }
    if (errno === 0) {
      if (access !== ACCESS_ATOMIC) return;
      // Atomics on RAM are refused by the device's page table: the lanes fault again, and the page is moved again.
      yield* this.#cancelImmovable(dmirror, start, end);
      if (starved) yield* this.#cancelStarved(dmirror, start, end);
      else yield* this.#takeStuck(dmirror, start, end);
      return;
    }
    if (end - start > PAGE_SIZE) {
      // Some page of the run cannot be had: find out which, one by one.
      for (let at = start; at < end; at += PAGE_SIZE) {
        yield* this.#serveRun(dmirror, { start: at, end: at + PAGE_SIZE, access }, starved);
      }
    } else if (errno !== 'EBUSY') {
      yield* this.#ctx.queue.cancel(dmirror.context, start, access, ERRNO_NUMBER[errno]);
    }
  }

  /**
   * Migrate the runs into device memory, all as one batch of copies: the device is waited for once, however many runs there
   * are. Returns whether device memory ran out.
   */
  *#bringToDevice(dmirror: Dmirror, runs: readonly Run[]): Sleeps<boolean> {
    const batch = new CopyBatch();
    const rounds: Round[] = [];
    for (const { start, end } of runs) {
      for (let at = start; at < end; ) {
        const vma = vmaLookup(dmirror.mm, at);
        if (vma === undefined || (vma.flags & (VM_READ | VM_WRITE)) === 0) break;
        const stop = Math.min(end, vma.end, at + MIGRATE_BATCH_PAGES * PAGE_SIZE);
        // What cannot move is mapped where it is.
        if (vmaMayMigrate(vma)) rounds.push(yield* beginToDevice(this.#ctx, dmirror, vma, at, stop, batch));
        at = stop;
      }
    }
    yield* copyPages(
      this.#ctx,
      batch,
      rounds.map(({ args }) => args.dst),
      NULL_PAGE,
    );
    for (const round of rounds) yield* endToDevice(this.#ctx, dmirror, round);
    return rounds.some(({ starved }) => starved);
  }

  /** Atomics need pages of the device's own, and shared memory and drivers' mappings never move there, however often it is tried. */
  *#cancelImmovable(dmirror: Dmirror, start: number, end: number): Sleeps<void> {
    for (let at = start; at < end; at += PAGE_SIZE) {
      const vma = vmaLookup(dmirror.mm, at);
      if (vma === undefined || (vmaMayMigrate(vma) && (vma.flags & VM_SHARED) === 0)) continue;
      yield* this.#ctx.queue.cancel(dmirror.context, at, ACCESS_ATOMIC, ERRNO_NUMBER.EOPNOTSUPP);
    }
  }

  /** Pages that do not move, as somebody has pinned them: the CPU does without them until its next access. */
  *#takeStuck(dmirror: Dmirror, start: number, end: number): Sleeps<void> {
    // What cannot be had has a reason that the next fault will meet, too.
    for (const at of wantedInVain(dmirror, dmirror.stuck, start, end, STUCK_ATTEMPTS))
      yield* takeExclusive(this.#ctx, dmirror, at as VirtAddr);
  }

  /** Device memory is full of pages that cannot be evicted: try some more, but not for ever. */
  *#cancelStarved(dmirror: Dmirror, start: number, end: number): Sleeps<void> {
    for (const at of wantedInVain(dmirror, dmirror.starved, start, end, STARVED_ATTEMPTS))
      yield* this.#ctx.queue.cancel(dmirror.context, at, ACCESS_ATOMIC, ERRNO_NUMBER.ENOMEM);
  }
}

/** Pages of [start, end) whose last attempt to become fit for atomics this was. `attempts` counts those before, by address. */
function* wantedInVain(
  dmirror: Dmirror,
  attempts: Map<number, number>,
  start: number,
  end: number,
  limit: number,
): Generator<number, void, void> {
  for (let at = start; at < end; at += PAGE_SIZE) {
    const count = satisfied(dmirror, at, at + PAGE_SIZE, ACCESS_ATOMIC) ? 0 : (attempts.get(at) ?? 0) + 1;
    if (count > 0 && count < limit) {
      attempts.set(at, count);
      continue;
    }
    attempts.delete(at);
    if (count > 0) yield at;
  }
}

/** Group sorted faults into neighbours with equal access. */
function gather(faults: readonly PageFault[]): Run[] {
  const runs: Run[] = [];
  for (const { address, access } of faults) {
    const last = runs.at(-1);
    if (last !== undefined && last.end === address && last.access === access) last.end += PAGE_SIZE;
    else runs.push({ start: address, end: address + PAGE_SIZE, access });
  }
  return runs;
}

/**
 * The runs, but where the CPU has a huge page all of it: it moves as one, as drivers of GPUs have it, and a part of it would only
 * take it apart. The same array where there is none.
 */
function wholeHugePages({ kernel }: MigrationContext, { mm }: Dmirror, runs: readonly Run[]): readonly Run[] {
  const whole: Run[] = [];
  let huge = false;
  for (const { start, end, access } of runs) {
    for (let at = start; at < end; ) {
      const stop = Math.min(nextLeaf(at), end);
      const last = whole.at(-1);
      if (findHugePmd(kernel, mm, at) !== NO_TABLE) {
        huge = true;
        const first = hugeAlignDown(at);
        if (last?.start !== first) whole.push({ start: first, end: nextLeaf(at), access });
      } else if (last !== undefined && last.end === at && at !== start) {
        last.end = stop;
      } else {
        whole.push({ start: at, end: stop, access });
      }
      at = stop;
    }
  }
  return huge ? whole : runs;
}

/** The pieces of a run of whose pages `test` says the same. */
function apart({ start, end, access }: Run, test: (at: number) => boolean): Run[] {
  const parts: Run[] = [];
  let last: boolean | undefined;
  for (let at = start; at < end; at += PAGE_SIZE) {
    const found = test(at);
    if (found === last) parts.at(-1)!.end += PAGE_SIZE;
    else parts.push({ start: at, end: at + PAGE_SIZE, access });
    last = found;
  }
  return parts;
}

/** Does the device's page table allow the access on every page already? */
function satisfied(dmirror: Dmirror, start: number, end: number, access: Access): boolean {
  const needed = access === ACCESS_READ ? 0 : access === ACCESS_ATOMIC ? DEVICE_PTE_ATOMIC : DEVICE_PTE_WRITE;
  return dmirror.mapsAll(start, end, needed);
}
