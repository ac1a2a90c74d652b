/**
 * One device's mirror of one address space: its device page table, kept in step with the CPU's by an interval notifier over
 * the whole address space. Linux: struct dmirror in lib/test_hmm.c.
 *
 * Page table changes and the notifier's sequence test are in one atomic stretch of the kernel's thread (no `yield` between),
 * which plays the part of the driver's mutex.
 */
import { PAGE_SIZE, TASK_SIZE } from '../abi/address.js';
import {
  DEVICE_PTE_ATOMIC,
  DEVICE_PTE_WRITE,
  devicePteMemory,
  devicePteWord,
  type MemoryId,
} from '../abi/device-pte.js';
import type { DevicePageTables } from '../device/page-table.js';
import type { MmStruct } from '../mm/mm-struct.js';
import {
  type MmuIntervalNotifier,
  type MmuNotifierRange,
  mmuIntervalNotifierInsert,
  mmuIntervalNotifierRemove,
  mmuIntervalSetSeq,
} from '../mm/mmu-notifier.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import type { DeviceQueue } from './device-queue.js';

export interface DmirrorOptions {
  readonly mm: MmStruct;
  /** Number of the address space on the device, and its root table. */
  readonly context: number;
  readonly root: number;
  readonly tables: DevicePageTables;
  readonly queue: DeviceQueue;
  /** Who the driver is in notifications, and which memory is its own. */
  readonly owner: object;
  readonly ownMemory: MemoryId;
}

export class Dmirror {
  readonly mm: MmStruct;
  readonly context: number;
  readonly root: number;
  readonly notifier: MmuIntervalNotifier;
  readonly #options: DmirrorOptions;
  /** Migrations of this device under way that bring pages home: their notifications concern pages of our memory. */
  migrationsHome = 0;
  /** Batches of faults that are being served. */
  serving = 0;
  /** The mirror is being closed: its faults are not served any more. */
  closing = false;

  constructor(options: DmirrorOptions) {
    this.#options = options;
    this.mm = options.mm;
    this.context = options.context;
    this.root = options.root;
    this.notifier = mmuIntervalNotifierInsert(options.mm, 0, TASK_SIZE, {
      invalidate: (_notifier, range, curSeq) => this.#invalidate(range, curSeq),
    });
  }

  /** Map one page of some memory. Atomics are allowed where no CPU can interfere: on device memory. False: no table memory. */
  map(addr: number, memory: MemoryId, frame: number, write: boolean): boolean {
    return this.mapRun(addr, 1, memory, frame, write);
  }

  /** Map pages whose frames are neighbours. */
  mapRun(addr: number, pages: number, memory: MemoryId, frame: number, write: boolean): boolean {
    const { tables, ownMemory } = this.#options;
    const atomic = write && memory === ownMemory ? DEVICE_PTE_ATOMIC : 0;
    return tables.mapRange(
      this.root,
      addr,
      pages,
      frame,
      devicePteWord(memory, (write ? DEVICE_PTE_WRITE : 0) | atomic),
    );
  }

  /** Flags of the device's entry for a page, 0 for none. */
  read(addr: number): number {
    return this.#options.tables.read(this.root, addr);
  }

  /** Are all pages of [start, end) mapped, and in the device's own memory? */
  mapsOwnMemory(start: number, end: number): boolean {
    for (let addr = start; addr < end; addr += PAGE_SIZE) {
      const word = this.read(addr);
      if (word === 0 || devicePteMemory(word) !== this.#options.ownMemory) return false;
    }
    return true;
  }

  frameOf(addr: number): number {
    return this.#options.tables.frameOf(this.root, addr);
  }

  /** Take [start, end) out of the device page table; `flush` makes the device forget it. Returns entries that were valid. */
  clear(start: number, end: number): number {
    return this.#options.tables.unmapRange(this.root, start, end);
  }

  /** The device forgets [start, end), and when this returns every invalidation that was under way is done too. */
  *flush(start: number, end: number): Sleeps<void> {
    const { queue, tables } = this.#options;
    const mark = tables.retired;
    if (yield* queue.invalidate(this.context, start, end)) tables.reclaim(mark);
  }

  /** Serve no more faults; returns once those under way are served. */
  *quiesce(): Sleeps<void> {
    this.closing = true;
    yield* waitUntil(`faults of process ${this.mm.pid} to be served`, () => this.serving === 0);
  }

  /** Stop mirroring. Precondition: the device has dropped the context. The tables may be freed afterwards. */
  *unregister(): Sleeps<void> {
    yield* mmuIntervalNotifierRemove(this.notifier);
  }

  *#invalidate(range: MmuNotifierRange, curSeq: number): Sleeps<void> {
    mmuIntervalSetSeq(this.notifier, curSeq);
    const { owner, ownMemory, queue, tables } = this.#options;
    // Whoever wants a page for itself waits until the lanes that it was mapped for have run, as migrate_to_ram does.
    if (range.event === 'MMU_NOTIFY_MIGRATE' && range.owner !== owner) yield* queue.waitReplays();
    // A migration of our own towards the device does not move what is there already: those entries stay.
    const keepsOwn = range.event === 'MMU_NOTIFY_MIGRATE' && range.owner === owner && this.migrationsHome === 0;
    const cleared = tables.unmapRange(this.root, range.start, range.end, keepsOwn ? ownMemory : undefined);
    if (cleared > 0) {
      yield* this.flush(range.start, range.end);
      return;
    }
    // Somebody else may have cleared the entries and not yet heard from the device.
    yield* queue.waitInvalidations();
  }
}
