/**
 * The control plane between a machine and a device: slow calls, structured-clone data. Carried by comlink between threads,
 * called directly in the inline executor.
 */

/** Shared memories that a device can reach. */
export interface DeviceMemories {
  /** By memory id: 0 RAM, 1 + k memory of device k. `undefined` where there is no link. */
  readonly memories: readonly (SharedArrayBuffer | undefined)[];
  /** All struct pages of the machine. */
  readonly memmap: SharedArrayBuffer;
  /** The device's page tables. */
  readonly pageTables: SharedArrayBuffer;
  /** Rings and fences of this device. */
  readonly queue: SharedArrayBuffer;
  readonly hostDoorbell: SharedArrayBuffer;
}

export interface DeviceConfig {
  readonly index: number;
  readonly name: string;
  /** Sets of the TLB, each of four ways. A power of two. */
  readonly tlbSets: number;
  /** Lanes that run before the engine looks at its rings again, at the most. */
  readonly waveLanes: number;
}

/** Arguments of a compute program: numbers by name. Device addresses are the process's virtual addresses. */
export type ProgramArgs = Readonly<Record<string, number>>;

/** Lanes of a launch, at the most. */
export const LANES_MAX = 2 ** 24;

export interface LaunchRequest {
  /** Name of a built-in program, or the URL of a module whose default export is a program. */
  readonly program: string;
  /** Address space of the launch. */
  readonly context: number;
  /** Lanes to run: 1..LANES_MAX. */
  readonly lanes: number;
  /** Lanes in a work group; divides nothing in particular, the last group may be short. */
  readonly groupSize: number;
  readonly args: ProgramArgs;
}

/** Lane of a failure that is not a lane's: the launch as a whole could not run. */
export const NO_LANE = -1;

/** A lane touched memory that the driver could not give it, or the program threw. */
export interface LaunchFailure {
  readonly kind: 'fault' | 'program';
  /** Linux errno number of a fault, 0 for a program's own error. */
  readonly errno: number;
  readonly address: number;
  readonly lane: number;
  readonly message: string;
  /** Where the program threw, if it did. */
  readonly stack?: string;
}

export interface LaunchReport {
  readonly lanes: number;
  /** Fault records sent to the driver. */
  readonly faults: number;
  /** Lanes that were parked, over all faults and barriers. */
  readonly parked: number;
  /** Loads, stores and atomics done (fault replays not counted again). */
  readonly operations: number;
  readonly failure: LaunchFailure | null;
}

export interface DeviceStats {
  readonly tlbHits: number;
  readonly tlbMisses: number;
  readonly walks: number;
  readonly faults: number;
  readonly copiedPages: number;
  readonly invalidations: number;
  readonly launches: number;
  readonly operations: number;
}

/** What a machine may ask of a device. */
export interface DeviceControl {
  boot(config: DeviceConfig, memories: DeviceMemories): Promise<void>;
  /** Announce an address space: `root` is the word index of its top level table in the device's page tables. */
  bindContext(context: number, root: number): Promise<void>;
  unbindContext(context: number): Promise<void>;
  launch(request: LaunchRequest): Promise<LaunchReport>;
  stats(): Promise<DeviceStats>;
  /** As after a hang: launches fail, copies under way fail, translations and faults are forgotten. Memory stays as it is. */
  reset(): Promise<void>;
}
