/**
 * The CPU's loads and stores to user memory: TLB, then the page tables as hardware walks them, then a fault. Linux:
 * arch/x86/mm/fault.c do_user_addr_fault() around mm/memory.c.
 */
import { PAGE_SIZE, TASK_SIZE } from '../abi/address.js';
import { VM_FAULT_ERROR, VM_FAULT_OOM, VM_FAULT_RETRY, VM_FAULT_SIGSEGV, type VmFault } from '../abi/errno.js';
import { halvesPfn } from '../abi/pte-halves.js';
import type { Page, Pfn, VirtAddr } from '../base/brand.js';
import { markEntry } from '../cpu/walk.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';
import { peek32 } from '../sync/word.js';
import { kmapLocalPage } from './highmem.js';
import { findHugePmd } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import { handleMmFault } from './memory.js';
import type { MmStruct } from './mm-struct.js';
import { leafTable, NO_TABLE, pteIndex } from './pgtable.js';
import type { CpuTlb } from './tlbflush.js';
import { vmaLookup } from './vma.js';

/** How far an access got. */
export interface UserAccess {
  /** Bytes done before the fault, or all. */
  readonly copied: number;
  /** 0, or VM_FAULT_SIGSEGV, VM_FAULT_SIGBUS, VM_FAULT_OOM, VM_FAULT_HWPOISON. */
  readonly fault: VmFault;
  /** Address that could not be accessed; meaningless without a fault. */
  readonly address: VirtAddr;
}

/** Load `out.length` bytes from `start`. */
export function copyFromUser(kernel: Kernel, mm: MmStruct, start: VirtAddr, out: Uint8Array): Sleeps<UserAccess> {
  return access(kernel, mm, start, out.length, false, (memory, done) => {
    out.set(memory, done);
  });
}

/** Store `bytes` at `start`. */
export function copyToUser(kernel: Kernel, mm: MmStruct, start: VirtAddr, bytes: Uint8Array): Sleeps<UserAccess> {
  return access(kernel, mm, start, bytes.length, true, (memory, done) => {
    memory.set(bytes.subarray(done, done + memory.length));
  });
}

/** `memory` is some bytes of one page, `done` how many came before them. */
type Mover = (memory: Uint8Array, done: number) => void;

function* access(
  kernel: Kernel,
  mm: MmStruct,
  start: VirtAddr,
  length: number,
  write: boolean,
  move: Mover,
): Sleeps<UserAccess> {
  for (let done = 0; done < length; ) {
    const addr = (start + done) as VirtAddr;
    // The access itself is atomic with respect to the kernel: translation and bytes in one step, as one instruction has it.
    let page = mappedPage(kernel, mm, addr, write);
    if (page < 0) page = yield* userPage(kernel, mm, addr, write);
    if (page < 0) return { copied: done, fault: ~page, address: addr };
    const inPage = addr % PAGE_SIZE;
    const count = Math.min(PAGE_SIZE - inPage, length - done);
    move(kmapLocalPage(kernel, page as Page, inPage, count), done);
    done += count;
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
  }
  return { copied: length, fault: 0, address: start };
}

/**
 * The page that one instruction accesses at `addr`, in RAM or on a coherent device, faulted in as often as it takes; ~VM_FAULT_* where it cannot be had. Who
 * does the access does it before anything else runs.
 */
export function* userPage(kernel: Kernel, mm: MmStruct, addr: VirtAddr, write: boolean): Sleeps<number> {
  for (let starved = false; ; ) {
    const page = mappedPage(kernel, mm, addr, write);
    if (page >= 0) return page;
    const fault = yield* userFault(kernel, mm, addr, write);
    // Out of memory, the instruction is simply tried again (`pagefault_out_of_memory()`); here once, as nobody is killed.
    if ((fault & VM_FAULT_OOM) !== 0 && !starved) starved = true;
    else if (fault !== 0) return ~fault;
  }
}

/**
 * The page that one instruction accesses at `addr`, in RAM or on a coherent device, or -1 where it would fault: for who accesses
 * many, and can do without a generator for most.
 */
export function mappedPage(kernel: Kernel, mm: MmStruct, addr: VirtAddr, write: boolean): number {
  const tlb = kernel.cpus[0];
  tlb.switchTo(mm);
  return translateOn(kernel, tlb, mm, addr, write);
}

/**
 * What a CPU finds at `addr` in its TLB or, as its walker does, in the page tables, or -1. Sets accessed and dirty by
 * compare-exchange. Precondition: the CPU runs `mm`.
 */
export function translateOn(kernel: Kernel, tlb: CpuTlb, mm: MmStruct, addr: VirtAddr, write: boolean): number {
  const vpn = Math.floor(addr / PAGE_SIZE);
  const hit = tlb.lookup(vpn, write);
  if (hit >= 0) return hit;
  if (!(addr >= 0 && addr < TASK_SIZE) || mm.exiting) return -1;
  const table = leafTable(kernel, mm, addr);
  const huge = table === NO_TABLE;
  const at = huge ? findHugePmd(kernel, mm, addr) : table + pteIndex(addr);
  if (at === NO_TABLE) return -1;
  const { halves } = kernel.ram;
  const low = markEntry(halves, at, write);
  if (low === 0) return -1;
  // Only this thread exchanges entries, so the high half belongs to the low one.
  const first = kernel.memmap.pfnToPage(halvesPfn(low, peek32(halves, 2 * at + 1)) as Pfn);
  const page = (huge ? first + pteIndex(addr) : first) as Page;
  // A clean entry is cached read-only, so that the first store walks again and sets the dirty bit.
  tlb.fill(vpn, page, write);
  return page;
}

/** `exc_page_fault()` of an instruction at `addr` on whichever CPU: VM_FAULT_* error bits, 0 to try it again. */
export function* userFault(kernel: Kernel, mm: MmStruct, addr: VirtAddr, write: boolean): Sleeps<VmFault> {
  let userfault: Sleeps<void>;
  yield* mm.mmapLock.downRead();
  try {
    const vma = vmaLookup(mm, addr);
    if (vma === undefined || mm.exiting) return VM_FAULT_SIGSEGV;
    const outcome = yield* handleMmFault(kernel, vma, addr, write);
    if ((outcome & VM_FAULT_RETRY) === 0) return outcome & VM_FAULT_ERROR;
    userfault = vma.userfaultfd!.raise(addr, write);
  } finally {
    mm.mmapLock.upRead();
  }
  yield* userfault;
  return 0;
}
