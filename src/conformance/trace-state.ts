/** The state that a trace records after each operation, as the emulator has it: /proc views and snapshots through observers. */
import type { Errno } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import type { DriverObserver } from '../drivers/driver.js';
import type { MachineState } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { pagemapAndMincore } from '../mm/proc-pagemap.js';
import { smapsRange } from '../mm/proc-smaps.js';
import type { Sleeps } from '../sync/task.js';
import type { ObservedState, StateSum } from './compare.js';

export interface Arena {
  readonly base: VirtAddr;
  readonly pages: number;
}

/** Devices whose snapshots a state has. */
const OBSERVERS = 2;

/**
 * One process's state: whole, and anew with each look. The arrays are the same ones each time.
 *
 * As the recorder has it, somebody takes snapshots of the process for each device, and outlives it.
 */
export class ProcessView implements ObservedState {
  readonly mm: MmStruct;
  readonly pm: Int32Array;
  readonly mc: Int32Array;
  s0: Uint8Array | string = 'ENODEV';
  s1: Uint8Array | string = 'ENODEV';
  sums: Readonly<Record<StateSum, number>> = NO_SUMS;
  readonly #kernel: Kernel;
  readonly #arena: Arena;
  readonly #observers: readonly DriverObserver[];
  readonly #codes: readonly Uint8Array[];

  constructor({ kernel, devices }: MachineState, mm: MmStruct, arena: Arena) {
    this.mm = mm;
    this.pm = new Int32Array(arena.pages);
    this.mc = new Int32Array(arena.pages);
    this.#kernel = kernel;
    this.#arena = arena;
    this.#observers = devices.slice(0, OBSERVERS).map(({ driver }) => driver.observe(mm));
    this.#codes = this.#observers.map(() => new Uint8Array(arena.pages));
  }

  /** Look at the whole arena without changing anything. */
  *look(): Sleeps<void> {
    const { base, pages } = this.#arena;
    const [first, second] = this.#observers;
    const [s0, s1] = this.#codes;
    if (first !== undefined) this.s0 = codesOr(s0!, yield* first.snapshot(base, s0!));
    if (second !== undefined) this.s1 = codesOr(s1!, yield* second.snapshot(base, s1!));
    pagemapAndMincore(this.#kernel, this.mm, base, this.pm, this.mc);
    this.sums = smapsRange(this.#kernel, this.mm, base, pages);
  }

  *close(): Sleeps<void> {
    for (const observer of this.#observers) yield* observer.close();
  }
}

const NO_SUMS = Object.freeze({ rss: 0, anon: 0, swap: 0, ahp: 0, prd: 0, prc: 0, shd: 0, shc: 0 });

const codesOr = (codes: Uint8Array, errno: 0 | Errno): Uint8Array | string => (errno === 0 ? codes : errno);
