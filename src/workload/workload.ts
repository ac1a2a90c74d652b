/**
 * What a workload is: a computation that a real GPU program would do, run on the devices of a machine through its public
 * API, and compared value by value with a reference in plain TypeScript that shares no code with the device programs.
 */
import type { Random } from '../base/random.js';
import type { Machine, Mirror, Process } from '../machine/types.js';

/** How large a run will be: enough to say how much memory it takes. */
export interface WorkloadPlan {
  readonly size: number;
  /** Bytes of memory of each device that will be used. */
  readonly deviceMemory: readonly number[];
}

/** What a running workload has to work with. The runner owns the process and its mirrors. */
export interface WorkloadEnv {
  readonly machine: Machine;
  readonly process: Process;
  /** The devices to use, each with the process open on it. */
  readonly mirrors: readonly Mirror[];
  /** How many: `mirrors.length`. */
  readonly devices: number;
  readonly size: number;
  readonly random: Random;
}

export interface WorkloadVerdict {
  readonly verified: boolean;
  /** Values that were compared. */
  readonly checked: number;
  /** Device faults that there must have been, at the least. */
  readonly expectFaults: number;
  /** Pages that must have moved to devices, at the least. */
  readonly expectMigrations: number;
  /** The first mismatch: index, expected, actual. */
  readonly detail?: string;
}

export interface WorkloadSizes {
  readonly min: number;
  readonly max: number;
  /** What the size counts: 'elements of each vector'. */
  readonly meaning: string;
}

export interface Workload {
  readonly name: string;
  /** One line for a list. */
  readonly summary: string;
  readonly defaultSize: number;
  readonly sizes: WorkloadSizes;
  /** Bytes of memory that the process maps, over all devices. */
  footprint(plan: WorkloadPlan): number;
  run(env: WorkloadEnv): Promise<WorkloadVerdict>;
}
