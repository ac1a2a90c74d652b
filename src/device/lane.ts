/**
 * The `LaneContext` that programs see, and the operation log behind it (ARCHITECTURE decision 6). One object serves every lane of a
 * device: lanes run one after another.
 *
 * An operation is either replayed (its result comes from the log) or done: translated, carried out and logged. A lane that
 * cannot go on is abandoned by throwing `ABANDON`; `outcome` says why, and every further operation throws again, so that a
 * program which catches the signal can do no harm. The number of the operation (`at`) is compared once with `bound`, which
 * stands in for all that is rare: a log to replay, a full log, a preemption, the time to look at the invalidations.
 * No translation is held between two accesses but the last page of each kind, which an invalidation makes forget.
 */
import { PAGE_SHIFT, PAGE_SIZE, USER_PAGES } from '../abi/address.js';
import type { LaunchFailure } from '../abi/control.js';
import { DEVICE_PTE_ATOMIC, DEVICE_PTE_WRITE } from '../abi/device-pte.js';
import { ERRNO_NUMBER } from '../abi/errno.js';
import { ACCESS_ATOMIC, ACCESS_READ, ACCESS_WRITE, type Access } from '../abi/packet.js';
import { PfnlessError } from '../base/errors.js';
import { add32, compareExchange32, exchange32, load32 } from '../sync/word.js';
import { LANE_OPERATIONS_MAX, LaneLogPool } from './lane-log.js';
import { NO_WINDOW } from './memory.js';
import type { Mmu } from './mmu.js';
import { type LaneContext, LOCAL_WORDS } from './program.js';
import type { Tlb } from './tlb.js';

/** Thrown to leave a program. Preallocated: abandoning must be cheap. */
const ABANDON: unique symbol = Symbol('pfnless: this lane is abandoned and will run again; do not catch this');

/** `ran`: to its end, so far. `barrier`, `faulted`, `preempted`: abandoned, to run again. `failed`: see `failure`. */
export type LaneOutcome = 'ran' | 'barrier' | 'faulted' | 'preempted' | 'failed';

/** What a lane wants of its work group. */
export interface LaneGroup {
  /** The lane is at a barrier. @returns true if it was the last, so that it may go on */
  arrive(): boolean;
  /** Work-group memory of LOCAL_WORDS doubles. */
  readonly memory: Float64Array;
}

export interface LaneHooks {
  /** Obey invalidations that have come meanwhile. */
  poll(): void;
  /** Shall the lane be abandoned here, between two operations? */
  readonly preempt: (() => boolean) | undefined;
}

/** Operations between two looks at the invalidations. A power of two. */
const POLL_OPERATIONS = 4096;
const FIRST_LOG = 4096;
/** Pages whose translations are held beside the TLB. A power of two. */
const SLOTS = 256;
const DEVICE_PTE_WRITE_ATOMIC = DEVICE_PTE_WRITE | DEVICE_PTE_ATOMIC;
/** What an address has of its offset in the page, if it is aligned. */
const BYTE_OFFSET = PAGE_SIZE - 1;
const WORD_OFFSET = PAGE_SIZE - 4;
const DOUBLE_OFFSET = PAGE_SIZE - 8;
/** Not equal to any address, so nothing hits. */
const NOWHERE = Number.NaN;
/** An operation that does not touch global memory. */
const NO_ACCESS = -1;
/** Stands for the index of a word: the result is in the log. */
const REPLAYED = -1;

/**
 * Of an address's lower half. Streams through arrays a power of two apart must not meet in one slot: the upper bits are
 * folded in.
 */
const slotOf = (low: number): number => ((low >>> PAGE_SHIFT) ^ (low >>> (PAGE_SHIFT + 8))) & (SLOTS - 1);

export class Lane implements LaneContext {
  lane = 0;
  lanes = 0;
  group = 0;
  groupSize = 0;
  localLane = 0;

  outcome: LaneOutcome = 'ran';
  failure: LaunchFailure | null = null;
  /** The address and access that missed, when the outcome is `faulted`. */
  faultAddress = 0;
  faultAccess: Access = ACCESS_READ;
  /** Number of the next operation. */
  at = 0;
  /** Operations that are replayed from the log. */
  recorded = 0;
  log: Float64Array = new Float64Array(FIRST_LOG);

  // Plain properties: the engine's hottest words.
  private bound = 0;
  /** Operations done since `begin` that did not touch global memory. */
  private aside = 0;
  private context = -1;
  private workGroup!: LaneGroup;
  // The last pages, by slot: first address where an access of the kind is allowed, window and byte offset in it.
  private readonly readStarts = new Float64Array(SLOTS).fill(NOWHERE);
  private readonly writeStarts = new Float64Array(SLOTS).fill(NOWHERE);
  private readonly atomicStarts = new Float64Array(SLOTS).fill(NOWHERE);
  /** By ACCESS_*. */
  private readonly starts = [this.readStarts, this.writeStarts, this.atomicStarts];
  // Made without holes: they would be looked for at each access.
  private readonly windows = Array.from({ length: SLOTS }, () => NO_WINDOW);
  private readonly bases = new Int32Array(SLOTS);
  /** The view that the atomic under way works on. */
  private atomics = NO_WINDOW.i32;

  private readonly mmu: Mmu;
  private readonly tlb: Tlb;
  private readonly hooks: LaneHooks;
  private readonly logs = new LaneLogPool();

  constructor(mmu: Mmu, hooks: LaneHooks) {
    this.mmu = mmu;
    this.tlb = mmu.tlb;
    this.hooks = hooks;
  }

  /** Make ready for one activation of a lane, whose place is set already; its first `recorded` operations are in `log`. */
  begin(context: number, workGroup: LaneGroup, recorded: number): void {
    if (context !== this.context) this.forget();
    this.context = context;
    this.workGroup = workGroup;
    this.outcome = 'ran';
    this.at = 0;
    this.aside = 0;
    this.recorded = recorded;
    this.bound = 0;
  }

  /** Accesses to global memory that this activation did. */
  get accesses(): number {
    return Math.max(0, this.at - this.recorded) - this.aside;
  }

  /** Forget translations: an invalidation came, or the address space changes. */
  forget(): void {
    this.readStarts.fill(NOWHERE);
    this.writeStarts.fill(NOWHERE);
    this.atomicStarts.fill(NOWHERE);
  }

  /** Hand out the log of the lane that was just abandoned; `undefined` if it had completed nothing. */
  saveLog(): Float64Array | undefined {
    const { at, log } = this;
    if (at === 0) return undefined;
    const saved = at > FIRST_LOG ? log : this.logs.take(at);
    if (saved === log) this.log = this.logs.take(FIRST_LOG);
    else saved.set(log.subarray(0, at));
    return saved;
  }

  /** Take the log of a parked lane back. */
  restoreLog(saved: Float64Array, count: number): void {
    const swap = saved.length > this.log.length;
    if (!swap) this.log.set(saved.subarray(0, count));
    this.logs.free(swap ? this.log : saved);
    if (swap) this.log = saved;
  }

  loadU8(addr: number): number {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & BYTE_OFFSET;
    if (this.at >= this.bound || this.readStarts[slot]! + offset !== addr) {
      if (this.rare(ACCESS_READ, addr, slot, 1)) return this.log[this.at++]! | 0;
    }
    return this.keep(this.windows[slot]!.u8[this.bases[slot]! + offset]!);
  }

  loadI32(addr: number): number {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & WORD_OFFSET;
    if (this.at >= this.bound || this.readStarts[slot]! + offset !== addr) {
      if (this.rare(ACCESS_READ, addr, slot, 4)) return this.log[this.at++]! | 0;
    }
    return this.keep(this.windows[slot]!.i32[(this.bases[slot]! + offset) >> 2]!);
  }

  loadU32(addr: number): number {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & WORD_OFFSET;
    if (this.at >= this.bound || this.readStarts[slot]! + offset !== addr) {
      if (this.rare(ACCESS_READ, addr, slot, 4)) return this.log[this.at++]! >>> 0;
    }
    return this.keep(this.windows[slot]!.u32[(this.bases[slot]! + offset) >> 2]!);
  }

  loadF32(addr: number): number {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & WORD_OFFSET;
    if (this.at >= this.bound || this.readStarts[slot]! + offset !== addr) {
      if (this.rare(ACCESS_READ, addr, slot, 4)) return this.log[this.at++]!;
    }
    return this.keep(this.windows[slot]!.f32[(this.bases[slot]! + offset) >> 2]!);
  }

  loadF64(addr: number): number {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & DOUBLE_OFFSET;
    if (this.at >= this.bound || this.readStarts[slot]! + offset !== addr) {
      if (this.rare(ACCESS_READ, addr, slot, 8)) return this.log[this.at++]!;
    }
    return this.keep(this.windows[slot]!.f64[(this.bases[slot]! + offset) >> 3]!);
  }

  storeU8(addr: number, value: number): void {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & BYTE_OFFSET;
    const ordinary = this.at < this.bound && this.writeStarts[slot]! + offset === addr;
    if (ordinary || !this.rare(ACCESS_WRITE, addr, slot, 1)) this.windows[slot]!.u8[this.bases[slot]! + offset] = value;
    this.at++;
  }

  storeI32(addr: number, value: number): void {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & WORD_OFFSET;
    const ordinary = this.at < this.bound && this.writeStarts[slot]! + offset === addr;
    if (ordinary || !this.rare(ACCESS_WRITE, addr, slot, 4))
      this.windows[slot]!.i32[(this.bases[slot]! + offset) >> 2] = value;
    this.at++;
  }

  storeU32(addr: number, value: number): void {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & WORD_OFFSET;
    const ordinary = this.at < this.bound && this.writeStarts[slot]! + offset === addr;
    if (ordinary || !this.rare(ACCESS_WRITE, addr, slot, 4))
      this.windows[slot]!.u32[(this.bases[slot]! + offset) >> 2] = value;
    this.at++;
  }

  storeF32(addr: number, value: number): void {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & WORD_OFFSET;
    const ordinary = this.at < this.bound && this.writeStarts[slot]! + offset === addr;
    if (ordinary || !this.rare(ACCESS_WRITE, addr, slot, 4))
      this.windows[slot]!.f32[(this.bases[slot]! + offset) >> 2] = value;
    this.at++;
  }

  storeF64(addr: number, value: number): void {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & DOUBLE_OFFSET;
    const ordinary = this.at < this.bound && this.writeStarts[slot]! + offset === addr;
    if (ordinary || !this.rare(ACCESS_WRITE, addr, slot, 8))
      this.windows[slot]!.f64[(this.bases[slot]! + offset) >> 3] = value;
    this.at++;
  }

  atomicAdd(addr: number, value: number): number {
    const word = this.atomicWord(addr);
    if (word === REPLAYED) return this.log[this.at++]! | 0;
    return this.keep(add32(this.atomics, word, value | 0));
  }

  atomicMin(addr: number, value: number): number {
    const word = this.atomicWord(addr);
    if (word === REPLAYED) return this.log[this.at++]! | 0;
    const words = this.atomics;
    let old = load32(words, word);
    for (let seen: number; (value | 0) < old; old = seen) {
      if ((seen = compareExchange32(words, word, old, value | 0)) === old) break;
    }
    return this.keep(old);
  }

  atomicMax(addr: number, value: number): number {
    const word = this.atomicWord(addr);
    if (word === REPLAYED) return this.log[this.at++]! | 0;
    const words = this.atomics;
    let old = load32(words, word);
    for (let seen: number; (value | 0) > old; old = seen) {
      if ((seen = compareExchange32(words, word, old, value | 0)) === old) break;
    }
    return this.keep(old);
  }

  atomicExchange(addr: number, value: number): number {
    const word = this.atomicWord(addr);
    if (word === REPLAYED) return this.log[this.at++]! | 0;
    return this.keep(exchange32(this.atomics, word, value | 0));
  }

  atomicCompareExchange(addr: number, expected: number, value: number): number {
    const word = this.atomicWord(addr);
    if (word === REPLAYED) return this.log[this.at++]! | 0;
    return this.keep(compareExchange32(this.atomics, word, expected | 0, value | 0));
  }

  loadLocal(index: number): number {
    if (this.at >= this.bound && this.rare(NO_ACCESS)) return this.log[this.at++]!;
    const value = this.workGroup.memory[index];
    if (value === undefined) this.refuseLocal(index);
    this.aside++;
    return this.keep(value);
  }

  storeLocal(index: number, value: number): void {
    if (this.at < this.bound || !this.rare(NO_ACCESS)) {
      if (!(index >= 0 && index < LOCAL_WORDS && index === (index | 0))) this.refuseLocal(index);
      this.workGroup.memory[index] = value;
      this.aside++;
    }
    this.at++;
  }

  barrier(): void {
    const replayed = this.at >= this.bound && this.rare(NO_ACCESS);
    this.at++;
    if (replayed) return;
    this.aside++;
    if (!this.workGroup.arrive()) this.abandon('barrier');
  }

  /** Log the result of an operation, which is over with that. */
  private keep(value: number): number {
    const at = this.at;
    this.log[at] = value;
    this.at = at + 1;
    return value;
  }

  /**
   * What an operation may need that an ordinary one does not: it is replayed, it is the first after a while, or its page is in
   * no slot. In one function, as V8 takes none of more than 460 bytecodes into the loops of programs.
   * @returns true if the operation's result is in the log
   */
  private rare(access: Access | typeof NO_ACCESS, addr = 0, slot = 0, size = 0): boolean {
    const { at, hooks } = this;
    if (at < this.recorded) {
      if (at % POLL_OPERATIONS === POLL_OPERATIONS - 1) hooks.poll();
      return true;
    }
    if (at >= this.bound) {
      if (this.outcome !== 'ran') throw ABANDON;
      const { preempt } = hooks;
      hooks.poll();
      // Not before the first operation: each activation makes progress, whatever the executor chooses.
      if (preempt !== undefined && at > this.recorded && preempt()) this.abandon('preempted');
      if (at >= this.log.length) this.growLog();
      this.bound = preempt === undefined ? Math.min(at + POLL_OPERATIONS, this.log.length) : 0;
    }
    if (access === NO_ACCESS) return false;

    const vpn = Math.floor(addr / PAGE_SIZE);
    const start = vpn * PAGE_SIZE;
    const offset = addr - start;
    if (!(vpn >= 0 && vpn < USER_PAGES) || offset !== (offset | 0) || (offset & (size - 1)) !== 0) {
      const why = addr >= 0 && addr < USER_PAGES * PAGE_SIZE ? `is not aligned to ${size} bytes` : 'is not in 0..2^47';
      this.fail('fault', addr, `touched address ${addr > 0 ? `0x${addr.toString(16)}` : addr}, which ${why}`);
    }
    if (this.starts[access]![slot] === start) return false;
    const { tlb } = this;
    const entry = this.mmu.translate(this.context, vpn, access);
    if (entry < 0) {
      this.faultAddress = addr;
      this.faultAccess = access;
      this.abandon('faulted');
    }
    const word = tlb.words[entry]!;
    this.readStarts[slot] = start;
    this.writeStarts[slot] = (word & DEVICE_PTE_WRITE) === 0 ? NOWHERE : start;
    this.atomicStarts[slot] = (word & DEVICE_PTE_WRITE_ATOMIC) === DEVICE_PTE_WRITE_ATOMIC ? start : NOWHERE;
    this.bases[slot] = tlb.bases[entry]!;
    this.windows[slot] = tlb.windows[entry]!;
    return false;
  }

  private growLog(): void {
    if (this.log.length >= LANE_OPERATIONS_MAX) {
      this.fail('program', 0, `does more than ${LANE_OPERATIONS_MAX} operations: use more lanes with less work each`);
    }
    const grown = this.logs.take(this.log.length * 2);
    grown.set(this.log);
    this.logs.free(this.log);
    this.log = grown;
  }

  /** Translate an atomic's word. @returns its index in `atomics`, or REPLAYED */
  private atomicWord(addr: number): number {
    const low = addr | 0;
    const slot = slotOf(low);
    const offset = low & WORD_OFFSET;
    if (this.at >= this.bound || this.atomicStarts[slot]! + offset !== addr) {
      if (this.rare(ACCESS_ATOMIC, addr, slot, 4)) return REPLAYED;
    }
    this.atomics = this.windows[slot]!.i32;
    return (this.bases[slot]! + offset) >> 2;
  }

  private refuseLocal(index: number): never {
    throw new PfnlessError(
      'ERR_PFNLESS_PROGRAM',
      `work-group memory has no word ${index}: it has 0..${LOCAL_WORDS - 1}`,
    );
  }

  private fail(kind: LaunchFailure['kind'], address: number, what: string): never {
    const errno = kind === 'fault' ? ERRNO_NUMBER.EFAULT : 0;
    this.failure = { kind, errno, address, lane: this.lane, message: `lane ${this.lane} ${what}` };
    this.abandon('failed');
  }

  private abandon(outcome: LaneOutcome): never {
    this.outcome = outcome;
    this.bound = 0;
    throw ABANDON;
  }
}
