/** What a running machine is made of: for its own files and for checkers, which only look. */
import type { Page } from '../base/brand.js';
import type { DeviceDriver } from '../drivers/driver.js';
import type { Kernel } from '../mm/kernel.js';
import type { Executor } from '../sched/executor.js';
import type { DeviceLink } from '../transport/device-link.js';
import type { MachineCpu } from './machine-cpu.js';
import type { DeviceSpec, MachineSpec } from './spec.js';

export interface MachineDevice {
  readonly index: number;
  readonly spec: DeviceSpec;
  readonly link: DeviceLink;
  readonly driver: DeviceDriver;
}

export interface MachineState {
  /** CPUs beside the kernel's own, the one with number 1 first. */
  readonly cpus: readonly MachineCpu[];
  readonly spec: MachineSpec;
  readonly kernel: Kernel;
  readonly executor: Executor;
  readonly devices: readonly MachineDevice[];
  /** The kernel log since the last check. */
  readonly log: string[];
  /** Plain references that users hold on pages (`Process.pin` of kind `get`): pins are counted by the pages themselves. */
  readonly heldPages: Map<Page, number>;
}

/** What checkers find out, by what it is about. A new one for each moment: it is out of date as soon as anything moves. */
export class SharedFindings extends Map<object, unknown> {
  /** The moment lies between two steps, not at rest: there are many of them, so a look has to be short. */
  readonly betweenSteps: boolean;

  constructor(when: 'between steps' | 'at rest' = 'at rest') {
    super();
    this.betweenSteps = when === 'between steps';
  }
}

/** An outsider that looks for what must not be. Nothing is in flight while it looks. */
export interface Checker {
  readonly invariant: string;
  /** What must hold, for people. */
  readonly statement: string;
  /** It holds between any two steps of an inline run, whatever is in flight; the others hold at rest. */
  readonly always?: true;
  /**
   * One sentence for each place where it does not hold.
   * @param shared what checkers that look at the same moment, one after the other, find out for each other
   */
  look(state: MachineState, shared?: SharedFindings): Iterable<string>;
}
