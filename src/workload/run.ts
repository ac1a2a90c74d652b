/** Runs one workload on a machine and says whether all was well: the result, the machine's invariants, the counters. */
import { PAGE_SIZE } from '../abi/address.js';
import { InvariantViolation, PfnlessError } from '../base/errors.js';
import { createRandom } from '../base/random.js';
import {
  argumentError,
  requireBoolean,
  requireFunction,
  requireObject,
  requireOptions,
  requireSeed,
  requireWhole,
  shown,
} from '../base/require.js';
import type { Machine, MachineStats, Violation } from '../machine/types.js';
import { clockMs } from '../sched/turn.js';
import type { Workload, WorkloadVerdict } from './workload.js';

export interface RunWorkloadOptions {
  /** Devices to use, 1..8: the machine's first ones. Default: all of them that it may use. */
  readonly devices?: number;
  /** Default: the workload's own. */
  readonly size?: number | undefined;
  /** Default: the machine's. */
  readonly seed?: number;
  /** Milliseconds since some moment, for `wallMs`. Default: the host's clock. */
  readonly now?: () => number;
}

export interface WorkloadResult {
  readonly name: string;
  readonly devices: number;
  readonly size: number;
  /** Verified, no violation, and there were the faults and migrations that there had to be. */
  readonly ok: boolean;
  readonly verified: boolean;
  readonly checkedValues: number;
  readonly faults: { readonly cpu: number; readonly device: number };
  /** Pages. */
  readonly migrated: { readonly toDevice: number; readonly toRam: number };
  readonly evicted: number;
  readonly wallMs: number;
  readonly violations: readonly Violation[];
  /** Why `ok` is false, where no violation says it. */
  readonly error?: string;
}

/** RAM that a workload leaves to the kernel: upper page tables, and a page in flight for every device. */
const KERNEL_RESERVE_PAGES = 64;
/** Of so many mapped pages the kernel takes one more. Page tables need one of 512, and mappings do not fill theirs. */
const MAPPED_PAGES_PER_TABLE = 256;

/** Most devices that a workload is made for. */
export const WORKLOAD_DEVICES_MAX = 8;

/** @throws PfnlessError ERR_PFNLESS_ARGUMENT, before anything runs, when the workload cannot run here at this size */
export async function runWorkload(
  machine: Machine,
  workload: Workload,
  options: RunWorkloadOptions = {},
): Promise<WorkloadResult> {
  requireObject('The machine', machine);
  requireWorkload(workload);
  const { devices, size, seed, now } = requireRunOptions(machine, workload, options);
  const before = await machine.stats();
  requireThatItFits(machine, workload, { devices, size, freeRamPages: before.freeRamPages });

  const process = await machine.process();
  const started = now();
  const outcome = await outcomeOf(async () => {
    const mirrors = await Promise.all(Array.from({ length: devices }, (_, device) => process.mirror(device)));
    return verdictOf(await workload.run({ machine, process, mirrors, devices, size, random: createRandom(seed) }));
  }).catch(async (error: unknown) => {
    // In a kernel that broke its rules nothing can be relied on to end.
    if (!(error instanceof InvariantViolation)) await process.exit();
    throw error;
  });
  const wallMs = now() - started;
  await machine.settle();
  const counters = difference(before, await machine.stats());
  // Once with the workload's memory in place, and once to see that the process leaves nothing behind.
  const violations = [...(await machine.check())];
  // Where something is wrong already it is not said that a process comes to its end.
  if (violations.length === 0) {
    await process.exit();
    violations.push(...(await machine.check()));
  }

  const failed = outcome instanceof PfnlessError;
  const error = failed ? outcome.message : whatIsWrong(outcome, counters);
  return {
    name: workload.name,
    devices,
    size,
    ok: error === undefined && violations.length === 0,
    verified: !failed && outcome.verified,
    checkedValues: failed ? 0 : outcome.checked,
    ...counters,
    wallMs,
    violations,
    ...(error === undefined ? {} : { error }),
  };
}

function requireWorkload(workload: Workload): void {
  requireObject('The workload', workload);
  const { name, sizes, footprint, run } = workload;
  if (typeof name !== 'string') throw argumentError(`The name of a workload must be a string, not ${shown(name)}.`);
  requireObject(`The sizes of ${name}`, sizes);
  requireWhole(`The smallest size of ${name}`, sizes.min, 1, Number.MAX_SAFE_INTEGER);
  requireWhole(`The largest size of ${name}`, sizes.max, sizes.min, Number.MAX_SAFE_INTEGER);
  requireFunction(`footprint of ${name}`, footprint);
  requireFunction(`run of ${name}`, run);
}

/** The options with their defaults. */
function requireRunOptions(
  machine: Machine,
  workload: Workload,
  options: RunWorkloadOptions,
): Required<RunWorkloadOptions> & { readonly size: number } {
  requireOptions('The options of a run', options, ['devices', 'size', 'seed', 'now']);
  const { devices = Math.min(machine.deviceCount, WORKLOAD_DEVICES_MAX), size = workload.defaultSize } = options;
  const { seed = machine.spec.seed, now = clockMs } = options;
  requireSeed(seed);
  requireFunction('now of a run', now);
  const time: unknown = now();
  if (typeof time !== 'number') throw argumentError(`now of a run must return milliseconds, not ${shown(time)}.`);
  return { devices, size, seed, now };
}

function verdictOf(verdict: WorkloadVerdict): WorkloadVerdict {
  requireObject('The verdict of a workload', verdict);
  requireBoolean('verified of a verdict', verdict.verified);
  requireWhole('checked of a verdict', verdict.checked, 0, Number.MAX_SAFE_INTEGER);
  requireWhole('expectFaults of a verdict', verdict.expectFaults, 0, Number.MAX_SAFE_INTEGER);
  requireWhole('expectMigrations of a verdict', verdict.expectMigrations, 0, Number.MAX_SAFE_INTEGER);
  return verdict;
}

/** A broken invariant is not an outcome: it goes up as it is. */
async function outcomeOf(run: () => Promise<WorkloadVerdict>): Promise<WorkloadVerdict | PfnlessError> {
  try {
    return await run();
  } catch (error) {
    if (error instanceof PfnlessError) return error;
    throw error;
  }
}

type Counters = Pick<WorkloadResult, 'faults' | 'migrated' | 'evicted'>;

function difference(before: MachineStats, after: MachineStats): Counters {
  return {
    faults: { cpu: after.cpuFaults - before.cpuFaults, device: after.deviceFaults - before.deviceFaults },
    migrated: {
      toDevice: after.migratedToDevice - before.migratedToDevice,
      toRam: after.migratedToRam - before.migratedToRam,
    },
    evicted: after.evicted - before.evicted,
  };
}

/** A right result that was come by in the wrong way (nothing ever moved) is wrong, too. */
function whatIsWrong(verdict: WorkloadVerdict, { faults, migrated }: Counters): string | undefined {
  if (!verdict.verified) return verdict.detail ?? 'the result differs from the reference';
  if (faults.device < verdict.expectFaults) {
    return `expected at least ${verdict.expectFaults} device faults, there were ${faults.device}`;
  }
  if (migrated.toDevice < verdict.expectMigrations) {
    return `expected at least ${verdict.expectMigrations} pages to move to devices, ${migrated.toDevice} did`;
  }
  return undefined;
}

interface RunShape {
  readonly devices: number;
  readonly size: number;
  readonly freeRamPages: number;
}

function requireThatItFits(machine: Machine, workload: Workload, shape: RunShape): void {
  const { devices, size } = shape;
  const { min, max, meaning } = workload.sizes;
  const refuse = (why: string): never => {
    throw new PfnlessError('ERR_PFNLESS_ARGUMENT', `${workload.name}: ${why}`);
  };
  if (!Number.isInteger(devices) || devices < 1 || devices > WORKLOAD_DEVICES_MAX) {
    refuse(`the number of devices must be a whole number from 1 to ${WORKLOAD_DEVICES_MAX}, not ${devices}`);
  }
  if (devices > machine.deviceCount)
    refuse(`${devices} devices are asked for, and the machine has ${machine.deviceCount}`);
  if (!Number.isInteger(size) || size < min || size > max) {
    refuse(`the size must be a whole number from ${min} to ${max} (${meaning}), not ${size}`);
  }
  const deviceMemory = machine.spec.devices.slice(0, devices).map((device) => device.memory);
  const bytes = workload.footprint({ size, deviceMemory });
  requireWhole(`The footprint of ${workload.name}`, bytes, 0, Number.MAX_SAFE_INTEGER);
  const mapped = Math.ceil(bytes / PAGE_SIZE);
  const needed = mapped + Math.ceil(mapped / MAPPED_PAGES_PER_TABLE) + KERNEL_RESERVE_PAGES;
  if (needed > shape.freeRamPages) {
    refuse(`size ${size} needs ${mebibytes(needed)} of RAM, of which ${mebibytes(shape.freeRamPages)} are free`);
  }
}

const mebibytes = (pages: number): string => `${((pages * PAGE_SIZE) / 2 ** 20).toFixed(1)} MiB`;
