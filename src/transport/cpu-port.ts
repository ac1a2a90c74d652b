/**
 * The kernel's side of a host CPU's block (abi/cpu.ts): lists to run, answers to faults, shootdowns. Who steps the CPU is the
 * carrier's business: a thread of its own (cpu-worker.ts), or the kernel's (an executor).
 */
import {
  CPU_BLOCK,
  CPU_OPS_AT,
  CPU_OPS_MAX,
  CPU_TLB_AT,
  CPU_USER,
  type CpuConfig,
  PHASE_FAULT,
  PHASE_IDLE,
  PHASE_RUNNING,
} from '../abi/cpu.js';
import { WORD_LOAD, WORD_OP } from '../abi/word-op.js';
import { assert, InvariantViolation } from '../base/errors.js';
import { ringDoorbell } from '../sync/doorbell.js';
import { add32, load32, store32, waitWord } from '../sync/word.js';

const { word: WORD } = CPU_BLOCK;
const OP_WORDS = WORD_OP.bytes / 4;
const LIST = CPU_OPS_AT / 4;

/** Looks at the answer to a shootdown before the thread parks: some 20 µs. */
const SPIN_LOADS = 4000;
const PARK_MS = 1;
/** Parked for so long, the CPU is dead: Linux's csd_lock_wait_toolong(). Generous, as the host may be busy with other things. */
const PARKS_MAX = 60_000;

/** An access that the CPU asks the kernel for. */
export interface CpuFault {
  readonly address: number;
  readonly write: boolean;
}

export interface CpuCounters {
  /** Translations found in the TLB. */
  readonly hits: number;
  readonly walks: number;
  readonly faults: number;
  /** Shootdowns that came while translations were in use. */
  readonly shootdowns: number;
}

/** A list that was taken from its CPU: its operations, those that are done with their answers, and the number of the next. */
export interface SuspendedList {
  readonly ops: Int32Array;
  readonly at: number;
}

export class CpuPort {
  readonly cpu: number;
  readonly block: SharedArrayBuffer;
  readonly tlbAt = CPU_TLB_AT;
  readonly #words: Int32Array;
  readonly #floats: Float64Array;

  constructor({ cpu, block }: Pick<CpuConfig, 'cpu' | 'block'>) {
    this.cpu = cpu;
    this.block = block;
    this.#words = new Int32Array(block);
    this.#floats = new Float64Array(block);
  }

  ring(): void {
    ringDoorbell({ words: this.#words, at: WORD.doorbell, sleepingAt: WORD.sleeping });
  }

  /** Run a list (records of WORD_OP) in an address space. Precondition: no list runs. */
  start(ops: Int32Array, space: number, root: number): void {
    this.#hand({ ops, at: 0 }, space, root);
    this.#run();
  }

  /** Take the list away, so that the CPU may run another one. Precondition: `fault`. */
  suspend(): SuspendedList {
    const list = { ops: this.answers(), at: this.#words[WORD.at]! };
    store32(this.#words, WORD.phase, PHASE_IDLE);
    return list;
  }

  /** Give the list back; the CPU waits where it was: for `retry` or `skip`. Precondition: no list runs. */
  restore(list: SuspendedList, space: number, root: number): void {
    this.#hand(list, space, root);
    store32(this.#words, WORD.phase, PHASE_FAULT);
  }

  /** Is it the kernel's turn: has the list ended, or does it want a page? */
  get waiting(): boolean {
    return load32(this.#words, WORD.phase) !== PHASE_RUNNING;
  }

  /** What it wants; `null` when the list has ended. Precondition: `waiting`. */
  get fault(): CpuFault | null {
    if (load32(this.#words, WORD.phase) !== PHASE_FAULT) return null;
    const kind = this.#words[this.#op + WORD_OP.word.kind]!;
    return { address: this.#floats[WORD.faultAddress]!, write: kind !== WORD_LOAD };
  }

  /** The page is there: try again. Precondition: `fault`. */
  retry(): void {
    this.#run();
  }

  /** The access cannot be done; go on with the next one. Precondition: `fault`. */
  skip(outcome: number): void {
    this.#words[this.#op + WORD_OP.word.outcome] = outcome;
    this.#words[WORD.at]!++;
    this.#run();
  }

  /** The list with the answers that there are. Precondition: it has ended, or waits. */
  answers(): Int32Array {
    return this.#words.slice(LIST, LIST + this.#words[WORD.count]! * OP_WORDS);
  }

  /** @param late fault injection: operations that it performs first */
  requestFlush(start: number, end: number, late: number): void {
    this.#floats[WORD.flushStart] = start;
    this.#floats[WORD.flushEnd] = end;
    this.#words[WORD.flushLate] = late;
    add32(this.#words, WORD.flushRequested, 1);
  }

  /** Until it has obeyed all requests, or is away. Blocks the thread. @throws InvariantViolation when it never does */
  awaitFlush(): void {
    for (let spin = 0; spin < SPIN_LOADS; spin++) if (this.#flushed) return;
    for (let parks = 0; parks < PARKS_MAX; parks++) {
      const done = load32(this.#words, WORD.flushDone);
      if (this.#flushed) return;
      waitWord(this.#words, WORD.flushDone, done, PARK_MS);
    }
    throw new InvariantViolation(`CPU ${this.cpu} does not answer a shootdown`);
  }

  /** Does its TLB hold what it will go on with? False while a shootdown waits for its return. */
  get tlbCurrent(): boolean {
    return load32(this.#words, WORD.flushRequested) === load32(this.#words, WORD.flushDone);
  }

  counters(): CpuCounters {
    const at = (word: number): number => load32(this.#words, word) >>> 0;
    return {
      hits: at(WORD.hits),
      walks: at(WORD.walks),
      faults: at(WORD.faults),
      shootdowns: at(WORD.shootdowns),
    };
  }

  /** Leave the loop. */
  stop(): void {
    store32(this.#words, WORD.stop, 1);
    this.ring();
  }

  get #flushed(): boolean {
    const words = this.#words;
    return (
      load32(words, WORD.mode) !== CPU_USER || load32(words, WORD.flushDone) === load32(words, WORD.flushRequested)
    );
  }

  /** Word of the operation that comes next. */
  get #op(): number {
    return LIST + this.#words[WORD.at]! * OP_WORDS;
  }

  #hand({ ops, at }: SuspendedList, space: number, root: number): void {
    const count = ops.length / OP_WORDS;
    assert(load32(this.#words, WORD.phase) === PHASE_IDLE, `CPU ${this.cpu} has a list already`);
    assert(count <= CPU_OPS_MAX, `a list of ${count} operations does not fit`);
    this.#words.set(ops, LIST);
    this.#words[WORD.count] = count;
    this.#words[WORD.at] = at;
    this.#words[WORD.space] = space;
    this.#floats[WORD.root] = root;
  }

  #run(): void {
    store32(this.#words, WORD.phase, PHASE_RUNNING);
    this.ring();
  }
}
