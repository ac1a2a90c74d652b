/**
 * One device's mirror of one address space: its device page table, kept in step with the CPU's by an interval notifier over
 * the whole address space. Linux: struct dmirror in lib/test_hmm.c.
 *
 * Invalidations are as coarse as the test driver's: the page after the range is dropped too. Only a migration of the device's
 * own is precise: it *parks* the entries of what it may move, and each that stays where it is becomes valid again.
 *
 * Page table changes and the notifier's sequence test are in one atomic stretch of the kernel's thread (no `yield` between),
 * which plays the part of the driver's mutex.
 */
import { PAGE_SIZE, TASK_SIZE } from '../abi/address.js';
import {
  DEVICE_PTE_ATOMIC,
  DEVICE_PTE_EXCLUSIVE,
  DEVICE_PTE_MEMORY_MASK,
  DEVICE_PTE_WRITE,
  devicePteWord,
  MEMORY_RAM,
  type MemoryId,
} from '../abi/device-pte.js';
import { injects } from '../base/injection.js';
import type { DevicePageTables } from '../device/page-table.js';
import type { MmStruct } from '../mm/mm-struct.js';
import {
  type MmuIntervalNotifier,
  type MmuNotifierRange,
  mmuIntervalInvalidating,
  mmuIntervalNotifierInsert,
  mmuIntervalNotifierRemove,
  mmuIntervalSetSeq,
} from '../mm/mmu-notifier.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import type { DeviceQueue } from './device-queue.js';
import type { PeerGroup } from './peer-group.js';

export interface DmirrorOptions {
  readonly mm: MmStruct;
  /** Number of the address space on the device, and its root table. */
  readonly context: number;
  readonly root: number;
  readonly tables: DevicePageTables;
  readonly queue: DeviceQueue;
  /** Who the driver is in notifications, and which memory is its own. */
  readonly owner: PeerGroup;
  readonly ownMemory: MemoryId;
  /** Does the device know any address space? If not, it walks no table and remembers no translation. */
  walked(): boolean;
}

export class Dmirror {
  readonly mm: MmStruct;
  readonly context: number;
  readonly root: number;
  readonly notifier: MmuIntervalNotifier;
  readonly #options: DmirrorOptions;
  /** Who wants to hear what is taken out of the device's page table. */
  readonly #heard = new Set<(start: number, end: number) => void>();
  /** Migrations of this device under way that bring pages home: their notifications concern pages of our memory. */
  migrationsHome = 0;
  /** The next allocation of a page for this mirror fails. */
  failAlloc = false;
  /** Batches of faults that are being served. */
  serving = 0;
  /** Batches of faults in which a page was wanted for atomics while device memory was full, by address. */
  readonly starved = new Map<number, number>();
  /** Batches in which it did not move for other reasons. */
  readonly stuck = new Map<number, number>();
  /** The mirror is being closed: its faults are not served any more. */
  closing = false;

  /** What was wanted in vain in [start, end) is there now, or is wanted no more. */
  forgetAttempts(start: number, end: number): void {
    for (const attempts of [this.starved, this.stuck]) {
      for (const at of attempts.keys()) if (at >= start && at < end) attempts.delete(at);
    }
  }

  constructor(options: DmirrorOptions) {
    this.#options = options;
    this.mm = options.mm;
    this.context = options.context;
    this.root = options.root;
    this.notifier = mmuIntervalNotifierInsert(options.mm, 0, TASK_SIZE, {
      invalidate: (_notifier, range, curSeq) => this.#invalidate(range, curSeq),
    });
  }

  /**
   * Is an invalidation under way that this mirror has been told of? Whoever it is for may be about to take pages away: what is
   * mapped now, nobody would take out again.
   */
  get invalidating(): boolean {
    return mmuIntervalInvalidating(this.notifier);
  }

  /** Has `failAlloc` been asked for? Once. */
  takeFailAlloc(): boolean {
    const { failAlloc } = this;
    this.failAlloc = false;
    return failAlloc;
  }

  /**
   * Map one page of some memory. Atomics are allowed on device memory: on private memory no CPU can interfere, and a coherent
   * device takes part in the CPU's. False: no table memory.
   */
  map(addr: number, memory: MemoryId, frame: number, write: boolean): boolean {
    return this.mapRun(addr, 1, memory, frame, write);
  }

  /** Map pages whose frames are neighbours. */
  mapRun(addr: number, pages: number, memory: MemoryId, frame: number, write: boolean): boolean {
    const { queue, tables } = this.#options;
    if (injects(queue, 'device-table')) return false;
    const atomic = write && memory !== MEMORY_RAM ? DEVICE_PTE_ATOMIC : 0;
    return tables.mapRange(
      this.root,
      addr,
      pages,
      frame,
      devicePteWord(memory, (write ? DEVICE_PTE_WRITE : 0) | atomic),
    );
  }

  /** Map a page that the CPU has given up: atomics are allowed. False: no table memory. */
  mapExclusive(addr: number, memory: MemoryId, frame: number): boolean {
    const flags = DEVICE_PTE_WRITE | DEVICE_PTE_ATOMIC | DEVICE_PTE_EXCLUSIVE;
    return this.#options.tables.mapRange(this.root, addr, 1, frame, devicePteWord(memory, flags));
  }

  /** Flags of the device's entry for a page, 0 for none. */
  read(addr: number): number {
    return this.#options.tables.read(this.root, addr);
  }

  /** Are all pages of [start, end) mapped, with all of these flags (DEVICE_PTE_*)? */
  mapsAll(start: number, end: number, flags = 0): boolean {
    return this.#options.tables.everyEntry(this.root, start, end, flags, flags);
  }

  /** Are all pages of [start, end) mapped, and in the device's own memory? */
  mapsOwnMemory(start: number, end: number): boolean {
    const { tables, ownMemory } = this.#options;
    return tables.everyEntry(this.root, start, end, DEVICE_PTE_MEMORY_MASK, devicePteWord(ownMemory, 0));
  }

  frameOf(addr: number): number {
    return this.#options.tables.frameOf(this.root, addr);
  }

  /**
   * The end of a migration of the device's own: entries of [start, end) that it parked become valid again where `still` says
   * that the CPU maps what they name; `undefined` leaves the entry to another migration that is under way.
   * Precondition: mappings are back, and nobody has run since.
   */
  settle(start: number, end: number, still: (addr: number, word: number, frame: number) => boolean | undefined): void {
    const { tables } = this.#options;
    // Another invalidation is under way: it may have seen the entry parked, and its migration entries may be still to come.
    const { invalidating } = this;
    for (let addr = start; addr < end && tables.parked > 0; addr += PAGE_SIZE) {
      const word = tables.readParked(this.root, addr);
      if (word === 0) continue;
      const verdict = still(addr, word, this.frameOf(addr));
      if (verdict === true && !invalidating) tables.unpark(this.root, addr);
      else if (verdict !== undefined) tables.unmapRange(this.root, addr, addr + PAGE_SIZE);
    }
  }

  /** Take [start, end) out of the device page table; `flush` makes the device forget it. Returns entries that were valid. */
  clear(start: number, end: number): number {
    return this.#options.tables.unmapRange(this.root, start, end);
  }

  /** Forget the parked entries of [start, end): their pages have moved away. No device can have used them since. */
  dropParked(start: number, end: number): void {
    this.#options.tables.dropParked(this.root, start, end);
  }

  /** The device forgets [start, end), and when this returns every invalidation that was under way is done too. */
  *flush(start: number, end: number): Sleeps<void> {
    const { queue, tables } = this.#options;
    const mark = tables.retired;
    if (!this.#options.walked()) tables.reclaim(mark);
    else if (yield* queue.invalidate(this.context, start, end)) tables.reclaim(mark);
  }

  /** The device forgets [start, end), and faults for what it wants again. */
  *forget(start: number, end: number): Sleeps<void> {
    if (this.clear(start, end) > 0) yield* this.flush(start, end);
  }

  /** Serve no more faults; returns once those under way are served. */
  *quiesce(): Sleeps<void> {
    this.closing = true;
    yield* waitUntil(`faults of process ${this.mm.pid} to be served`, () => this.serving === 0);
  }

  /** Stop mirroring. Precondition: the device has dropped the context. The tables may be freed afterwards. */
  *unregister(): Sleeps<void> {
    // Nobody hears of invalidations from here on: what an eviction has left would outlive them.
    this.clear(0, TASK_SIZE);
    yield* mmuIntervalNotifierRemove(this.notifier);
  }

  /** Do `work`, and hear meanwhile what invalidations take out, but for migrations of the device's own. */
  *hearing<T>(heard: (start: number, end: number) => void, work: Sleeps<T>): Sleeps<T> {
    this.#heard.add(heard);
    try {
      return yield* work;
    } finally {
      this.#heard.delete(heard);
    }
  }

  *#invalidate(range: MmuNotifierRange, curSeq: number): Sleeps<void> {
    mmuIntervalSetSeq(this.notifier, curSeq);
    const { owner, ownMemory, queue, tables } = this.#options;
    if (range.event === 'MMU_NOTIFY_UNMAP') this.forgetAttempts(range.start, range.end);
    // Whoever wants a page for itself waits until the lanes that it was mapped for have run, as migrate_to_ram does.
    if (takesAway(range, owner)) yield* queue.waitReplays();
    let { end }: { end: number } = range;
    let changed: number;
    if (range.event === 'MMU_NOTIFY_MIGRATE' && range.owner === owner) {
      // A migration towards the device does not move what is there already: those entries stay, unless a peer may have asked.
      const staying = this.migrationsHome === 0 && !owner.shared ? ownMemory : undefined;
      changed = tables.park(this.root, range.start, end, staying);
    } else {
      // xa_for_each_range() has an inclusive end.
      end = Math.min(end + PAGE_SIZE, TASK_SIZE);
      changed = tables.unmapRange(this.root, range.start, end);
      for (const heard of this.#heard) heard(range.start, end);
    }
    if (changed > 0) {
      yield* this.flush(range.start, end);
      return;
    }
    // Somebody else may have cleared the entries and not yet heard from the device.
    yield* queue.waitInvalidations();
  }
}

/**
 * Is it another device's migration, or write-back? Either may come again and again for the same page. (Of a peer's migration nobody
 * can tell from the outside whether it is one of our own.)
 */
const takesAway = ({ event, owner }: MmuNotifierRange, self: PeerGroup): boolean =>
  (event === 'MMU_NOTIFY_MIGRATE' && (owner !== self || self.shared)) || event === 'MMU_NOTIFY_PROTECTION_PAGE';
