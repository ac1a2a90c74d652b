/** What a machine wants of a device driver, whichever it is. Everything that may sleep is a generator for the kernel's thread. */
import type { LaunchReport, LaunchRequest } from '../abi/control.js';
import type { Errno, Result } from '../abi/errno.js';
import type { Page, VirtAddr } from '../base/brand.js';
import type { MmStruct } from '../mm/mm-struct.js';
import type { VmFile } from '../mm/vma.js';
import type { Sleeps } from '../sync/task.js';

/** Drivers by the names that machines give them, each in a line. */
export const DRIVERS = Object.freeze({
  'test-hmm': { summary: "Linux's test_hmm: a mirror a process, memory by chunks, eviction" },
});
export type DriverName = keyof typeof DRIVERS;

/** Page counts of one migration call. */
export interface MigrateOutcome {
  readonly errno: Result;
  readonly requested: number;
  readonly collected: number;
  readonly migrated: number;
  /** Folios that the migrated pages were: a huge page is one. */
  readonly folios: number;
}

/** Pages that the driver itself read or wrote through the device's page table (Linux: struct hmm_dmirror_cmd). */
export interface AccessOutcome {
  readonly errno: Result;
  /** Pages done, from the first on. */
  readonly cpages: number;
  /** Rounds of faults that were served: each is for all the rest of the range. */
  readonly faults: number;
  /** First 64-bit word of each page that was read, `cpages` of them; none after a write. */
  readonly words: BigUint64Array;
  /** Pages of them whose last word is not their first. */
  readonly torn: number;
}

export interface DriverStats {
  readonly deviceFaults: number;
  readonly faultBatches: number;
  readonly evicted: number;
  readonly usedPages: number;
  readonly freePages: number;
}

/** One device's mirror of one address space (an open file of the device node). */
export interface DriverMirror {
  /** Number of the address space on the device. */
  readonly context: number;
  migrateToDevice(start: VirtAddr, end: VirtAddr): Sleeps<MigrateOutcome>;
  migrateToSystem(start: VirtAddr, end: VirtAddr): Sleeps<MigrateOutcome>;
  /** Read whole pages. At a page that is missing, all the rest of the range is faulted in. EFAULT: some of it cannot be had. */
  deviceRead(start: VirtAddr, pages: number): Sleeps<AccessOutcome>;
  /**
   * Fill each page with its word, `words[i]` being page i's. EPERM: the mapping is not writable; EFAULT also for a page on
   * the device that only COW could make writable. Pages before the one that failed may have been written.
   */
  deviceWrite(start: VirtAddr, pages: number, words: ArrayLike<bigint>): Sleeps<AccessOutcome>;
  /** What `deviceRead` reads, but without faults: ENOENT at the first page that the mirror does not have. */
  peek(start: VirtAddr, pages: number): AccessOutcome;
  /**
   * Take the pages away from the CPU for atomics (`make_device_exclusive`), one by one until one cannot be had, and read them.
   * EFAULT: no mapping, or not writable; EOPNOTSUPP: not anonymous memory; ENOMEM.
   */
  exclusive(start: VirtAddr, pages: number): Sleeps<AccessOutcome>;
  /** EPERM: some page of the range is exclusive in this mirror. */
  checkExclusive(start: VirtAddr, pages: number): Result;
  /** The next allocation of a page fails, on the device or (for a page that came here through this mirror) in RAM. */
  failAlloc(): void;
  /** Evict and take down all memory of the device. EBUSY: somebody holds a page of it. */
  releaseChunks(): Sleeps<Result>;
  read(start: VirtAddr, out: Uint8Array): Sleeps<Result>;
  write(start: VirtAddr, bytes: Uint8Array): Sleeps<Result>;
  /** HMM_DMIRROR_PROT_* of each page. */
  snapshot(start: VirtAddr, end: VirtAddr): Sleeps<Uint8Array | Errno>;
  /** Run a program and wait for it. The link's own error is thrown if the device dies. */
  launch(request: Omit<LaunchRequest, 'context'>): Sleeps<LaunchReport>;
  /** Release: evicts everything that is on the device, of every process. */
  close(): Sleeps<void>;
}

/** Looks at one address space with a device's eyes. The device knows nothing of it. */
export interface DriverObserver {
  /** HMM_DMIRROR_PROT_* of each page from `start` on, into `out`. */
  snapshot(start: VirtAddr, out: Uint8Array): Sleeps<0 | Errno>;
  close(): Sleeps<void>;
}

/** What a checker may know of a driver. The page tables themselves it reads from shared memory (`DeviceMemories.pageTables`). */
export interface DriverInspection {
  /** Address spaces that are open on the device, and the word index of their top level tables. */
  readonly contexts: readonly { readonly mm: MmStruct; readonly root: number }[];
  /** Devices with the same owner reach each other's private memory. */
  readonly owner: object;
  /** Frame of the device's memory that holds a page; `null` for a page that is not this device's. */
  frameOf(page: Page): number | null;
}

export interface DeviceDriver {
  readonly name: string;
  /** What a process maps that maps the device's file. Absent: nothing (ENODEV). */
  readonly file?: VmFile;
  /** Load: take the first chunk of device memory, as the addressing does it. */
  probe(): Result;
  /** A mirror more: an address space may have several on a device. */
  open(mm: MmStruct, options: { readonly onFault: 'migrate' | 'mirror' }): Sleeps<DriverMirror>;
  /** Somebody who takes snapshots and does nothing else. */
  observe(mm: MmStruct): DriverObserver;
  /** Serve the device's faults for ever: the machine runs this as a background task. */
  serveFaults(): Sleeps<never>;
  /**
   * The device is about to be pulled out, with pages of processes on it: they go home, and its memory is given up for good.
   * EBUSY: somebody holds a page; the device stays. Absent: the driver cannot.
   */
  unplug?(): Sleeps<Result>;
  /** Unload: evict everything, unmap the pagemaps. */
  remove(): Sleeps<void>;
  stats(): DriverStats;
  /** Give up all memory, of which no page is in use; `reset` gets some again. Absent: the driver cannot be reset. */
  releaseMemory?(): Sleeps<void>;
  /**
   * As after `probe`, so that the driver's numbers and frames come in the same order again. Precondition: no mirror is open, no page
   * in use. Absent: the driver cannot.
   * @param frames pages of device memory to hand out, at the most
   */
  reset?(frames: number): void;
  /** For checkers, at rest. Absent: the checkers do not look at this driver's mappings. */
  inspect?(): DriverInspection;
}
