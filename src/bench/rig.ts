/** What benchmarks on a machine share: booting one, filling memory so that what came out wrong is seen, and whole migrations. */
import type { VirtAddr } from '../base/brand.js';
import { InvariantViolation } from '../base/errors.js';
import { type BootedMachine, bootWithState } from '../machine/boot.js';
import type { MachineInput } from '../machine/spec.js';
import type { Addressing, Mirror, Process, VirtRange } from '../machine/types.js';

/** Word i holds i times this: every page differs from every other. */
const PATTERN = 0x9e3779b1;

export interface BenchMachine {
  readonly ram: string | number;
  /** Of each device. */
  readonly deviceMemory: string | number;
  /** That the driver takes at a time. Default: all. */
  readonly chunk?: string | number;
  readonly devices?: number;
  readonly hugePages?: 'always' | 'never';
  /** Default: what Linux has. */
  readonly maxMapCount?: number;
}

/** Devices in threads of their own, and nothing that checks: what is measured is what users wait for. */
export function bootForBench(addressing: Addressing, machine: BenchMachine): Promise<BootedMachine> {
  const { ram, deviceMemory, chunk = deviceMemory, devices = 1, hugePages = 'never', maxMapCount } = machine;
  const spec: MachineInput = {
    name: 'bench',
    ...{ addressing, executor: 'threads', checks: false, hugePages },
    ...(maxMapCount === undefined ? {} : { maxMapCount }),
    memory: { ram },
    devices: Array.from({ length: devices }, (_, i) => ({ name: `gpu${i}`, memory: deviceMemory, chunk })),
  };
  return bootWithState(spec, []);
}

/** Write every word of a range. */
export async function fillRange(process: Process, range: VirtRange): Promise<void> {
  const data = new Int32Array(range.length / 4);
  for (let i = 0; i < data.length; i++) data[i] = Math.imul(i, PATTERN);
  await process.writeArray('i32', range.start, data);
}

/** @throws InvariantViolation */
export async function verifyRange(process: Process, range: VirtRange): Promise<void> {
  const found = await process.readArray('i32', range.start, range.length / 4);
  for (let i = 0; i < found.length; i++) {
    if (found[i] !== Math.imul(i, PATTERN)) throw wrong(`word ${i} of the memory is not what was written`);
  }
}

/** All pages, or the figure would mean nothing. @throws InvariantViolation */
export async function migrateAll(mirror: Mirror, range: VirtRange, to: 'device' | 'system'): Promise<void> {
  const { migrated, requested } = await mirror.migrate(range, to);
  if (migrated !== requested) throw wrong(`only ${migrated} of ${requested} pages moved to the ${to}`);
}

/** @throws InvariantViolation */
export function requireEqual(what: string, found: unknown, expected: unknown): void {
  if (found !== expected) throw wrong(`${what}: ${String(found)} instead of ${String(expected)}`);
}

const wrong = (what: string): InvariantViolation =>
  new InvariantViolation(`the benchmark did not do its work: ${what}`);

export const pageAt = (range: VirtRange, bytes: number): VirtAddr => (range.start + bytes) as VirtAddr;
