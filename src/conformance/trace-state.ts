/** The state that a trace records after each operation, as the emulator has it: /proc views and snapshots through observers. */
import { HPAGE_PMD_NR, PAGE_SIZE } from '../abi/address.js';
import type { VirtAddr } from '../base/brand.js';
import type { DriverObserver } from '../drivers/driver.js';
import type { MachineState } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { pagemapAndMincore, softDirtyRange } from '../mm/proc-pagemap.js';
import { smapsRange } from '../mm/proc-smaps.js';
import type { Sleeps } from '../sync/task.js';
import { type ObservedState, STATE_SUMS, type StateSum } from './compare.js';
import { LookInputs } from './look-inputs.js';

export interface Arena {
  readonly base: VirtAddr;
  readonly pages: number;
}

/** A look is at so many pages at a time: as many as one entry of the level above has below it. */
const WINDOW_PAGES = HPAGE_PMD_NR;

/** Some pages of the arena, as they were when anything there was new for the last time. */
interface Window {
  readonly start: VirtAddr;
  readonly inputs: LookInputs;
  readonly pm: Int32Array;
  readonly mc: Int32Array;
  readonly sd: Int32Array | null;
  /** A snapshot for each observer. */
  readonly codes: readonly Uint8Array[];
  sums: Readonly<Record<StateSum, number>>;
}

/** The snapshots that a state has, of a device each. */
const SNAPSHOTS = ['s0', 's1'] as const;

/**
 * One process's state, whole after each look: the arrays are the same ones each time.
 *
 * As the recorder has it, somebody takes snapshots of the process for each device, and outlives it.
 */
export class ProcessView implements ObservedState {
  readonly mm: MmStruct;
  readonly pm: Int32Array;
  readonly mc: Int32Array;
  readonly sd: Int32Array | null;
  s0: Uint8Array | string = 'ENODEV';
  s1: Uint8Array | string = 'ENODEV';
  readonly sums: Record<StateSum, number> = { ...NO_SUMS };
  readonly #kernel: Kernel;
  readonly #observers: readonly DriverObserver[];
  readonly #windows: readonly Window[];

  /** @param withSoftDirty the trace has soft-dirty bits */
  constructor({ kernel, devices }: MachineState, mm: MmStruct, { base, pages }: Arena, withSoftDirty = false) {
    this.mm = mm;
    this.pm = new Int32Array(pages);
    this.mc = new Int32Array(pages);
    this.sd = withSoftDirty ? new Int32Array(pages) : null;
    this.#kernel = kernel;
    this.#observers = devices.slice(0, SNAPSHOTS.length).map(({ driver }) => driver.observe(mm));
    const codes = this.#observers.map(() => new Uint8Array(pages));
    for (const [at, each] of codes.entries()) this[SNAPSHOTS[at]!] = each;
    this.#windows = Array.from({ length: Math.ceil(pages / WINDOW_PAGES) }, (_, at) => {
      const first = at * WINDOW_PAGES;
      const stop = Math.min(first + WINDOW_PAGES, pages);
      const start = (base + first * PAGE_SIZE) as VirtAddr;
      return {
        start,
        inputs: new LookInputs(kernel, mm, start, stop - first),
        pm: this.pm.subarray(first, stop),
        mc: this.mc.subarray(first, stop),
        sd: this.sd?.subarray(first, stop) ?? null,
        codes: codes.map((each) => each.subarray(first, stop)),
        sums: NO_SUMS,
      };
    });
  }

  /** Look at the whole arena without changing anything: at those windows where anything is new. */
  *look(): Sleeps<void> {
    let isNew = false;
    for (const window of this.#windows) {
      if (!window.inputs.changed()) continue;
      yield* this.#lookAt(window);
      isNew = true;
    }
    if (!isNew) return;
    for (const sum of STATE_SUMS) this.sums[sum] = this.#windows.reduce((total, { sums }) => total + sums[sum], 0);
  }

  *#lookAt(window: Window): Sleeps<void> {
    const { start, pm, mc, sd, codes } = window;
    for (const [at, observer] of this.#observers.entries()) {
      const errno = yield* observer.snapshot(start, codes[at]!);
      // For good: nothing but its range makes a snapshot fail.
      if (errno !== 0) this[SNAPSHOTS[at]!] = errno;
    }
    pagemapAndMincore(this.#kernel, this.mm, start, pm, mc);
    if (sd !== null) softDirtyRange(this.#kernel, this.mm, start, sd);
    window.sums = smapsRange(this.#kernel, this.mm, start, pm.length);
  }

  *close(): Sleeps<void> {
    for (const observer of this.#observers) yield* observer.close();
  }
}

const NO_SUMS = Object.freeze({ rss: 0, anon: 0, swap: 0, ahp: 0, prd: 0, prc: 0, shd: 0, shc: 0 });
