/**
 * What a userfaultfd is: who hears of faults, and the faults that wait for it. Linux: fs/userfaultfd.c struct userfaultfd_ctx,
 * handle_userfault(), userfaultfd_read(), wake_userfault().
 *
 * A fault is told of once, and sleeps, without mmap_lock, until its address is woken: by who resolves it, or when the userfaultfd
 * is closed. Then the access is made again. Only write protection is modelled: no missing and minor faults, and of the events none
 * but faults, so that nothing ever waits for a reader but those who fault.
 */
import { pageAlignDown } from '../abi/address.js';
import { VM_FAULT_SIGBUS, VM_FAULT_USERFAULT, type VmFault } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import type { MmStruct } from './mm-struct.js';
import type { VmArea } from './vma.js';

/** UFFD_FEATURE_* that can be asked for. */
export interface UserfaultfdFeatures {
  /** WP_UNPOPULATED: what was never touched can be protected too. Shared memory and files always can. */
  readonly wpUnpopulated?: boolean;
  /** WP_ASYNC: nobody is told; the first store takes the protection away by itself. Implies `wpUnpopulated`. */
  readonly wpAsync?: boolean;
  /** SIGBUS: who faults gets a signal, and nobody is told. */
  readonly sigbus?: boolean;
  /** EXACT_ADDRESS: messages name the byte, not the page. */
  readonly exactAddress?: boolean;
}

/** `struct uffd_msg` of a page fault: a store (UFFD_PAGEFAULT_FLAG_WRITE) to a protected page (UFFD_PAGEFAULT_FLAG_WP). */
export interface UserfaultMessage {
  readonly address: VirtAddr;
  readonly write: boolean;
  readonly wp: boolean;
}

/** One who waits (`struct userfaultfd_wait_queue`). */
interface WaitingFault {
  readonly message: UserfaultMessage;
  woken: boolean;
}

export class Userfaultfd {
  readonly mm: MmStruct;
  readonly features: Required<UserfaultfdFeatures>;
  /** It is closed, or about to be: nobody waits for it any more. */
  released = false;
  /** Faults that nobody has read of yet, the oldest first; and those that somebody has. */
  readonly #pending: WaitingFault[] = [];
  readonly #told: WaitingFault[] = [];

  constructor(mm: MmStruct, features: UserfaultfdFeatures) {
    const { wpUnpopulated = false, wpAsync = false, sigbus = false, exactAddress = false } = features;
    this.mm = mm;
    this.features = { wpUnpopulated: wpUnpopulated || wpAsync, wpAsync, sigbus, exactAddress };
  }

  /** Faults that sleep. */
  get waiting(): number {
    return this.#pending.length + this.#told.length;
  }

  /** `userfaultfd_read()` without waiting: what was not read of yet. */
  read(): readonly UserfaultMessage[] {
    const faults = this.#pending.splice(0);
    this.#told.push(...faults);
    return faults.map(({ message }) => message);
  }

  /**
   * The second half of `handle_userfault()`: the fault is in the queue when this returns; the caller drops mmap_lock, and then
   * sleeps in what it got. Nothing may happen between the fault's look at the entry and this call.
   */
  raise(addr: VirtAddr, write: boolean): Sleeps<void> {
    const address = (this.features.exactAddress ? addr : pageAlignDown(addr)) as VirtAddr;
    const fault: WaitingFault = { message: { address, write, wp: true }, woken: this.released };
    if (!fault.woken) this.#pending.push(fault);
    return sleep(fault);
  }

  /** `wake_userfault()`: faults on [start, end) go on, whether somebody has read of them or not. */
  wake(start: number, end: number): void {
    for (const queue of [this.#pending, this.#told]) {
      for (const fault of queue) fault.woken ||= fault.message.address >= start && fault.message.address < end;
      queue.splice(0, queue.length, ...queue.filter(({ woken }) => !woken));
    }
  }
}

function* sleep(fault: WaitingFault): Sleeps<void> {
  const what = `a userfaultfd, at 0x${fault.message.address.toString(16)}`;
  while (!fault.woken) yield { what, ready: () => fault.woken, outside: true };
}

/**
 * The first half of `handle_userfault()`: what a fault answers that somebody wants to hear of. A closed userfaultfd makes it begin
 * again as well, without mmap_lock, for which its end may wait.
 */
export const userfaultOutcome = ({ userfaultfd }: VmArea): VmFault =>
  userfaultfd!.features.sigbus ? VM_FAULT_SIGBUS : VM_FAULT_USERFAULT;
