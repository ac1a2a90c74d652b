/**
 * The CPU of one task, where a program asks for them (`inject cpus`): a TLB of its own, and instructions that take time. Between
 * translation and access others may run, and what the TLB holds may be old until a shootdown has been answered.
 *
 * A shootdown finds an instruction that has its translation at work: it is answered when the access is done, so the access
 * comes after the entry was changed and before whoever changed it goes on. An access flag or dirty bit was set with the
 * translation, at a time when nobody knew what would become of the page. Linux: arch/x86/mm/tlb.c; how a CPU in a thread does
 * it is in cpu/host-cpu.ts.
 */
import { PAGE_SIZE } from '../abi/address.js';
import { VM_FAULT_OOM } from '../abi/errno.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { kmapLocalPage } from '../mm/highmem.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { CpuTlb, type CpuTranslation, type RemoteCpu } from '../mm/tlbflush.js';
import { translateOn, type UserAccess, userFault } from '../mm/uaccess.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';

/** An instruction between its translation and its access. */
interface InFlight {
  readonly vpn: number;
  readonly page: Page;
}

/** What the CPU does with the bytes of a word. */
type Move = (memory: Uint8Array) => void;

export interface CpuHooks {
  /** May others run here? */
  preempt(): boolean;
  /** Does a store fault on a translation for loads that is still in the TLB, although the entry allows the store by now? */
  faultsOnOld(): boolean;
}

const WORD_BYTES = 4;

export class TaskCpu implements RemoteCpu {
  readonly cpu: number;
  readonly #kernel: Kernel;
  readonly #hooks: CpuHooks;
  readonly #tlb: CpuTlb;
  #mm: MmStruct | null = null;
  #inFlight: InFlight | null = null;
  #move: Move | null = null;
  /** The flush that was asked for last. */
  #start = 0 as VirtAddr;
  #end = 0 as VirtAddr;

  constructor(kernel: Kernel, cpu: number, hooks: CpuHooks) {
    this.cpu = cpu;
    this.#kernel = kernel;
    this.#hooks = hooks;
    this.#tlb = new CpuTlb(cpu);
  }

  /** One instruction that loads or stores a word. */
  *access(mm: MmStruct, addr: VirtAddr, write: boolean, move: Move): Sleeps<UserAccess> {
    this.#mm = mm;
    this.#tlb.switchTo(mm);
    const vpn = Math.floor(addr / PAGE_SIZE);
    for (let starved = false; ; ) {
      const page = this.#translate(mm, addr, vpn, write);
      if (page < 0) {
        const fault = yield* userFault(this.#kernel, mm, addr, write);
        // As in uaccess.ts: out of memory, the instruction is tried again, once.
        if ((fault & VM_FAULT_OOM) !== 0 && !starved) starved = true;
        else if (fault !== 0) return { copied: 0, fault, address: addr };
        continue;
      }
      this.#inFlight = { vpn, page: page as Page };
      this.#move = (memory) => move(memory.subarray(addr % PAGE_SIZE, (addr % PAGE_SIZE) + WORD_BYTES));
      if (this.#hooks.preempt()) yield SCHEDULE_POINT;
      // A shootdown may have found it at work, and waited for it.
      if (this.#inFlight !== null) this.#finish();
      return { copied: WORD_BYTES, fault: 0, address: addr };
    }
  }

  #translate(mm: MmStruct, addr: VirtAddr, vpn: number, write: boolean): number {
    const isOld = write && this.#tlb.lookup(vpn, true) < 0 && this.#tlb.lookup(vpn, false) >= 0;
    return isOld && this.#hooks.faultsOnOld() ? -1 : translateOn(this.#kernel, this.#tlb, mm, addr, write);
  }

  #finish(): void {
    const { page } = this.#inFlight!;
    this.#inFlight = null;
    this.#move!(kmapLocalPage(this.#kernel, page, 0, PAGE_SIZE));
  }

  holds(mm: MmStruct): boolean {
    return this.#mm === mm;
  }

  requestFlush(start: VirtAddr, end: VirtAddr): void {
    this.#start = start;
    this.#end = end;
  }

  awaitFlush(): void {
    const first = this.#start / PAGE_SIZE;
    const end = this.#end / PAGE_SIZE;
    if (this.#inFlight !== null && this.#inFlight.vpn >= first && this.#inFlight.vpn < end) this.#finish();
    this.#tlb.flushRange(this.#start, this.#end);
  }

  translations(): Iterable<CpuTranslation> {
    // Of a process that is gone nothing is used any more.
    return this.#mm !== null && this.#kernel.mms.has(this.#mm) ? this.#tlb.translations() : [];
  }
}
