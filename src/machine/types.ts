/** The public face of a machine: what `boot()` returns. Results are data; nothing here is global. */
import type { ProgramArgs } from '../abi/control.js';
import type { Errno } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import type { AddressingName } from '../mm/addressing/addressing.js';
import type { ClearRefs } from '../mm/clear-refs.js';
import type { Advice } from '../mm/madvise.js';
import type { Protection } from '../mm/mmap.js';
import type { Meminfo, Vmstat } from '../mm/proc-meminfo.js';
import type { ProcessStatus } from '../mm/proc-status.js';
import type { UserfaultfdFeatures, UserfaultMessage } from '../mm/userfaultfd-context.js';
import type { MachineSpec } from './spec.js';

export type { Protection };
export type Addressing = AddressingName;
export type ExecutorKind = MachineSpec['executor'];

/** Element types of typed reads and writes. */
export interface ElementArrays {
  u8: Uint8Array;
  i32: Int32Array;
  u32: Uint32Array;
  f32: Float32Array;
  f64: Float64Array;
}
export type ElementType = keyof ElementArrays;

/** A range of virtual addresses, in bytes; `start` is page-aligned where it comes from `mmap`. Addresses are numbers below 2^47. */
export interface VirtRange {
  readonly start: number;
  readonly length: number;
}

/** Outcome of a migration, in pages of 4 KiB. `migrated` pages now live where they were sent; `collected` were candidates. */
export interface MigrateResult {
  readonly requested: number;
  readonly collected: number;
  readonly migrated: number;
  /** Folios that they were: a huge page is one. */
  readonly folios: number;
  /**
   * 0, or why not all of the range could be moved: ENOENT (some page is not on the device afterwards: held, of a file, or there is no
   * memory), EINVAL (a hole, or memory that may not be read; what is before it has moved), ENOMEM.
   */
  readonly errno: 0 | Errno;
}

/** Whole pages that a driver read or wrote through its device's page table. */
export interface DeviceAccess {
  /** 0, or why the access ended early. */
  readonly errno: 0 | Errno;
  /** Pages done, from the first on. */
  readonly pages: number;
  /** Rounds of faults that were served for it: each is for all the rest of the range. */
  readonly faults: number;
  /** First 64-bit word of each page that was read; empty after a write. */
  readonly words: BigUint64Array;
  /** Pages of them whose last word is not their first. */
  readonly torn: number;
}

export interface LaunchOptions {
  /** Lanes to run. */
  readonly lanes: number;
  /** Lanes of a work group. Default 64. */
  readonly groupSize?: number;
  readonly args?: ProgramArgs;
}

export interface LaunchResult {
  readonly program: string;
  readonly lanes: number;
  /** Fault records sent to the driver. */
  readonly faults: number;
  /** Loads, stores and atomics on the process's memory; one that was replayed after a fault counts once. */
  readonly operations: number;
}

export { DMIRROR_PROT } from '../abi/dmirror.js';
export { decodePagemap, type PagemapEntry, type PagemapKind } from '../abi/pagemap-word.js';
export type { ClearRefs } from '../mm/clear-refs.js';
export type { Advice } from '../mm/madvise.js';
export type { Meminfo, Vmstat } from '../mm/proc-meminfo.js';
export type { ProcessStatus } from '../mm/proc-status.js';
export type { UserfaultMessage } from '../mm/userfaultfd-context.js';

/** Files of /proc that can be had as text; `iomem` has the device private address space under a heading of its own. */
export type ProcFile = 'iomem' | 'meminfo' | 'vmstat';
export type ProcPidFile = 'maps' | 'smaps' | 'status';

export interface MirrorOptions {
  /**
   * What the driver does with a device fault: `migrate` brings the page into the device's memory (default, what GPU drivers
   * do), `mirror` maps the page where it is (what Linux's test_hmm does). In the memory of a coherent device it stays anyway.
   */
  readonly onFault?: 'migrate' | 'mirror';
}

/**
 * One device's view of one process (an open file of the device). `fork` copies it: the child's copy still acts on the parent's
 * memory. Closing the last copy evicts everything from the device, of every process, as Linux's test driver does.
 */
export interface Mirror extends AsyncDisposable {
  /** The device's index in `MachineSpec.devices`. */
  readonly device: number;
  /**
   * Move a page-aligned range. What cannot be moved is no error but told by the result.
   * @throws PfnlessError ERR_PFNLESS_ARGUMENT on a bad range; ERR_PFNLESS_DEVICE_LOST
   */
  migrate(range: VirtRange, to: 'device' | 'system'): Promise<MigrateResult>;
  /**
   * Run a compute program: the name of a built-in (`COMPUTE_PROGRAMS`), or the URL of a module whose default export is a `ComputeProgram`.
   * @throws PfnlessError ERR_PFNLESS_ARGUMENT for a name that no built-in has; ERR_PFNLESS_FAULT when a lane touched memory it may not;
   * ERR_PFNLESS_PROGRAM when the program threw, or its module cannot be loaded; ERR_PFNLESS_DEVICE_LOST when the device died
   */
  launch(program: string | URL, options: LaunchOptions): Promise<LaunchResult>;
  /** The driver's read: through the device's page table, faulting as the device would. @throws ERR_PFNLESS_ERRNO */
  read(start: number, length: number): Promise<Uint8Array>;
  /** The driver's write. @throws ERR_PFNLESS_ERRNO */
  write(start: number, bytes: Uint8Array): Promise<void>;
  /**
   * Linux's HMM_DMIRROR_READ: the first word of each page, faulting pages in as the device would. Here and below `errno` of the result
   * is EFAULT where nothing is mapped or the access is not allowed, ENOMEM where memory ran out.
   */
  readPages(range: VirtRange): Promise<DeviceAccess>;
  /** HMM_DMIRROR_WRITE: fill each page with its word. Pages before the one that failed may have been written. */
  writePages(range: VirtRange, words: ArrayLike<bigint>): Promise<DeviceAccess>;
  /** As `readPages`, but without faults: ENOENT where the device maps a page not at all. */
  peekPages(range: VirtRange): Promise<DeviceAccess>;
  /** HMM_DMIRROR_EXCLUSIVE: take pages away from the CPU for atomics, one by one until one cannot be had, and read them. */
  exclusive(range: VirtRange): Promise<DeviceAccess>;
  /** Is any page of the range exclusive on this mirror? Where nothing is mapped none is. */
  isExclusive(range: VirtRange): Promise<boolean>;
  /** Let the next allocation of one page fail that is made for this mirror, on the device or on the way home. */
  failNextAllocation(): Promise<void>;
  /** Evict all memory of the device, of every process, and give it up. @throws ERR_PFNLESS_ERRNO (EBUSY: a page is held) */
  releaseChunks(): Promise<void>;
  /** `DMIRROR_PROT` of each page, 0xff (ERROR) where nothing can be read, without changing anything. @throws ERR_PFNLESS_ERRNO */
  snapshot(range: VirtRange): Promise<Uint8Array>;
  /** Refuses further calls, and waits for those in flight, launches too. Twice is fine. */
  close(): Promise<void>;
}

export interface MremapOptions {
  /** New length in bytes, rounded up to pages. Default: as it is. */
  readonly length?: number;
  /** Where to (MREMAP_FIXED): what is mapped there goes away. Default: where it is, or where there is room. */
  readonly to?: number;
  /** It may go elsewhere if it cannot stay (MREMAP_MAYMOVE). Default true. */
  readonly mayMove?: boolean;
  /** The old range stays mapped, without its pages (MREMAP_DONTUNMAP). Default false. */
  readonly dontUnmap?: boolean;
}

export interface MmapOptions {
  /** Bytes; rounded up to pages. */
  readonly length: number;
  /** Fixed address (MAP_FIXED). Default: the kernel chooses. */
  readonly at?: number;
  /** Default `rw`. */
  readonly protection?: Protection;
  /** Shared with the processes that `fork` makes, and with the file (MAP_SHARED), or each to its own (MAP_PRIVATE, default). */
  readonly shared?: boolean;
  /**
   * Huge pages from the machine's pool (MAP_HUGETLB, `hugetlbPages` of its spec): private anonymous memory, whose length is
   * rounded up to 2 MiB. Default false.
   */
  readonly hugetlb?: boolean;
  /** What to map: an open file, or the file of a device, given by a mirror. Default: anonymous memory. */
  readonly file?: MachineFile | Mirror;
  /** Byte of the file at which the mapping begins, a multiple of the page size. Default 0. */
  readonly offset?: number;
}

/** Contents of a new file: bytes, or zeroes. */
export type FileInput = Uint8Array | { readonly size: number };

/**
 * An open file without a name (O_TMPFILE) on a disk of the machine: what processes map and what is read and written here goes
 * through one page cache, so both see the same. Its pages live as long as it is open or mapped.
 */
export interface MachineFile extends AsyncDisposable {
  /** Length in bytes. */
  readonly size: number;
  /** `pread()`: fewer bytes at the end of the file. @throws PfnlessError ERR_PFNLESS_ERRNO (ENOMEM) */
  read(offset: number, length: number): Promise<Uint8Array>;
  /**
   * `pwrite()`: returns the bytes written, fewer when RAM ran out on the way. Behind the end the file grows, with zeroes in
   * between. @throws PfnlessError ERR_PFNLESS_ERRNO (ENOMEM)
   */
  write(offset: number, bytes: Uint8Array): Promise<number>;
  /**
   * `ftruncate()`: mappings lose what is behind the new end, private copies too; a touch of it is SIGBUS.
   * @param size bytes, up to 2^48
   */
  truncate(size: number): Promise<void>;
  /**
   * `fsync()`: everything that was written before, by whatever way, is on disk.
   * @throws PfnlessError ERR_PFNLESS_ERRNO (EIO, once: memory that had some of it failed before it could be written)
   */
  sync(): Promise<void>;
  /** What is on disk, past the page cache: what a crash would leave. Fewer bytes at the end of the file. */
  stored(offset: number, length: number): Promise<Uint8Array>;
  /** Page offsets of the pages that are in the page cache. */
  cached(): Promise<readonly number[]>;
  /** Mappings of the file stay. Twice is fine. */
  close(): Promise<void>;
}

/** Sums in kB over a range: `shc`, `shd`, `prc`, `prd` are Shared and Private, Clean and Dirty. */
export interface SmapsSummary {
  readonly rss: number;
  readonly pss: number;
  readonly anon: number;
  /** AnonHugePages. */
  readonly ahp: number;
  readonly swap: number;
  readonly shc: number;
  readonly shd: number;
  readonly prc: number;
  readonly prd: number;
  readonly shmem_pmd: number;
  /** Referenced. */
  readonly ref: number;
  /** LazyFree. */
  readonly lazy: number;
  /** Locked. */
  readonly lck: number;
  /** Each mapping: first page in the range, pages, permissions as /proc/PID/maps prints them. */
  readonly vmas: readonly (readonly [page: number, pages: number, permissions: string])[];
}

/** A load, store or atomic addition of a 32-bit word, at a multiple of 4. */
export interface WordOperation {
  readonly kind: 'load' | 'store' | 'add';
  readonly address: number;
  /** What to store or to add, a 32-bit integer. */
  readonly value?: number;
}

export interface WordResult {
  readonly outcome: 'done' | 'SIGSEGV' | 'SIGBUS' | 'ENOMEM';
  /** The word as a load or addition found it; 0 otherwise. */
  readonly found: number;
}

export interface PinOptions {
  /** The holder writes to the pages: a copy-on-write page is copied now (FOLL_WRITE). Default false. */
  readonly write?: boolean;
  /**
   * `longterm` (FOLL_PIN and FOLL_LONGTERM, as an RDMA card pins; default): all pages or none. `get`: plain references, as
   * vmsplice takes them, for as many pages as can be had.
   */
  readonly kind?: 'longterm' | 'get';
}

/** Pages that somebody holds: they stay where they are, whatever the process does. The process's exit releases them. */
export interface Pin extends AsyncDisposable {
  /** How many. */
  readonly pages: number;
  /** What is in the pages now, past any page table. */
  read(): Promise<Uint8Array>;
  release(): Promise<void>;
}

/** PR_MCE_KILL: whether a process hears of memory that fails at once, or with its next touch. */
export type MceKillPolicy = 'early' | 'late';

/** Features that are asked for (UFFD_FEATURE_*), by default none. */
export type UserfaultfdOptions = UserfaultfdFeatures;

/**
 * A userfaultfd of a process, for write protection: who registers memory and protects it hears of the first store to each page, and
 * whoever stores sleeps until that is resolved. Linux: fs/userfaultfd.c in the mode UFFDIO_REGISTER_MODE_WP. `pagemap` shows
 * what is protected (bit 57). A device's store to what is protected fails (EFAULT), since a driver's fault cannot wait.
 */
export interface Userfaultfd extends AsyncDisposable {
  /** Faults that sleep until somebody wakes them. */
  readonly waiting: number;
  /**
   * UFFDIO_REGISTER. @throws PfnlessError ERR_PFNLESS_ERRNO (EINVAL: nothing is mapped, or memory of a file or of the pool of huge
   * pages, which the first only `wpAsync` can watch; EPERM, EBUSY: another userfaultfd has it)
   */
  register(range: VirtRange): Promise<void>;
  /** UFFDIO_UNREGISTER: nothing of the range is protected any more. Who sleeps is not woken. @throws ERR_PFNLESS_ERRNO (EINVAL) */
  unregister(range: VirtRange): Promise<void>;
  /**
   * UFFDIO_WRITEPROTECT_MODE_WP: stores to the range are heard of from now on. What was never touched is protected only in
   * shared memory, or with `wpUnpopulated`. @throws ERR_PFNLESS_ERRNO (ENOENT: not registered, ENOMEM)
   */
  protect(range: VirtRange): Promise<void>;
  /** UFFDIO_WRITEPROTECT without the mode: the range may be written; who waits for that goes on. @throws ERR_PFNLESS_ERRNO (ENOENT) */
  resolve(range: VirtRange, options?: { readonly wake?: boolean }): Promise<void>;
  /** UFFDIO_WAKE: accesses that sleep are made again. */
  wake(range: VirtRange): Promise<void>;
  /** Faults that were not read of yet, the oldest first; none: nobody waits (EAGAIN). */
  read(): Promise<readonly UserfaultMessage[]>;
  /** Nothing is protected or registered any more, and nobody sleeps. The process's exit does so too. */
  close(): Promise<void>;
}

/**
 * An emulated process: one mm, one CPU task. Calls that would give it more mappings than `maxMapCount` of the machine's spec are refused:
 * ENOMEM, of madvise EAGAIN.
 */
export interface Process extends AsyncDisposable {
  readonly pid: number;
  /** Anonymous memory, or a file's. @throws PfnlessError ERR_PFNLESS_ERRNO (ENOMEM; ENODEV: the device has nothing to map) */
  mmap(options: MmapOptions): Promise<VirtRange>;
  /** Unmap whatever is mapped in the range; holes are fine. @throws ERR_PFNLESS_ERRNO (EINVAL: a part of a hugetlb page) */
  munmap(range: VirtRange): Promise<void>;
  /** Change the protection. @throws ERR_PFNLESS_ERRNO (ENOMEM: there is a hole, what is before it has been changed) */
  mprotect(range: VirtRange, protection: Protection): Promise<void>;
  /** Move, grow or shrink a mapping. @throws ERR_PFNLESS_ERRNO (EINVAL, EFAULT: not mapped, ENOMEM) */
  mremap(range: VirtRange, options?: MremapOptions): Promise<VirtRange>;
  /**
   * `msync(MS_SYNC)`: what was written through shared mappings of files is on disk.
   * @throws ERR_PFNLESS_ERRNO (ENOMEM: there is a hole, the rest has been written)
   */
  msync(range: VirtRange): Promise<void>;
  /**
   * HWPOISON lets the pages that are there fail, SOFT_OFFLINE takes them out of use unnoticed (both one page of a huge page).
   * @throws ERR_PFNLESS_ERRNO (ENOMEM: there is a hole; EINVAL: not for this mapping; EBUSY, EFAULT, EHWPOISON, ENXIO, EIO: of the last two)
   */
  madvise(range: VirtRange, advice: Advice): Promise<void>;
  /**
   * Keep pages in RAM: those of the range come now, or with `onFault` when they are touched; devices may still take them.
   * @throws ERR_PFNLESS_ERRNO (ENOMEM: there is a hole, or a page that may not be accessed; EAGAIN: no RAM)
   */
  mlock(range: VirtRange, options?: { readonly onFault?: boolean }): Promise<void>;
  /** Pages of the range need not stay in RAM any longer. @throws ERR_PFNLESS_ERRNO (ENOMEM: there is a hole) */
  munlock(range: VirtRange): Promise<void>;
  /** A child with a copy of this process's memory and open mirrors. @throws ERR_PFNLESS_ERRNO (ENOMEM) */
  fork(): Promise<Process>;
  /** Mirrors that are open, the oldest first; after a fork, the child's copies of its parent's. */
  readonly mirrors: readonly Mirror[];
  /** CPU reads: fault like loads. @throws PfnlessError ERR_PFNLESS_FAULT (SIGSEGV, SIGBUS; OOM is SIGBUS with ENOMEM) */
  read(start: number, length: number): Promise<Uint8Array>;
  /** CPU writes: fault like stores. @throws PfnlessError ERR_PFNLESS_FAULT; what is before the fault has been written */
  write(start: number, bytes: Uint8Array): Promise<void>;
  /** Typed forms, with the same errors: `start` is aligned to the element. */
  readArray<T extends ElementType>(type: T, start: number, count: number): Promise<ElementArrays[T]>;
  writeArray<T extends ElementType>(type: T, start: number, values: ElementArrays[T]): Promise<void>;
  /**
   * /proc/PID/pagemap as root reads it: the 64-bit word of each page. `decodePagemap` says what is in it: present (bit 63), swapped or
   * on a device (62), of a file (61), protected (57), mapped here only (56), soft-dirty (55), and a PFN or a type and a number.
   */
  pagemap(range: VirtRange): Promise<BigUint64Array>;
  /** `mincore()` of each page: 1 in core, 0 not, -1 where nothing is mapped. */
  mincore(range: VirtRange): Promise<Int32Array>;
  /** The sums of /proc/PID/smaps over a range, in kB, and its mappings. */
  smaps(range: VirtRange): Promise<SmapsSummary>;
  /** The memory rows of /proc/PID/status, in kB. */
  status(): Promise<ProcessStatus>;
  /** A file of /proc/PID as text. */
  proc(file: ProcPidFile): Promise<string>;
  /**
   * /proc/PID/clear_refs: forget which pages were accessed, in `all` mappings (Linux's 1), in `anonymous` ones (2), in those that
   * have a file, `mapped` (3); or, with `soft-dirty` (4), which were written: afterwards bit 55 of `pagemap` says what has been
   * written since.
   */
  clearRefs(what: ClearRefs): Promise<void>;
  /**
   * Hold pages of a range. Device private ones come home first, and for long also those of coherent devices.
   * @throws PfnlessError ERR_PFNLESS_ERRNO (EFAULT, ENOMEM; EBUSY: a coherent page must leave its device, but is held there)
   */
  pin(range: VirtRange, options?: PinOptions): Promise<Pin>;
  /** `prctl(PR_MCE_KILL)`; the default is `late`. Children inherit it. */
  mceKill(policy: MceKillPolicy): Promise<void>;
  /** Addresses whose memory has failed, as an `early` process was told (SIGBUS, BUS_MCEERR_AO), the oldest first. */
  memoryErrors(): Promise<readonly VirtAddr[]>;
  /** `userfaultfd()` and UFFDIO_API. */
  userfaultfd(options?: UserfaultfdOptions): Promise<Userfaultfd>;
  /**
   * Run loads and stores of 32-bit words, one after the other, on one of the machine's CPUs (1 to `spec.cpus`), which walks the
   * page tables by itself while the kernel and others are at work. What ends in a signal is passed over; lists for the same CPU
   * wait for each other.
   * @throws PfnlessError ERR_PFNLESS_ARGUMENT when the machine has no such CPU
   */
  execute(cpu: number, operations: readonly WordOperation[]): Promise<readonly WordResult[]>;
  /** Open this process on a device, by index or name. @throws PfnlessError ERR_PFNLESS_ARGUMENT, ERR_PFNLESS_ERRNO (ENOMEM), ERR_PFNLESS_DEVICE_LOST */
  mirror(device: number | string, options?: MirrorOptions): Promise<Mirror>;
  /**
   * Waits for calls in flight, those of its mirrors too (a program without an end ends with its device: `killDevice`), unmaps everything,
   * then lets go of pins and closes mirrors. Twice is fine.
   */
  exit(): Promise<void>;
}

/** Counters since boot (vmstat's names where there is one). */
export interface MachineStats {
  readonly cpuFaults: number;
  /** Device fault records that drivers served. */
  readonly deviceFaults: number;
  /** How often a driver took such records, up to 256 at a time. */
  readonly faultBatches: number;
  readonly migratedToDevice: number;
  readonly migratedToRam: number;
  /** Pages that drivers pushed out of device memory to make room. */
  readonly evicted: number;
  /** Invalidations of the CPUs' translations (TLB flushes). */
  readonly tlbShootdowns: number;
  readonly freeRamPages: number;
  /** The pool of huge pages: HugePages_Total, Free and Rsvd of /proc/meminfo. */
  readonly hugetlb: { readonly total: number; readonly free: number; readonly reserved: number };
  /** CPUs beside the kernel's own: translations found in the TLB, walks, faults, and shootdowns that met it at work. */
  readonly cpus: readonly {
    readonly hits: number;
    readonly walks: number;
    readonly faults: number;
    readonly shootdowns: number;
  }[];
  readonly devices: readonly {
    readonly name: string;
    /** Why it is lost, `null` while it lives; the rest is then what it said last. */
    readonly lost: string | null;
    /** Pages of its memory. */
    readonly usedPages: number;
    readonly freePages: number;
    readonly tlbHits: number;
    readonly tlbMisses: number;
    readonly copiedPages: number;
    /** Loads, stores and atomics of lanes on processes' memory. */
    readonly operations: number;
  }[];
}

/** Something that must not be. */
export interface Violation {
  /** What is violated, e.g. `frames-conserved`: `INVARIANTS` has them all. */
  readonly invariant: string;
  readonly message: string;
}

export interface Machine extends AsyncDisposable {
  readonly spec: MachineSpec;
  readonly deviceCount: number;
  /** A new process without any mapping. @throws PfnlessError ERR_PFNLESS_ERRNO (ENOMEM) */
  process(): Promise<Process>;
  /** A new file, open, with its contents on disk and nothing of it in RAM. @throws PfnlessError ERR_PFNLESS_ARGUMENT */
  file(input: FileInput): Promise<MachineFile>;
  /** Wait until nothing is in flight. */
  settle(): Promise<void>;
  /** Counters of now; calls in flight may be counted by half. */
  stats(): Promise<MachineStats>;
  /** Look for what must not be (at a quiet moment: settles first). Empty when all is well. */
  check(): Promise<readonly Violation[]>;
  /** /proc/meminfo, in kB. */
  meminfo(): Meminfo;
  /** /proc/vmstat: pages, and events since boot. */
  vmstat(): Vmstat;
  /** /proc/kpageflags as root reads it: KPF_* bits of `count` page frames; fewer words where RAM ends. */
  kpageflags(pfn: number, count: number): BigUint64Array;
  /** /proc/kpagecount: how many page table entries map each of `count` page frames. */
  kpagecount(pfn: number, count: number): BigUint64Array;
  /**
   * /sys/devices/system/memory/hard_offline_page, by frame number: the page fails. Processes lose it with what it holds, and get
   * SIGBUS when they touch it; what can be read again from a file or from swap is. The frame is never used again.
   * @throws PfnlessError ERR_PFNLESS_ERRNO (EBUSY: it stays in use, or is a device's, or no memory is there; EHWPOISON: it has failed
   * before, or a huge page does not come apart; ENXIO: nobody knows what is there)
   */
  hardOfflinePage(pfn: number): Promise<void>;
  /**
   * soft_offline_page: what the page holds moves to another, and nobody notices.
   * @throws PfnlessError ERR_PFNLESS_ERRNO (EBUSY: somebody holds it; ENOMEM: there is nowhere to move it; EIO: a device's, or not for
   * users; ENXIO: nothing's)
   */
  softOfflinePage(pfn: number): Promise<void>;
  /** A file of /proc as text. */
  proc(file: ProcFile): string;
  /** The physical map in /proc/iomem's format and, under a heading of its own, the device private address space. */
  iomem(): string;
  /**
   * Kill a device as a crash would; for failure tests. Calls on its mirrors fail (ERR_PFNLESS_DEVICE_LOST), what was in its memory is lost:
   * who touches it gets SIGBUS.
   * @param device index or name. @throws PfnlessError ERR_PFNLESS_ARGUMENT when there is none
   */
  killDevice(device: number | string): Promise<void>;
  /** The end of the machine and its threads: calls in flight are refused (ERR_PFNLESS_DISPOSED). Twice is fine. */
  dispose(): Promise<void>;
}
