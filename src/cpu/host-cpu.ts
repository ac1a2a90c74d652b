/**
 * A host CPU that is none of the kernel's: it runs lists of loads and stores in a process's address space, walks the page tables
 * in RAM while the kernel changes them, keeps a TLB, answers shootdowns, and asks the kernel for what it cannot access.
 *
 * It is stepped and never blocks, in a thread (workers/cpu.ts) or on the kernel's. A load or store is one instruction: between
 * translation and access no shootdown is answered, so when the kernel has the answer nobody uses the old translation. While the
 * CPU waits for the kernel it is away: nobody waits for it then, and it looks for shootdowns before it goes on (lazy TLB).
 * Not modelled: caches of upper levels (a walk begins at the top), several address spaces in one TLB (PCID).
 */
import { PAGE_SIZE, PGDIR_SIZE, PMD_SIZE, PTRS_PER_TABLE, PUD_SIZE } from '../abi/address.js';
import {
  CPU_AWAY,
  CPU_BLOCK,
  CPU_OPS_AT,
  CPU_TLB_AT,
  CPU_USER,
  type CpuConfig,
  PHASE_FAULT,
  PHASE_IDLE,
  PHASE_RUNNING,
  type PhysicalRange,
} from '../abi/cpu.js';
import { PTE_ACCESSED, PTE_DIRTY, PTE_HUGE, PTE_PRESENT, PTE_WRITE, ptePfn } from '../abi/pte.js';
import { HOST_DOORBELL } from '../abi/queue.js';
import { WORD_ADD, WORD_DONE, WORD_LOAD, WORD_MACHINE_CHECK, WORD_OP } from '../abi/word-op.js';
import { type Doorbell, ringDoorbell } from '../sync/doorbell.js';
import { add32, load32, readPte, store32, wakeWord } from '../sync/word.js';
import { TlbSlots } from './tlb.js';
import { markEntry } from './walk.js';

const { word: WORD } = CPU_BLOCK;
const { word: OP } = WORD_OP;
const OP_WORDS = WORD_OP.bytes / 4;
/** What an entry of each level spans, top down. */
const SPANS = [PGDIR_SIZE, PUD_SIZE, PMD_SIZE, PAGE_SIZE] as const;
const LEAF = SPANS.length - 1;
const MARKED_READ = PTE_PRESENT | PTE_ACCESSED;
const MARKED_WRITE = MARKED_READ | PTE_WRITE | PTE_DIRTY;
/** No page: the kernel has to be asked. */
const FAULT = -1;
/** A table is said to be at a PFN where no RAM is. */
const nowhere = (pfn: number): number => -2 - pfn;

/** Memory as the CPU sees it. */
interface Bank extends PhysicalRange {
  readonly words: Int32Array;
}

export class HostCpu {
  readonly #words: Int32Array;
  readonly #floats: Float64Array;
  readonly #tlb: TlbSlots;
  readonly #banks: readonly Bank[];
  /** The bank of the last access. */
  #bank: Bank;
  /** Where the page tables are. */
  readonly #ram: SharedArrayBuffer;
  readonly #halves: Int32Array;
  readonly #entries: BigUint64Array;
  readonly #hostDoorbell: Doorbell;
  readonly #slice: number;
  #space = -1;
  /** Operations since a shootdown that is to be answered late. */
  #late = 0;

  /** @param slice operations of one step: all of the list, or few where others shall come in between */
  constructor(config: CpuConfig, slice = Number.POSITIVE_INFINITY) {
    this.#words = new Int32Array(config.block);
    this.#floats = new Float64Array(config.block);
    this.#tlb = new TlbSlots(config.block, CPU_TLB_AT);
    this.#banks = config.ranges.map((range) => ({ ...range, words: new Int32Array(range.memory) }));
    this.#bank = this.#banks[0]!;
    this.#ram = this.#bank.memory;
    this.#halves = this.#bank.words;
    this.#entries = new BigUint64Array(this.#ram);
    this.#tlb.flushAll();
    this.#hostDoorbell = {
      words: new Int32Array(config.hostDoorbell),
      at: HOST_DOORBELL.word.doorbell,
      sleepingAt: HOST_DOORBELL.word.sleeping,
    };
    this.#slice = slice;
  }

  get runnable(): boolean {
    return load32(this.#words, WORD.phase) === PHASE_RUNNING;
  }

  /** Go on with the list, up to its end or to a fault. @returns false when there is nothing to do */
  step(): boolean {
    if (!this.runnable) return false;
    const words = this.#words;
    this.#enter();
    let left = this.#slice;
    let faulted = false;
    while (words[WORD.at]! < words[WORD.count]! && left-- > 0) {
      this.#poll();
      faulted = !this.#perform(CPU_OPS_AT / 4 + words[WORD.at]! * OP_WORDS);
      if (faulted) break;
      words[WORD.at]!++;
    }
    store32(words, WORD.mode, CPU_AWAY);
    if (faulted) {
      words[WORD.faults]!++;
      this.#tell(PHASE_FAULT);
    } else if (words[WORD.at]! >= words[WORD.count]!) {
      this.#tell(PHASE_IDLE);
    }
    return true;
  }

  #tell(phase: number): void {
    store32(this.#words, WORD.phase, phase);
    ringDoorbell(this.#hostDoorbell);
  }

  /** From here on the kernel waits for us to obey. What it asked for before is found after it could see that we are back. */
  #enter(): void {
    const words = this.#words;
    store32(words, WORD.mode, CPU_USER);
    const requested = load32(words, WORD.flushRequested);
    if (words[WORD.space] !== this.#space || requested !== words[WORD.flushDone]) this.#tlb.flushAll();
    this.#space = words[WORD.space]!;
    this.#obeyed(requested);
  }

  /** Between two instructions: obey a shootdown. */
  #poll(): void {
    const words = this.#words;
    const requested = load32(words, WORD.flushRequested);
    if (requested === words[WORD.flushDone] || this.#late++ < words[WORD.flushLate]!) return;
    words[WORD.shootdowns]!++;
    // The kernel waits for each before it asks for the next one, so the range is this one's.
    this.#tlb.flush(this.#floats[WORD.flushStart]! / PAGE_SIZE, this.#floats[WORD.flushEnd]! / PAGE_SIZE);
    this.#obeyed(requested);
  }

  #obeyed(requested: number): void {
    this.#late = 0;
    store32(this.#words, WORD.flushDone, requested);
    wakeWord(this.#words, WORD.flushDone);
  }

  /** One instruction. @returns false when it faults */
  #perform(op: number): boolean {
    const words = this.#words;
    const address = this.#floats[op / 2 + OP.address]!;
    const kind = words[op + OP.kind]!;
    const pfn = this.#translate(address, kind !== WORD_LOAD);
    if (pfn === FAULT) {
      this.#floats[WORD.faultAddress] = address;
      return false;
    }
    const bank = pfn < 0 ? null : this.#bankOf(pfn);
    if (bank === null) {
      words[op + OP.found] = pfn < 0 ? nowhere(pfn) : pfn;
      words[op + OP.outcome] = WORD_MACHINE_CHECK;
      return true;
    }
    const at = ((bank.firstFrame + pfn - bank.firstPfn) * PAGE_SIZE + (address % PAGE_SIZE)) / 4;
    const value = words[op + OP.value]!;
    if (kind === WORD_LOAD) words[op + OP.found] = load32(bank.words, at);
    else if (kind === WORD_ADD) words[op + OP.found] = add32(bank.words, at, value);
    else store32(bank.words, at, value);
    words[op + OP.outcome] = WORD_DONE;
    return true;
  }

  /** PFN of an address, or FAULT. */
  #translate(address: number, write: boolean): number {
    const vpn = Math.floor(address / PAGE_SIZE);
    const hit = this.#tlb.lookup(vpn, write);
    if (hit >= 0) {
      this.#words[WORD.hits]!++;
      return hit;
    }
    this.#words[WORD.walks]!++;
    const pfn = this.#walk(address, write);
    if (pfn >= 0) this.#tlb.fill(vpn, pfn, write);
    return pfn;
  }

  #walk(address: number, write: boolean): number {
    let table = this.#floats[WORD.root]!;
    for (let level = 0; ; level++) {
      const span = SPANS[level]!;
      const at = table + (Math.floor(address / span) & (PTRS_PER_TABLE - 1));
      if (level === LEAF) return this.#leaf(at, write, 0n);
      // All 64 bits at one moment: the kernel may exchange the entry at any time.
      const entry = readPte(this.#entries, at);
      if ((entry & PTE_PRESENT) === 0n) return FAULT;
      if (level === LEAF - 1 && (entry & PTE_HUGE) !== 0n) {
        const first = this.#leaf(at, write, PTE_HUGE);
        return first < 0 ? first : first + (Math.floor(address / PAGE_SIZE) & (PTRS_PER_TABLE - 1));
      }
      const pfn = ptePfn(entry);
      const bank = this.#bankOf(pfn);
      if (bank === null || bank.memory !== this.#ram) return nowhere(pfn);
      table = (bank.firstFrame + pfn - bank.firstPfn) * PTRS_PER_TABLE;
    }
  }

  /** PFN of the entry that maps the page, marked as accessed; FAULT where it does not allow that, or is not of the level any more. */
  #leaf(at: number, write: boolean, level: bigint): number {
    const marked = level | (write ? MARKED_WRITE : MARKED_READ);
    while (markEntry(this.#halves, at, write) !== 0) {
      const entry = readPte(this.#entries, at);
      if ((entry & marked) === marked) return ptePfn(entry);
      if ((entry & level) !== level) break;
    }
    return FAULT;
  }

  #bankOf(pfn: number): Bank | null {
    const last = this.#bank;
    if (pfn >= last.firstPfn && pfn < last.firstPfn + last.pages) return last;
    const found = this.#banks.find(({ firstPfn, pages }) => pfn >= firstPfn && pfn < firstPfn + pages);
    if (found === undefined) return null;
    this.#bank = found;
    return found;
  }
}
