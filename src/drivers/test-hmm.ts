/**
 * The test driver: what Linux's lib/test_hmm.c owes its users, with real device memory behind it.
 *
 * One `TestHmm` a device (struct dmirror_device); `open` makes a mirror of an address space (struct dmirror, an open file of
 * /dev/hmm_dmirrorN); an address space may have several.
 */
import type { MemoryId } from '../abi/device-pte.js';
import type { Result } from '../abi/errno.js';
import { assert, PfnlessError } from '../base/errors.js';
import { DevicePageTables } from '../device/page-table.js';
import { CONTEXTS_MAX } from '../device/tlb.js';
import { vmFilePut } from '../mm/filemap.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import type { VmFile } from '../mm/vma.js';
import { RwSemaphore } from '../sync/rwsem.js';
import { SCHEDULE_POINT, type Sleeps, waitForPromise } from '../sync/task.js';
import type { DeviceLink } from '../transport/device-link.js';
import { createDeviceFile } from './device-file.js';
import { type CoherentWindow, DeviceMemory } from './device-memory.js';
import { DeviceQueue } from './device-queue.js';
import { Dmirror } from './dmirror.js';
import type { DeviceDriver, DriverInspection, DriverMirror, DriverObserver, DriverStats } from './driver.js';
import { evict } from './eviction.js';
import { FaultService, type ServedMirror } from './fault-service.js';
import { migrateToRam } from './migration.js';
import type { MigrationContext } from './migration-targets.js';
import type { PeerGroup } from './peer-group.js';
import { SnapshotObserver } from './snapshot.js';
import { type MirroredDevice, TestHmmMirror } from './test-hmm-mirror.js';

/** Evictions of everything before `releaseChunks` gives up: pages may be held for a moment. */
const RELEASE_ATTEMPTS = 64;

export interface TestHmmOptions {
  readonly kernel: Kernel;
  readonly link: DeviceLink;
  readonly name: string;
  /** Bytes of device memory, and bytes by which its pagemaps grow. */
  readonly memory: number;
  readonly chunk: number;
  readonly numaNode: number;
  readonly memoryId: MemoryId;
  /** The devices whose private memory this one reaches, and they its. */
  readonly peers: PeerGroup;
  /** `null`: the CPU cannot reach the memory. */
  readonly coherent: CoherentWindow | null;
}

export function createTestHmm(options: TestHmmOptions): DeviceDriver {
  return new TestHmm(options);
}

class TestHmm implements DeviceDriver {
  readonly name: string;
  readonly kernel: Kernel;
  readonly link: DeviceLink;
  readonly file: VmFile;
  readonly memory: DeviceMemory;
  readonly queue: DeviceQueue;
  readonly tables: DevicePageTables;
  readonly memoryId: MemoryId;
  /** Identity in notifications and pagemaps. */
  readonly owner: PeerGroup;
  readonly migration: MigrationContext;
  readonly mirrors = new Map<number, ServedMirror>();
  readonly #faultService: FaultService;
  /** Contexts that the device knows; those that it is being told of have the promise. */
  readonly #bound = new Map<number, Promise<void> | true>();
  /** The mirrors of each address space. */
  readonly #byMm = new Map<MmStruct, Dmirror[]>();
  #inspection: DriverInspection | null = null;
  #nextContext = 1;
  #evicted = 0;

  constructor(options: TestHmmOptions) {
    const { kernel, link, memoryId } = options;
    this.name = options.name;
    this.kernel = kernel;
    this.link = link;
    this.memoryId = memoryId;
    this.owner = options.peers;
    this.file = createDeviceFile(kernel, options.name);
    this.queue = new DeviceQueue(link, kernel.inject);
    this.tables = new DevicePageTables(link.memories.pageTables);
    this.memory = new DeviceMemory({
      kernel,
      name: options.name,
      owner: this.owner,
      ops: {
        migrateToRam: (fault) => migrateToRam(this.migration, fault),
        folioSplit: (head, tail) => this.memory.folioSplit(head, tail),
      },
      bytes: options.memory,
      chunkBytes: options.chunk,
      numaNode: options.numaNode,
      coherent: options.coherent,
    });
    this.migration = {
      kernel,
      memory: this.memory,
      memoryId,
      queue: this.queue,
      owner: this.owner,
      mirrorsOf: (mm) => this.#byMm.get(mm) ?? [],
      mirrorOfPage: (page) => this.mirrors.get(this.memory.mirrorOf(page))?.dmirror,
      chunks: new RwSemaphore(`chunks of ${options.name}`, 'chunks'),
      countEvicted: (pages) => {
        this.#evicted += pages;
      },
    };
    this.owner.join(this.migration);
    this.#faultService = new FaultService(this.migration, link, this.mirrors);
  }

  probe(): Result {
    return this.memory.grow();
  }

  serveFaults(): Sleeps<never> {
    return this.#faultService.serve();
  }

  /** @throws PfnlessError ERR_PFNLESS_ERRNO without table memory, or when no number is left for one more mirror */
  *open(mm: MmStruct, { onFault }: { readonly onFault: 'migrate' | 'mirror' }): Sleeps<DriverMirror> {
    const context = this.#freeContext();
    const root = context === undefined ? undefined : this.tables.createContext();
    if (context === undefined || root === undefined) {
      const missing = context === undefined ? 'number left for one more mirror' : 'memory left for page tables';
      throw new PfnlessError('ERR_PFNLESS_ERRNO', `${this.name} has no ${missing}.`, { errno: 'ENOMEM' });
    }
    const { tables, queue, owner, memoryId: ownMemory } = this;
    const walked = (): boolean => this.#bound.size > 0;
    const dmirror = new Dmirror({ mm, context, root, tables, queue, owner, ownMemory, walked });
    this.mirrors.set(context, { dmirror, onFault });
    this.#inspection = null;
    this.#byMm.set(mm, [...(this.#byMm.get(mm) ?? []), dmirror]);
    const { migration, link } = this;
    const device: MirroredDevice = {
      migration,
      link,
      bind: () => this.#bind(dmirror),
      release: () => this.#release(dmirror),
      releaseChunks: () => this.releaseChunks(),
    };
    return new TestHmmMirror(device, dmirror);
  }

  /**
   * The device learns of an address space with the first launch there: what the driver does itself, in the mirror's page
   * table and through the copy engine, needs no device that walks.
   */
  *#bind({ context, root }: Dmirror): Sleeps<void> {
    let bound = this.#bound.get(context);
    if (bound === true) return;
    bound ??= this.link.control.bindContext(context, root);
    this.#bound.set(context, bound);
    yield* waitForPromise(`${this.name} to take a new context`, bound);
    this.#bound.set(context, true);
  }

  observe(mm: MmStruct): DriverObserver {
    return new SnapshotObserver(this.migration, mm);
  }

  /**
   * Last close of a mirror: as Linux's test driver does, everything on the device goes home, of every process.
   *
   * The device drops the context before the notifier goes: a device that nobody tells of invalidations must not walk.
   */
  *#release(dmirror: Dmirror): Sleeps<void> {
    yield* dmirror.quiesce();
    if (this.link.lost === null) yield* this.evictAll();
    if (this.link.lost === null && this.#bound.has(dmirror.context)) {
      const unbound = this.link.control.unbindContext(dmirror.context);
      // It may die meanwhile: then it walks nothing either.
      yield* waitForPromise(
        `${this.name} to drop a context`,
        unbound.catch(() => {}),
      );
    }
    yield* this.#forget(dmirror);
  }

  /** Precondition: the device does not walk the mirror's tables, and serves no fault with them. */
  *#forget(dmirror: Dmirror): Sleeps<void> {
    yield* dmirror.unregister();
    this.mirrors.delete(dmirror.context);
    this.#inspection = null;
    this.#bound.delete(dmirror.context);
    const others = (this.#byMm.get(dmirror.mm) ?? []).filter((each) => each !== dmirror);
    if (others.length > 0) this.#byMm.set(dmirror.mm, others);
    else this.#byMm.delete(dmirror.mm);
    this.tables.destroyContext(dmirror.root);
  }

  /** Evict every page once: pages that somebody holds stay, and others may come back behind us. Returns how many moved. */
  *evictAll(): Sleeps<number> {
    let moved = 0;
    for (const { first, pages } of this.memory.usedBlocks()) moved += yield* evict(this.migration, first, pages);
    return moved;
  }

  /** All memory of the device goes, and comes again with the next page that is wanted. */
  *releaseChunks(): Sleeps<Result> {
    for (let attempt = 0; attempt < RELEASE_ATTEMPTS; attempt++) {
      if (this.memory.usedPages > 0 && (yield* this.evictAll()) === 0) yield SCHEDULE_POINT;
      // An eviction that is under way has pages of the chunks in its hands: it comes to its end first.
      yield* this.migration.chunks.downWrite();
      try {
        if (this.memory.usedPages > 0) continue;
        yield* this.memory.releaseChunks();
        return 0;
      } finally {
        this.migration.chunks.upWrite();
      }
    }
    return 'EBUSY';
  }

  *unplug(): Sleeps<Result> {
    this.memory.close();
    const result = yield* this.releaseChunks();
    if (result !== 0) this.memory.reopen();
    return result;
  }

  *remove(): Sleeps<void> {
    this.memory.close();
    while ((yield* this.evictAll()) > 0);
    yield* this.memory.releaseChunks();
    vmFilePut(this.kernel, this.file);
  }

  releaseMemory(): Sleeps<void> {
    return this.memory.releaseChunks();
  }

  reset(frames: number): void {
    assert(this.mirrors.size === 0, `${this.name} is reset with mirrors open`);
    this.memory.reset(frames);
    this.tables.reset();
    this.queue.reset();
    this.#nextContext = 1;
  }

  stats(): DriverStats {
    return {
      deviceFaults: this.#faultService.faults,
      faultBatches: this.#faultService.batches,
      evicted: this.#evicted,
      usedPages: this.memory.usedPages,
      freePages: this.memory.totalPages - this.memory.usedPages,
    };
  }

  /** The same answer until a mirror comes or goes: checkers ask after every step. */
  inspect(): DriverInspection {
    this.#inspection ??= {
      contexts: Array.from(this.mirrors.values(), ({ dmirror: { mm, root } }) => ({ mm, root })),
      owner: this.owner,
      frameOf: (page) => (this.memory.owns(page) ? this.memory.frameOf(page) : null),
    };
    return this.#inspection;
  }

  /** A number that no mirror has, one after the other, so that it is long before a number comes again. */
  #freeContext(): number | undefined {
    for (let tries = 1; tries < CONTEXTS_MAX; tries++) {
      const context = this.#nextContext;
      this.#nextContext = (context % (CONTEXTS_MAX - 1)) + 1;
      if (!this.mirrors.has(context)) return context;
    }
    return undefined;
  }
}
