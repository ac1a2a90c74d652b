/**
 * What surrounds a program: hostile but legal events, each a named choice whose answer 0 is the tame one, and the record of what
 * each step may have touched, for partial-order reduction.
 */
import type { FaultInjector, InjectionId } from '../base/injection.js';
import type { EngineOptions } from '../device/engine.js';
import type { PromptControl } from '../device/prompt-control.js';
import type { Chooser } from '../sched/choice.js';
import { type Injection, PROGRAM_LIMITS } from '../workload/program/program.js';

/** Injected events of one kind in an execution, at the most: every retry could meet another one. */
const INJECTED_MAX = 2;

/** Bits of a footprint: what the device's engine holds, what its driver holds, and address spaces that share pages. */
const engineBit = (device: number): number => 1 << device;
const driverBit = (device: number): number => 1 << (PROGRAM_LIMITS.devices + device);
const familyBit = (family: number): number => 1 << (2 * PROGRAM_LIMITS.devices + family);
const EVERYTHING = -1;

/** Whose steps a task's are. */
export interface Domain {
  /** Number of the address space and of those that were forked from it. */
  readonly family: number;
  /** Devices that it uses. */
  readonly devices: readonly number[];
}

/** Where RAM is allocated. */
const ALLOCATIONS: readonly InjectionId[] = ['alloc-page', 'alloc-block', 'alloc-bulk'];
/** Answers to "how much": more would only make the same things happen later. */
const AMOUNTS = 2;

export class Environment implements FaultInjector {
  readonly #enabled: ReadonlySet<string>;
  /** A device's next work may be another than the most urgent. */
  readonly #otherOrders: boolean;
  #chooser: Chooser | null = null;
  #engines: readonly PromptControl[] = [];
  #devices = 0;
  /** What all address spaces that use a device are, by device. */
  #usersOf: number[] = [];
  /** Footprint of the tasks of each thread, without devices that a step touched by chance. */
  readonly #ofTask = new Map<number, number>();
  #touched = 0;
  #onlyForgets = false;
  #failAfter = 0;
  readonly #injected = new Map<string, number>();
  /** Allocations until one fails in the call that a thread is in. */
  readonly #failIn = new Map<number, number>();
  #running = -1;
  /** For traces: a thread stopped, and why. */
  onPause: ((thread: number, why: string) => void) | null = null;

  constructor(inject: readonly Injection[]) {
    this.#enabled = new Set(inject);
    this.#otherOrders = this.#enabled.has('device-order') || this.#enabled.has('invalidation-late');
  }

  get engineHooks(): Pick<EngineOptions, 'order'> {
    if (!this.#enabled.has('device-order')) return {};
    return { order: (n) => this.#chooser?.choose('device order', n) ?? 0 };
  }

  /** The machine runs: its services are threads 0 to n - 1, its devices n to 2n - 1. */
  boot(devices: number, engines: readonly PromptControl[]): void {
    this.#devices = devices;
    this.#engines = engines;
  }

  /** Nothing is injected. */
  reset(): void {
    this.#chooser = null;
    this.#usersOf = Array.from({ length: this.#devices }, () => 0);
    this.#ofTask.clear();
    this.#injected.clear();
    this.#failIn.clear();
    this.#failAfter = 0;
    this.#touched = 0;
  }

  /** From here on the chooser decides; `null`: everything is tame again. @param failNth allocation that fails, 0 for none */
  explore(chooser: Chooser | null, failNth = 0): void {
    this.#chooser = chooser;
    this.#failAfter = failNth;
  }

  /** A task begins: what its steps may touch. */
  addTask(thread: number, { family, devices }: Domain): void {
    const own = familyBit(family);
    let footprint = own;
    for (const device of devices) {
      footprint |= driverBit(device);
      this.#usersOf[device]! |= own;
    }
    this.#ofTask.set(thread, footprint);
  }

  /** The nth allocation of the running thread fails, until `endCall`. */
  failNth(n: number): void {
    this.#failIn.set(this.#running, n);
  }

  endCall(): void {
    this.#failIn.delete(this.#running);
  }

  switched(thread: number): void {
    this.#running = thread;
    const device = thread - this.#devices;
    // Of all steps, dropping translations alone touches neither memory nor page tables.
    const isDevice = device >= 0 && device < this.#devices;
    if (isDevice) this.onPause?.(thread, `works on ${this.#engines[device]!.nextWork}`);
    this.#onlyForgets = isDevice && this.#engines[device]!.nextWork === 'invalidations' && !this.#otherOrders;
  }

  touchedDevice(device: number): void {
    this.#touched |= engineBit(device);
  }

  takeFootprint(thread: number): number {
    const touched = this.#touched;
    this.#touched = 0;
    if (touched === EVERYTHING) return EVERYTHING;
    const task = this.#ofTask.get(thread);
    if (task !== undefined) return task | touched;
    if (thread >= 2 * this.#devices) return EVERYTHING;
    const device = thread % this.#devices;
    if (thread >= this.#devices && this.#onlyForgets) return engineBit(device);
    return touched | engineBit(device) | driverBit(device) | this.#usersOf[device]!;
  }

  /** Does it happen? (FaultInjector) */
  fires(point: InjectionId): boolean {
    if (this.#chooser === null) return false;
    if (ALLOCATIONS.includes(point)) {
      if (this.#failsByNumber()) return true;
      if (this.#enabled.has('allocation')) return this.#injects('allocation');
    }
    return this.#enabled.has(point) && this.#injects(point);
  }

  /** Each task has a CPU of its own. */
  get hasCpus(): boolean {
    return this.#enabled.has('cpus');
  }

  /** A store meets a translation for loads that is out of date. */
  faultsOnOld(): boolean {
    return this.#chooser !== null && this.#injects('old translation');
  }

  /** How much, or how long: a little or more. (FaultInjector) */
  below(n: number): number {
    return this.#chooser?.choose('how much', Math.min(n, AMOUNTS)) ?? 0;
  }

  #failsByNumber(): boolean {
    if (this.#failAfter > 0) {
      // Who allocates first decides who fails.
      this.#touched = EVERYTHING;
      if (--this.#failAfter === 0) return true;
    }
    const left = this.#failIn.get(this.#running);
    if (left === undefined) return false;
    this.#failIn.set(this.#running, left - 1);
    return left === 1;
  }

  #injects(point: string): boolean {
    // What one meets the others are spared: steps that ask do not commute.
    this.#touched = EVERYTHING;
    const before = this.#injected.get(point) ?? 0;
    if (before >= INJECTED_MAX || this.#chooser!.choose(point, 2) === 0) return false;
    this.#injected.set(point, before + 1);
    return true;
  }
}
