/** What a machine wants of a device driver, whichever it is. Everything that may sleep is a generator for the kernel's thread. */
import type { LaunchReport, LaunchRequest } from '../abi/control.js';
import type { Errno, Result } from '../abi/errno.js';
import type { Page, VirtAddr } from '../base/brand.js';
import type { MmStruct } from '../mm/mm-struct.js';
import type { Sleeps } from '../sync/task.js';

/** Page counts of one migration call. */
export interface MigrateOutcome {
  readonly errno: Result;
  readonly requested: number;
  readonly collected: number;
  readonly migrated: number;
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
  read(start: VirtAddr, out: Uint8Array): Sleeps<Result>;
  write(start: VirtAddr, bytes: Uint8Array): Sleeps<Result>;
  /** HMM_DMIRROR_PROT_* of each page. */
  snapshot(start: VirtAddr, end: VirtAddr): Sleeps<Uint8Array | Errno>;
  /** Run a program and wait for it. The link's own error is thrown if the device dies. */
  launch(request: Omit<LaunchRequest, 'context'>): Sleeps<LaunchReport>;
  /** Release: evicts what the process has on the device. */
  close(): Sleeps<void>;
}

/** What a checker may know of a driver. The page tables themselves it reads from shared memory (`DeviceMemories.pageTables`). */
export interface DriverInspection {
  /** Address spaces that are open on the device, and the word index of their top level tables. */
  readonly contexts: readonly { readonly mm: MmStruct; readonly root: number }[];
  /** Frame of the device's memory that holds a page; `null` for a page that is not this device's. */
  frameOf(page: Page): number | null;
}

export interface DeviceDriver {
  readonly name: string;
  /** Load: take the first chunk of device memory, as the addressing does it. */
  probe(): Result;
  open(mm: MmStruct, options: { readonly onFault: 'migrate' | 'mirror' }): Sleeps<DriverMirror>;
  /** Serve the device's faults for ever: the machine runs this as a background task. */
  serveFaults(): Sleeps<never>;
  /** Unload: evict everything, unmap the pagemaps. */
  remove(): Sleeps<void>;
  stats(): DriverStats;
  /** For checkers, at rest. Absent: the checkers do not look at this driver's mappings. */
  inspect?(): DriverInspection;
}
