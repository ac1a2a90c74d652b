/**
 * Serving replayable faults: take a batch from the ring, give the device what its lanes need, tell it to replay.
 * Linux: dmirror_fault() and dmirror_range_fault() in lib/test_hmm.c; batches as in NVIDIA's UVM (256).
 *
 * With `migrate` a faulting page is brought into device memory first, which is what GPU drivers do; whatever cannot move is
 * mapped where it is, if the access allows that (atomics on RAM never do: the page must move).
 */
import { PAGE_SIZE, TASK_SIZE } from '../abi/address.js';
import { DEVICE_PTE_ATOMIC, DEVICE_PTE_WRITE, MEMORY_RAM, type MemoryId } from '../abi/device-pte.js';
import { ERRNO_NUMBER, type Errno } from '../abi/errno.js';
import { HMM_PFN_REQ_FAULT, HMM_PFN_REQ_WRITE, HMM_PFN_VALID, HMM_PFN_WRITE } from '../abi/hmm-pfn.js';
import { ACCESS_ATOMIC, ACCESS_READ, type Access, FAULT_BATCH_MAX, FAULT_PACKET } from '../abi/packet.js';
import { RINGS } from '../abi/queue.js';
import type { HmmPfn, VirtAddr } from '../base/brand.js';
import { hmmRangeFault } from '../mm/hmm.js';
import { mmuIntervalReadBegin, mmuIntervalReadRetry } from '../mm/mmu-notifier.js';
import { isDevicePrivatePage } from '../mm/page.js';
import { VM_READ, VM_WRITE, vmaLookup } from '../mm/vma.js';
import { RingConsumer } from '../sync/ring.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import type { DeviceLink } from '../transport/device-link.js';
import type { Dmirror } from './dmirror.js';
import { MIGRATE_BATCH_PAGES, type MigrationContext, migrateToDevice } from './migration.js';

const { word: FAULT } = FAULT_PACKET;
/** Times that a page may refuse to become atomic before its lanes are told so: it is usually only held for a moment. */
const ATOMIC_ATTEMPTS = 64;

/** A mirror whose faults are served, and how. */
export interface ServedMirror {
  readonly dmirror: Dmirror;
  readonly onFault: 'migrate' | 'mirror';
}

interface PageFault {
  readonly address: number;
  access: Access;
}

export class FaultService {
  readonly #ctx: MigrationContext;
  readonly #link: DeviceLink;
  readonly #ring: RingConsumer;
  readonly #mirrors: ReadonlyMap<number, ServedMirror>;
  /** Rounds in which a page was wanted for atomics and could not be moved, by address. */
  readonly #atomicAttempts = new Map<number, number>();
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
    for (;;) {
      yield* waitUntil(`faults of ${this.#link.name}`, () => this.#link.lost === null && this.#ring.pending() > 0);
      for (const [context, faults] of this.#takeBatch()) {
        const mirror = this.#mirrors.get(context);
        if (mirror === undefined) continue;
        yield* this.#serveContext(mirror, faults);
        yield* this.#ctx.queue.replay(context);
      }
    }
  }

  /** Up to FAULT_BATCH_MAX faults, by context; faults on one page become one, of the stronger access. */
  #takeBatch(): Map<number, PageFault[]> {
    const batch = new Map<number, Map<number, PageFault>>();
    const ring = this.#ring;
    let taken = 0;
    for (; taken < FAULT_BATCH_MAX && ring.pending() > 0; taken++) {
      const at = ring.peek();
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
    const sorted = new Map<number, PageFault[]>();
    for (const [context, pages] of batch) {
      sorted.set(
        context,
        [...pages.values()].sort((a, b) => a.address - b.address),
      );
    }
    return sorted;
  }

  *#serveContext(mirror: ServedMirror, faults: readonly PageFault[]): Sleeps<void> {
    const { mm } = mirror.dmirror;
    yield* mm.mmapLock.downRead();
    try {
      for (const run of runs(faults)) yield* this.#serveRun(mirror, run);
    } finally {
      mm.mmapLock.upRead();
    }
  }

  /** Pages that are neighbours and want the same access. */
  *#serveRun(mirror: ServedMirror, run: readonly PageFault[]): Sleeps<void> {
    const { dmirror } = mirror;
    const start = run[0].address;
    const end = start + run.length * PAGE_SIZE;
    const { access } = run[0];
    if (mirror.onFault === 'migrate' || access === ACCESS_ATOMIC) yield* this.#bringToDevice(dmirror, start, end);
    if (satisfied(dmirror, start, end, access)) return;
    const errno = yield* faultRange(this.#ctx, dmirror, start, end, access !== ACCESS_READ);
    if (errno === 0) {
      if (access === ACCESS_ATOMIC) yield* this.#retryAtomics(dmirror, start, end);
      return;
    }
    if (run.length === 1) {
      yield* this.#ctx.queue.cancel(dmirror.context, start, ERRNO_NUMBER[errno]);
      return;
    }
    // Some page of the run cannot be had: find out which, one by one.
    for (const fault of run) yield* this.#serveRun(mirror, [fault]);
  }

  *#bringToDevice(dmirror: Dmirror, start: number, end: number): Sleeps<void> {
    const { mm } = dmirror;
    for (let at = start; at < end; ) {
      const vma = vmaLookup(mm, at);
      if (vma === undefined || (vma.flags & (VM_READ | VM_WRITE)) === 0) return;
      const stop = Math.min(end, vma.end, at + MIGRATE_BATCH_PAGES * PAGE_SIZE);
      if (!satisfied(dmirror, at, stop, ACCESS_READ)) {
        const { migrated } = yield* migrateToDevice(this.#ctx, dmirror, vma, at, stop);
        // Pages on another device must come home before they can come here.
        if (migrated * PAGE_SIZE < stop - at) {
          const errno = yield* faultRange(this.#ctx, dmirror, at, stop, false);
          if (errno === 0) yield* migrateToDevice(this.#ctx, dmirror, vma, at, stop);
        }
      }
      at = stop;
    }
  }

  /** Atomics on RAM are refused by the device's page table, so the lanes will fault again; but not for ever. */
  *#retryAtomics(dmirror: Dmirror, start: number, end: number): Sleeps<void> {
    for (let at = start; at < end; at += PAGE_SIZE) {
      if (satisfied(dmirror, at, at + PAGE_SIZE, ACCESS_ATOMIC)) {
        this.#atomicAttempts.delete(at);
        continue;
      }
      const attempts = (this.#atomicAttempts.get(at) ?? 0) + 1;
      if (attempts < ATOMIC_ATTEMPTS) {
        this.#atomicAttempts.set(at, attempts);
        continue;
      }
      this.#atomicAttempts.delete(at);
      yield* this.#ctx.queue.cancel(dmirror.context, at, ERRNO_NUMBER.ENOMEM);
    }
  }
}

/** Group sorted faults into neighbours with equal access. */
function* runs(faults: readonly PageFault[]): Generator<PageFault[], void, void> {
  let run: PageFault[] = [];
  for (const fault of faults) {
    const last = run.at(-1);
    if (last !== undefined && (last.address + PAGE_SIZE !== fault.address || last.access !== fault.access)) {
      yield run;
      run = [];
    }
    run.push(fault);
  }
  if (run.length > 0) yield run;
}

/** Does the device's page table allow the access on every page already? */
function satisfied(dmirror: Dmirror, start: number, end: number, access: Access): boolean {
  const needed = access === ACCESS_READ ? 0 : access === ACCESS_ATOMIC ? DEVICE_PTE_ATOMIC : DEVICE_PTE_WRITE;
  for (let at = start; at < end; at += PAGE_SIZE) {
    const word = dmirror.read(at);
    if (word === 0 || (word & needed) !== needed) return false;
  }
  return true;
}

/**
 * `dmirror_fault()`: make the CPU's page table allow the access, and mirror what it says. Pages of our own memory are mapped
 * there, everything else where it is in RAM. EFAULT or EPERM when some page cannot be had.
 * Precondition: mmap_lock held for reading.
 */
export function* faultRange(
  ctx: MigrationContext,
  dmirror: Dmirror,
  start: number,
  end: number,
  write: boolean,
): Sleeps<0 | Errno> {
  if (start < 0 || end > TASK_SIZE) return 'EFAULT';
  const hmmPfns = new BigUint64Array((end - start) / PAGE_SIZE);
  for (;;) {
    const notifierSeq = yield* mmuIntervalReadBegin(dmirror.notifier);
    hmmPfns.fill(0n);
    const outcome = yield* hmmRangeFault(ctx.kernel, {
      notifier: dmirror.notifier,
      notifierSeq,
      start: start as VirtAddr,
      end: end as VirtAddr,
      hmmPfns,
      defaultFlags: write ? HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE : HMM_PFN_REQ_FAULT,
      pfnFlagsMask: 0n,
      devPrivateOwner: ctx.owner,
    });
    if (outcome === 'EBUSY') continue;
    if (outcome !== 0) return outcome;
    if (mmuIntervalReadRetry(dmirror.notifier, notifierSeq)) continue;
    return mapPfns(ctx, dmirror, start, hmmPfns, write);
  }
}

/** `dmirror_do_update()`. Atomic: between the sequence test and the last entry nobody else runs. */
function mapPfns(
  ctx: MigrationContext,
  dmirror: Dmirror,
  start: number,
  hmmPfns: BigUint64Array,
  write: boolean,
): 0 | Errno {
  const { kernel, memory, memoryId } = ctx;
  for (let i = 0; i < hmmPfns.length; i++) {
    const pfn = hmmPfns[i] as HmmPfn;
    const writable = (pfn & HMM_PFN_WRITE) !== 0n;
    // A page of our own memory that is shared after fork stays read-only on the device: nobody breaks COW there.
    if ((pfn & HMM_PFN_VALID) === 0n || (write && !writable)) return 'EFAULT';
    const page = kernel.addressing.hmmPfnToPage(pfn);
    const own = isDevicePrivatePage(kernel.memmap.words, page);
    const target: MemoryId = own ? memoryId : MEMORY_RAM;
    const frame = own ? memory.frameOf(page) : kernel.memmap.ramFrame(page);
    const addr = start + i * PAGE_SIZE;
    // An entry left over from before names the same frame, or was cleared by an invalidation that the sequence test caught.
    if (!dmirror.map(addr, target, frame, writable)) return 'ENOMEM';
  }
  return 0;
}
