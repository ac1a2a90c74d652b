/**
 * An emulated process as users hold it. Everything it does to memory is a kernel task, so calls may overlap: the kernel's
 * own locks decide, as they do for the threads of a real process.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { type Result, VM_FAULT_HWPOISON, VM_FAULT_OOM, VM_FAULT_SIGSEGV } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import { formatAddress, formatBytes } from '../base/bytes.js';
import { PfnlessError } from '../base/errors.js';
import { clearRefs } from '../mm/clear-refs.js';
import { forkMm } from '../mm/fork.js';
import { getPagesInTurns, pinUserPages } from '../mm/gup.js';
import { isHugetlb } from '../mm/hugetlb.js';
import type { Kernel } from '../mm/kernel.js';
import { doMadvise } from '../mm/madvise.js';
import { doMlock, doMunlock } from '../mm/mlock.js';
import { exitMm, type MmStruct } from '../mm/mm-struct.js';
import { doMmap, doMunmap, wholeLength } from '../mm/mmap.js';
import { doMprotect } from '../mm/mprotect.js';
import { doMremap } from '../mm/mremap.js';
import { doMsync } from '../mm/page-writeback.js';
import { mincoreRange, pagemapWord } from '../mm/proc-pagemap.js';
import { mapsText, smapsRange, smapsText } from '../mm/proc-smaps.js';
import { processStatus, processStatusText } from '../mm/proc-status.js';
import { copyFromUser, copyToUser, type UserAccess } from '../mm/uaccess.js';
import { vmaLookup } from '../mm/vma.js';
import type { Sleeps } from '../sync/task.js';
import {
  type PageRange,
  requireAccess,
  requireAdvice,
  requireBytes,
  requireClearRefs,
  requireCpu,
  requireDevice,
  requireElements,
  requireLook,
  requireMceKillPolicy,
  requireMirrorOptions,
  requireMlockOptions,
  requireMmapOptions,
  requireMremapOptions,
  requirePageRange,
  requirePinOptions,
  requireProcPidFile,
  requireProtection,
  requireValues,
  requireWordOperations,
} from './arguments.js';
import { FaultError } from './errors.js';
import { Lifetime } from './lifetime.js';
import { holding, requireMappable } from './mappable.js';
import { DeviceMirror } from './mirror.js';
import { OpenMirror } from './open-mirror.js';
import { PagePin } from './pin.js';
import type { MachineState } from './state.js';
import type {
  Advice,
  ClearRefs,
  ElementArrays,
  ElementType,
  MceKillPolicy,
  Mirror,
  MirrorOptions,
  MmapOptions,
  MremapOptions,
  Pin,
  PinOptions,
  Process,
  ProcessStatus,
  ProcPidFile,
  Protection,
  SmapsSummary,
  Userfaultfd,
  UserfaultfdOptions,
  VirtRange,
  WordOperation,
  WordResult,
} from './types.js';
import { EmulatedUserfaultfd } from './userfaultfd.js';
import { decodeWordOps, encodeWordOps } from './word-ops.js';

export interface ProcessParts {
  readonly machine: MachineState;
  readonly machineLife: Lifetime;
  readonly mm: MmStruct;
  nextPid(): number;
  /** A process for an address space that was made by fork. */
  adopt(mm: MmStruct): EmulatedProcess;
  /** Called when the process has exited. */
  onExit(process: Process): void;
}

export class EmulatedProcess implements Process {
  readonly pid: number;
  readonly #parts: ProcessParts;
  readonly #life: Lifetime;
  /** Those that are being closed, too: `exit` waits for them. */
  readonly #mirrors = new Set<DeviceMirror>();
  readonly #pins = new Set<PagePin>();
  readonly #userfaultfds = new Set<EmulatedUserfaultfd>();

  constructor(parts: ProcessParts) {
    this.pid = parts.mm.pid;
    this.#parts = parts;
    this.#life = new Lifetime(`process ${this.pid} has exited`, parts.machineLife);
  }

  mmap(options: MmapOptions): Promise<VirtRange> {
    return this.#life.call(async () => {
      requireMmapOptions(options);
      const { length, at, protection: prot = 'rw', shared = false, hugetlb = false, offset = 0 } = options;
      const { machine, mm } = this.#parts;
      const kind = shared ? ('shared' as const) : ('private' as const);
      const file = options.file === undefined ? null : requireMappable(options.file, machine);
      const request = {
        ...{ length, prot, kind, hugetlb, fixed: at !== undefined },
        ...(at === undefined ? {} : { addr: at as VirtAddr }),
        ...(file === null ? {} : { file: { file, pgoff: offset / PAGE_SIZE } }),
      };
      const task = holding(machine.kernel, file, doMmap(machine.kernel, mm, request));
      const start = await machine.executor.run(this.#name('mmap'), task);
      if (typeof start === 'string') throw this.#errnoError(`cannot map ${formatBytes(length)}`, start);
      return { start, length: wholeLength(length, hugetlb) };
    });
  }

  munmap(range: VirtRange): Promise<void> {
    return this.#life.call(async () => {
      const at = requirePageRange(range);
      const { machine, mm } = this.#parts;
      const task = doMunmap(machine.kernel, mm, at.start, at.length);
      const errno = await machine.executor.run(this.#name('munmap'), task);
      if (errno !== 0) throw this.#errnoError(`cannot unmap ${formatBytes(at.length)}`, errno);
    });
  }

  mprotect(range: VirtRange, protection: Protection): Promise<void> {
    return this.#life.call(async () => {
      const at = requirePageRange(range);
      requireProtection(protection);
      const { machine, mm } = this.#parts;
      const task = doMprotect(machine.kernel, mm, at.start, at.length, protection);
      this.#requireDone(
        `cannot protect ${formatBytes(at.length)}`,
        await machine.executor.run(this.#name('mprotect'), task),
      );
    });
  }

  mremap(range: VirtRange, options: MremapOptions = {}): Promise<VirtRange> {
    return this.#life.call(async () => {
      const at = requirePageRange(range);
      const { length, to, mayMove, dontUnmap } = requireMremapOptions(at, options);
      const { machine, mm } = this.#parts;
      const flags = {
        maymove: mayMove,
        dontunmap: dontUnmap,
        ...(to === undefined ? {} : { fixedAt: to as VirtAddr }),
      };
      const task = doMremap(machine.kernel, mm, at.start, at.length, length, flags);
      const start = await machine.executor.run(this.#name('mremap'), task);
      if (typeof start === 'string') throw this.#errnoError(`cannot remap ${formatBytes(at.length)}`, start);
      const vma = vmaLookup(mm, start);
      return { start, length: wholeLength(length, vma !== undefined && isHugetlb(vma)) };
    });
  }

  madvise(range: VirtRange, advice: Advice): Promise<void> {
    return this.#life.call(async () => {
      const at = requirePageRange(range);
      requireAdvice(advice);
      const { machine, mm } = this.#parts;
      const task = doMadvise(machine.kernel, mm, at.start, at.length, advice);
      const errno = await machine.executor.run(this.#name('madvise'), task);
      this.#requireDone(`cannot advise ${advice} on ${formatBytes(at.length)}`, errno);
    });
  }

  msync(range: VirtRange): Promise<void> {
    return this.#life.call(async () => {
      const at = requirePageRange(range);
      const { machine, mm } = this.#parts;
      const task = doMsync(machine.kernel, mm, at.start, at.length);
      const errno = await machine.executor.run(this.#name('msync'), task);
      this.#requireDone(`cannot write back ${formatBytes(at.length)}`, errno);
    });
  }

  mlock(range: VirtRange, options: { readonly onFault?: boolean } = {}): Promise<void> {
    return this.#life.call(async () => {
      const at = requirePageRange(range);
      const onFault = requireMlockOptions(options);
      const { machine, mm } = this.#parts;
      const task = doMlock(machine.kernel, mm, at.start, at.length, onFault);
      this.#requireDone(`cannot lock ${formatBytes(at.length)}`, await machine.executor.run(this.#name('mlock'), task));
    });
  }

  munlock(range: VirtRange): Promise<void> {
    return this.#life.call(async () => {
      const at = requirePageRange(range);
      const { machine, mm } = this.#parts;
      const task = doMunlock(machine.kernel, mm, at.start, at.length);
      this.#requireDone(
        `cannot unlock ${formatBytes(at.length)}`,
        await machine.executor.run(this.#name('munlock'), task),
      );
    });
  }

  fork(): Promise<Process> {
    return this.#life.call(async () => {
      const { machine, mm, adopt, nextPid } = this.#parts;
      const copy = await machine.executor.run(this.#name('fork'), forkMm(machine.kernel, mm, nextPid()));
      if (copy === undefined) throw this.#errnoError('cannot fork', 'ENOMEM');
      const child = adopt(copy);
      for (const mirror of this.#mirrors) if (!mirror.ended) child.#inherit(mirror);
      return child;
    });
  }

  get mirrors(): readonly Mirror[] {
    return [...this.#mirrors].filter(({ ended }) => !ended);
  }

  /** A copy of an open mirror of the parent's. */
  #inherit(mirror: DeviceMirror): void {
    const onClosed = (closed: DeviceMirror) => this.#mirrors.delete(closed);
    this.#mirrors.add(mirror.inherit({ pid: this.pid, process: this.#life, onClosed }));
  }

  #requireDone(what: string, errno: Result): void {
    if (errno !== 0) throw this.#errnoError(what, errno);
  }

  read(start: number, length: number): Promise<Uint8Array> {
    return this.#life.call(async () => {
      requireAccess(start, length);
      const out = new Uint8Array(length);
      await this.#load(start, out);
      return out;
    });
  }

  write(start: number, bytes: Uint8Array): Promise<void> {
    return this.#life.call(async () => {
      requireBytes(bytes);
      requireAccess(start, bytes.length);
      await this.#store(start, bytes);
    });
  }

  readArray<T extends ElementType>(type: T, start: number, count: number): Promise<ElementArrays[T]> {
    return this.#life.call(async () => {
      const values = requireElements(type, start, count);
      await this.#load(start as VirtAddr, bytesOf(values));
      return values;
    });
  }

  writeArray<T extends ElementType>(type: T, start: number, values: ElementArrays[T]): Promise<void> {
    return this.#life.call(async () => {
      requireValues(type, start, values);
      await this.#store(start as VirtAddr, bytesOf(values));
    });
  }

  mirror(device: number | string, options: MirrorOptions = {}): Promise<Mirror> {
    return this.#life.call(async () => {
      const { machine, mm } = this.#parts;
      const found = requireDevice(machine.devices, device);
      const onFault = requireMirrorOptions(options);
      const { link, driver, spec } = found;
      if (link.lost) throw link.lost;
      const opened = await machine.executor.run(this.#name(`open ${spec.name}`), driver.open(mm, { onFault }));
      const mirror = new DeviceMirror({
        machine,
        device: found,
        open: new OpenMirror(opened),
        pid: this.pid,
        process: this.#life,
        onClosed: (closed) => this.#mirrors.delete(closed),
      });
      this.#mirrors.add(mirror);
      return mirror;
    });
  }

  pagemap(range: VirtRange): Promise<BigUint64Array> {
    return this.#look(range, (kernel, mm, { start, pages }) =>
      BigUint64Array.from({ length: pages }, (_, at) => pagemapWord(kernel, mm, (start + at * PAGE_SIZE) as VirtAddr)),
    );
  }

  mincore(range: VirtRange): Promise<Int32Array> {
    return this.#look(range, (kernel, mm, { start, pages }) => {
      const out = new Int32Array(pages);
      mincoreRange(kernel, mm, start, out);
      return out;
    });
  }

  smaps(range: VirtRange): Promise<SmapsSummary> {
    return this.#look(range, (kernel, mm, { start, pages }) => smapsRange(kernel, mm, start, pages));
  }

  status(): Promise<ProcessStatus> {
    return this.#life.call(() => this.#lookAtMm((_kernel, mm) => processStatus(mm)));
  }

  proc(file: ProcPidFile): Promise<string> {
    return this.#life.call(async () => {
      requireProcPidFile(file);
      if (file === 'maps') return this.#lookAtMm((_kernel, mm) => mapsText(mm));
      return this.#lookAtMm((kernel, mm) => (file === 'smaps' ? smapsText(kernel, mm) : processStatusText(mm)));
    });
  }

  clearRefs(what: ClearRefs): Promise<void> {
    return this.#life.call(async () => {
      requireClearRefs(what);
      const { machine, mm } = this.#parts;
      await machine.executor.run(this.#name('clear_refs'), clearRefs(machine.kernel, mm, what));
    });
  }

  /** Look at the page tables of a range. */
  #look<T>(range: VirtRange, view: (kernel: Kernel, mm: MmStruct, at: PageRange) => T): Promise<T> {
    return this.#life.call(async () => {
      const at = requireLook(range);
      return this.#lookAtMm((kernel, mm) => view(kernel, mm, at));
    });
  }

  /** Look at the address space under mmap_lock. */
  #lookAtMm<T>(view: (kernel: Kernel, mm: MmStruct) => T): Promise<T> {
    const { machine, mm } = this.#parts;
    function* task(): Sleeps<T> {
      yield* mm.mmapLock.downRead();
      try {
        return view(machine.kernel, mm);
      } finally {
        mm.mmapLock.upRead();
      }
    }
    return machine.executor.run(this.#name('look'), task());
  }

  pin(range: VirtRange, options: PinOptions = {}): Promise<Pin> {
    return this.#life.call(async () => {
      const at = requirePageRange(range);
      const { write, kind } = requirePinOptions(options);
      const { machine, mm } = this.#parts;
      const { kernel, executor } = machine;
      const count = at.pages;
      const pinned = kind === 'longterm';
      const task = pinned
        ? pinUserPages(kernel, mm, at.start, count, { write, longterm: true })
        : getPagesInTurns(kernel, mm, at.start, count, write);
      const pages = await executor.run(this.#name('pin'), task);
      if (typeof pages === 'string') throw this.#errnoError(`cannot hold ${count} pages`, pages);
      const over = `these pages of process ${this.pid} have been released`;
      const pin = new PagePin({ machine, pages, pinned, over, onReleased: (released) => this.#pins.delete(released) });
      this.#pins.add(pin);
      return pin;
    });
  }

  mceKill(policy: MceKillPolicy): Promise<void> {
    return this.#life.call(async () => {
      requireMceKillPolicy(policy);
      this.#parts.mm.killEarly = policy === 'early';
    });
  }

  memoryErrors(): Promise<readonly VirtAddr[]> {
    return this.#life.call(async () => [...this.#parts.mm.memoryErrors]);
  }

  userfaultfd(options: UserfaultfdOptions = {}): Promise<Userfaultfd> {
    return this.#life.call(async () => {
      const { machine, mm } = this.#parts;
      const onClosed = (closed: EmulatedUserfaultfd) => this.#userfaultfds.delete(closed);
      const opened = new EmulatedUserfaultfd({ machine, mm, process: this.#life, onClosed }, options);
      this.#userfaultfds.add(opened);
      return opened;
    });
  }

  execute(cpu: number, operations: readonly WordOperation[]): Promise<readonly WordResult[]> {
    return this.#life.call(async () => {
      const { machine, mm } = this.#parts;
      const found = requireCpu(machine.cpus, cpu);
      requireWordOperations(operations);
      const task = found.run(mm, encodeWordOps(operations));
      return decodeWordOps(await machine.executor.run(this.#name(`loads and stores on CPU ${cpu}`), task));
    });
  }

  exit(): Promise<void> {
    return this.#life.end(async () => {
      // Calls that sleep until a store is allowed would never come back.
      for (const userfaultfd of [...this.#userfaultfds]) await userfaultfd.close();
      await this.#life.idle();
      await Promise.all([...this.#mirrors].map((mirror) => mirror.idle()));
      const { machine, mm, onExit } = this.#parts;
      // As do_exit() has it: nobody else hears of pages that only this process had.
      await machine.executor.run(this.#name('exit'), exitMm(machine.kernel, mm));
      for (const pin of [...this.#pins]) await pin.release();
      for (const mirror of [...this.#mirrors]) await mirror.close();
      onExit(this);
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.exit();
  }

  async #load(start: VirtAddr, out: Uint8Array): Promise<void> {
    const { machine, mm } = this.#parts;
    const access = await machine.executor.run(this.#name('read'), copyFromUser(machine.kernel, mm, start, out));
    this.#requireNoFault('read', access);
  }

  async #store(start: VirtAddr, bytes: Uint8Array): Promise<void> {
    const { machine, mm } = this.#parts;
    const access = await machine.executor.run(this.#name('write'), copyToUser(machine.kernel, mm, start, bytes));
    this.#requireNoFault('write', access);
  }

  #requireNoFault(verb: 'read' | 'write', { fault, address, copied }: UserAccess): void {
    if (fault === 0) return;
    const signal = fault & VM_FAULT_SIGSEGV ? 'SIGSEGV' : 'SIGBUS';
    const errno = fault & VM_FAULT_OOM ? 'ENOMEM' : 'EFAULT';
    const failed = (fault & VM_FAULT_HWPOISON) !== 0;
    let why = failed ? 'the memory has failed' : `the process cannot ${verb} there`;
    if (fault & VM_FAULT_OOM) why = 'there is no memory for the page';
    throw new FaultError(
      `${signal} in process ${this.pid} at 0x${formatAddress(address)}, after ${copied} bytes: ${why}.`,
      { signal, address, errno, siCode: failed ? 'BUS_MCEERR_AR' : null },
    );
  }

  #name(what: string): string {
    return `${what} of process ${this.pid}`;
  }

  #errnoError(what: string, errno: string): PfnlessError {
    return new PfnlessError('ERR_PFNLESS_ERRNO', `Process ${this.pid} ${what}: ${errno}.`, { errno });
  }
}

/** The bytes of a typed array, shared with it. */
const bytesOf = (values: ArrayBufferView): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
