/**
 * Replayable faults: which pages are missing, who waits for them, and which of them the driver has been told about.
 *
 * However many lanes miss a page, it is reported once for each kind of access, and not again before a fault replay or a cancel
 * answers; a report for a stronger access serves the weaker ones. What does not fit into the ring stays pending.
 * Counterpart: the hardware fault buffer that NVIDIA's UVM and amdgpu's interrupt handler drain.
 */
import { PAGE_SIZE, USER_PAGES } from '../abi/address.js';
import { ACCESS_ATOMIC, type Access, FAULT_PACKET } from '../abi/packet.js';
import { fenceReached, QUEUE_HEADER, RINGS } from '../abi/queue.js';
import { RingProducer } from '../sync/ring.js';
import { load32 } from '../sync/word.js';

/** One fault replay, and how many of the lanes that it woke have not had their turn yet. */
export interface ReplayTurn {
  /** Of the command. */
  readonly sequence: number;
  lanes: number;
}

/** A parked lane, as the fault buffer knows it. */
export interface FaultWaiter {
  /** The access that it wants. */
  readonly access: Access;
  /** Its launch is over: nobody waits. */
  readonly gone: boolean;
  /** The fault that it waits for goes to the driver, and it was the first to miss the page. */
  reported(): void;
  /** Run again. `turn` is none where the lane was not waited for. */
  replay(turn: ReplayTurn | null): void;
  cancel(errno: number): void;
}

interface Fault {
  readonly key: number;
  readonly context: number;
  readonly address: number;
  readonly access: Access;
  readonly waiters: FaultWaiter[];
  /** Number of its record, 0 while it is pending. */
  sequence: number;
}

const { word: WORD } = FAULT_PACKET;

/** Contexts have 16 bits and page numbers 35, so the key of page and access fits into a number. */
const keyOf = (context: number, vpn: number, access: number): number => (context * USER_PAGES + vpn) * 4 + access;

export class FaultBuffer {
  /** Records written since boot. */
  records = 0;
  readonly #ring: RingProducer;
  readonly #faults = new Map<number, Fault>();
  /** Faults that the driver has not been told about, oldest first. */
  #pending: Fault[] = [];

  constructor(queue: SharedArrayBuffer) {
    this.#ring = new RingProducer(queue, RINGS.faults);
  }

  /** A lane missed a page and waits from now on. */
  add(context: number, vpn: number, waiter: FaultWaiter): void {
    const { access } = waiter;
    for (let stronger: number = access; stronger <= ACCESS_ATOMIC; stronger++) {
      const known = this.#faults.get(keyOf(context, vpn, stronger));
      if (known !== undefined) {
        known.waiters.push(waiter);
        return;
      }
    }
    const key = keyOf(context, vpn, access);
    const fault = { key, context, address: vpn * PAGE_SIZE, access, waiters: [waiter], sequence: 0 };
    this.#faults.set(key, fault);
    this.#pending.push(fault);
  }

  /** Could `flush` report something? */
  get flushable(): boolean {
    return this.#pending.length > 0 && this.#room > 0;
  }

  /** Report what is pending, as far as the ring has room. @returns true if the driver should be woken */
  flush(): boolean {
    if (this.#pending.length === 0) return false;
    const before = this.records;
    let taken = 0;
    for (const fault of this.#pending) {
      if (fault.waiters.every((waiter) => waiter.gone)) this.#faults.delete(fault.key);
      else if (this.#room > 0) this.#report(fault);
      else break;
      taken++;
    }
    this.#pending = this.#pending.slice(taken);
    return this.records !== before;
  }

  /** Records that still fit: fewer than the ring has room for when it is made small (fault injection). */
  get #room(): number {
    const free = this.#ring.free();
    const limit = load32(this.#ring.words, QUEUE_HEADER.word.faultLimit);
    return limit === 0 ? free : free - (RINGS.faults.capacity - limit);
  }

  /** Fault replay: the lanes of a context that wait for reported faults, up to record `upTo` (0: all), try again. */
  replay(context: number, upTo: number, turn: ReplayTurn): void {
    for (const fault of this.#faults.values()) {
      if (fault.context !== context || fault.sequence === 0) continue;
      if (upTo !== 0 && !fenceReached(upTo, fault.sequence)) continue;
      this.#faults.delete(fault.key);
      for (const waiter of fault.waiters) waiter.replay(turn);
    }
  }

  /** The lanes that want at least this access to a page cannot have it; those that share a report but want less try again. */
  cancel(context: number, address: number, access: number, errno: number): void {
    for (let stronger = access; stronger <= ACCESS_ATOMIC; stronger++) {
      const fault = this.#faults.get(keyOf(context, Math.floor(address / PAGE_SIZE), stronger));
      if (fault === undefined) continue;
      this.#drop(fault);
      for (const waiter of fault.waiters) {
        if (waiter.access >= access) waiter.cancel(errno);
        else waiter.replay(null);
      }
    }
  }

  /** A context ends: nobody answers its faults any more. */
  dropContext(context: number): void {
    for (const fault of this.#faults.values()) if (fault.context === context) this.#drop(fault);
  }

  #drop(fault: Fault): void {
    this.#faults.delete(fault.key);
    if (fault.sequence === 0) this.#pending = this.#pending.filter((other) => other !== fault);
  }

  #report(fault: Fault): void {
    const { words, floats } = this.#ring;
    const at = this.#ring.reserve();
    fault.sequence = ++this.records | 0;
    fault.waiters[0]!.reported();
    words[at + WORD.sequence] = fault.sequence;
    words[at + WORD.context] = fault.context;
    floats[at / 2 + WORD.address] = fault.address;
    words[at + WORD.access] = fault.access;
    words[at + WORD.lanes] = fault.waiters.length;
    this.#ring.publish();
  }
}
