/**
 * The machine spec: what a machine is, as data. `parseMachineSpec` takes what a user wrote (an object, or the name of a
 * preset), fills every default and refuses what cannot be built, in one sentence.
 *
 * A field that is left out comes from the preset (`preset`, by default `laptop`); one that is given replaces the preset's as
 * a whole, so `memory: { ram: '4GiB' }` does not inherit a preset's windows.
 */
import * as z from 'zod';
import { PMD_SIZE } from '../abi/address.js';
import { formatBytes } from '../base/bytes.js';
import { PfnlessError } from '../base/errors.js';
import { deepFreeze } from '../base/freeze.js';
import { suggestion } from '../base/nearest.js';
import { shown } from '../base/require.js';
import type { DriverName } from '../drivers/driver.js';
import type { AddressingName } from '../mm/addressing/addressing.js';
import { type Revision, siteProblem } from '../mm/check-sites.js';
import { placeWindows } from './coherent-windows.js';
import { type LayoutEntry, layoutProblem, type MemorySpec, ramBytes } from './layout.js';
import { DEFAULT_PRESET, isPresetName, MACHINE_PRESETS, PRESET_NAMES, type PresetName } from './presets.js';
import {
  deviceSchema,
  isChunk,
  MAX_DEVICES,
  machineSchema,
  mapChildSchema,
  mapEntrySchema,
  memorySchema,
  RAM_MAX,
  RAM_MIN,
  windowSchema,
} from './schema.js';

/** One simulated GPU. */
export interface DeviceSpec {
  readonly name: string;
  readonly driver: DriverName;
  /** Bytes of device memory. */
  readonly memory: number;
  /** `private`: the CPU cannot reach the memory. `coherent`: it can. */
  readonly type: 'private' | 'coherent';
  /**
   * Physical address of coherent memory; where it is left out, the first gap from 4 GiB up is taken. `null` for private memory,
   * which has none of its own.
   */
  readonly address: number | null;
  /** Bytes that the driver asks for at a time, one pagemap each. Coherent memory is there all at once. */
  readonly chunk: number;
  /**
   * Name of the group of devices that reach each other's private memory: a page moves from one to another without a stop in RAM,
   * and may be used where it is. `null`: the device shares with nobody.
   */
  readonly peers: string | null;
  /** Sets of the device's TLB, four ways each. */
  readonly tlbSets: number;
  /** Node that its struct pages count to; -1: none (NUMA_NO_NODE), which the kernel makes the node of the CPU. */
  readonly numaNode: number;
}

/** A machine, with every default filled in. Frozen; itself a valid input of `parseMachineSpec`. */
export interface MachineSpec {
  readonly name: string;
  readonly addressing: AddressingName;
  /** The posting of the series that the kernel has, with its bugs; `corrected`: with none. */
  readonly revision: Revision;
  /** Check sites that the kernel forgets (`npx pfnless list`). */
  readonly forget: readonly string[];
  /** `threads`: devices run in worker threads. `inline`: everything on one thread, a pure function of the spec. */
  readonly executor: 'threads' | 'inline';
  /** Host CPUs beside the kernel's own, for `Process.execute`: each a thread of its own under `threads`. */
  readonly cpus: number;
  /** Who runs next in the inline executor. */
  readonly schedule: 'round-robin' | 'random';
  readonly seed: number;
  /** Checked run: freed frames are poisoned, numbers that cross interfaces are verified. */
  readonly checks: boolean;
  /** Which anonymous memory gets 2 MiB pages when it is touched (/sys/kernel/mm/transparent_hugepage/enabled). */
  readonly hugePages: 'always' | 'madvise' | 'never';
  /** Huge pages that are taken from RAM at boot and kept for mappings that ask for them (`hugetlb` of mmap). */
  readonly hugetlbPages: number;
  /** Mappings that a process may have (vm.max_map_count); what would make more of them fails with ENOMEM. */
  readonly maxMapCount: number;
  readonly memory: MemorySpec;
  /** Bytes of each swap area; the first page of each is its header. */
  readonly swap: readonly number[];
  readonly devices: readonly DeviceSpec[];
}

/** A value that is only read, whatever is in it. */
type Given<T> = T extends object ? { readonly [Key in keyof T]: Given<T[Key]> } : T;
type Written = Given<z.input<typeof machineSchema>>;

/** A machine spec as a user writes it: every field may be left out. `devices` may be a number: copies of the preset's first. */
export type MachineSpecInput = Omit<Written, 'preset' | 'devices'> & {
  readonly preset?: PresetName;
  readonly devices?: number | Written['devices'];
};

/** What `boot` takes. */
export type MachineInput = PresetName | MachineSpecInput | MachineSpec;

/** What flags may change of a spec. */
export type MachineOverrides = Partial<
  Pick<MachineSpec, 'addressing' | 'revision' | 'forget' | 'cpus' | 'executor' | 'schedule' | 'seed' | 'checks'>
> & {
  /** Number of devices: keeps the first ones, or adds copies of the first. */
  readonly devices?: number;
};

/**
 * @param source where the spec comes from (a file name), for messages
 * @throws PfnlessError ERR_PFNLESS_SPEC, with one sentence that names the field, what is wrong and what is allowed
 */
export function parseMachineSpec(input: unknown = DEFAULT_PRESET, source = 'machine spec'): MachineSpec {
  const fail = (path: readonly PropertyKey[], message: string): never => {
    throw new PfnlessError('ERR_PFNLESS_SPEC', `${source}: ${pathText(path)} ${message}.`);
  };
  const written = typeof input === 'string' ? { preset: input } : input;
  if (typeof written !== 'object' || written === null || Array.isArray(written)) {
    return fail([], 'must be an object with the fields of a machine, or the name of a preset');
  }
  const completed = completeFromPreset(written as Record<string, unknown>, fail);
  const result = machineSchema.safeParse(completed, { reportInput: true });
  if (!result.success) {
    const issue = result.error.issues[0]!;
    return fail(issue.path, issueText(issue));
  }
  const parsed = result.data;
  const asWritten = resolveMemory(parsed.memory, fail);
  for (const [index, id] of parsed.forget.entries()) {
    const problem = siteProblem(id, parsed.addressing);
    if (problem !== null) fail(['forget', index], `must be a check site: ${problem}`);
  }
  const problem = layoutProblem(asWritten);
  if (problem) fail(problem.path, problem.message);
  // Only now: what is wrong was told with the place where the user wrote it.
  const map = asWritten.map && [...asWritten.map].sort((a, b) => a.start - b.start);
  const memory = { ...asWritten, map };
  const isPlainPreset = !('memory' in written) && typeof (written as Written).devices !== 'object';
  return deepFreeze({
    name: parsed.name ?? (isPlainPreset ? (parsed.preset ?? DEFAULT_PRESET) : 'custom'),
    addressing: parsed.addressing,
    revision: parsed.revision,
    forget: parsed.forget,
    executor: parsed.executor,
    cpus: parsed.cpus,
    schedule: parsed.schedule,
    seed: parsed.seed,
    checks: parsed.checks,
    hugePages: parsed.hugePages,
    hugetlbPages: parsed.hugetlbPages,
    maxMapCount: parsed.maxMapCount,
    memory,
    swap: parsed.swap,
    devices: placeDevices(memory, resolveDevices(parsed.devices, fail), fail),
  });
}

/** `spec` with some fields changed, checked again. @throws PfnlessError ERR_PFNLESS_SPEC */
export function overrideMachineSpec(spec: MachineSpec, overrides: MachineOverrides): MachineSpec {
  const { devices, ...rest } = overrides;
  return parseMachineSpec({
    ...spec,
    ...rest,
    devices: devices === undefined ? spec.devices : deviceCopies(spec.devices, devices),
  });
}

/** JSON Schema of a machine spec file, for editors and other tools. */
export function machineSpecJsonSchema(): object {
  const schema = z.toJSONSchema(machineSchema, { io: 'input' });
  const { devices, preset, ...properties } = schema.properties as Record<string, object>;
  return {
    title: 'pfnless machine spec',
    ...schema,
    properties: {
      preset: { ...preset, enum: PRESET_NAMES },
      ...properties,
      devices: { anyOf: [{ type: 'integer', minimum: 0, maximum: MAX_DEVICES }, devices] },
    },
  };
}

type Fail = (path: readonly PropertyKey[], message: string) => never;

/** Fill fields that were left out from the preset, and expand a number of devices. */
function completeFromPreset(written: Record<string, unknown>, fail: Fail): Record<string, unknown> {
  const preset = written.preset ?? DEFAULT_PRESET;
  if (typeof preset !== 'string' || !isPresetName(preset)) {
    return fail(['preset'], `must be one of ${PRESET_NAMES.join(', ')}${notThis(preset)}`);
  }
  const completed: Record<string, unknown> = { ...MACHINE_PRESETS[preset].spec, ...dropUndefined(written) };
  if (typeof completed.devices !== 'number') return completed;
  const count = completed.devices;
  if (!Number.isInteger(count) || count < 0 || count > MAX_DEVICES) {
    return fail(['devices'], `must be a list of 0 to ${MAX_DEVICES} devices, or their number${notThis(count)}`);
  }
  const { devices }: { readonly devices: readonly { readonly name: string }[] } = MACHINE_PRESETS[preset].spec;
  return { ...completed, devices: deviceCopies(devices, count) };
}

const dropUndefined = (fields: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));

/** The first `count` devices; where there are not so many, copies of the first under new names. */
function deviceCopies<T extends { readonly name?: string | undefined }>(
  devices: readonly T[],
  count: number,
): object[] {
  const kept: { name?: string | undefined }[] = devices.slice(0, count);
  const names = new Set(kept.map(({ name }) => name));
  for (let number = kept.length; kept.length < count; number++) {
    const name = `gpu${number}`;
    // A copy has memory of its own, so its place in the physical map is another.
    if (!names.has(name)) kept.push({ ...devices[0], name, address: null });
  }
  return kept;
}

interface WrittenRange {
  readonly name: string;
  readonly start: number;
  readonly end?: number | undefined;
  readonly size?: number | undefined;
}

function endOf(range: WrittenRange, path: readonly PropertyKey[], fail: Fail): number {
  const { name, start, end, size } = range;
  if (size !== undefined && size > 0 && (end === undefined || end === start + size - 1)) return start + size - 1;
  if (end !== undefined && size === undefined) return end;
  return fail(path, `(${name}) must have either an end or a size of at least 1 byte`);
}

function resolveMemory(parsed: z.output<typeof memorySchema>, fail: Fail): MemorySpec {
  const windows = parsed.windows.map((window, index) => ({
    name: window.name,
    start: window.start,
    end: endOf(window, ['memory', 'windows', index], fail),
    kind: window.kind,
  }));
  const { physicalBits, fiveLevelPaging } = parsed;
  if (parsed.map === null) {
    const ram = parsed.ram ?? fail(['memory', 'ram'], 'must be given where there is no memory.map');
    return { ram, physicalBits, fiveLevelPaging, windows, map: null };
  }
  const map: LayoutEntry[] = parsed.map.map((range, index) => {
    const path = ['memory', 'map', index];
    const children = range.children.map((child, at) => ({
      name: child.name,
      start: child.start,
      end: endOf(child, [...path, 'children', at], fail),
      kind: 'reserved' as const,
      children: [],
    }));
    return { name: range.name, start: range.start, end: endOf(range, path, fail), kind: range.kind, children };
  });
  const ram = ramBytes(map);
  if (parsed.ram !== undefined && parsed.ram !== ram) {
    fail(['memory', 'ram'], `must be left out, or be the ${formatBytes(ram)} of RAM that memory.map has`);
  }
  if (ram < RAM_MIN || ram > RAM_MAX) {
    fail(
      ['memory', 'map'],
      `must have from ${formatBytes(RAM_MIN)} to ${formatBytes(RAM_MAX)} of RAM, not ${formatBytes(ram)}`,
    );
  }
  return { ram, physicalBits, fiveLevelPaging, windows, map };
}

/** Bytes that a driver asks for at a time where the spec does not say. */
const DEFAULT_CHUNK = 256 * 2 ** 20;

function resolveDevices(parsed: readonly z.output<typeof deviceSchema>[], fail: Fail): DeviceSpec[] {
  const names = new Set<string>();
  return parsed.map((device, index) => {
    const {
      name = `gpu${index}`,
      driver,
      memory,
      type,
      address,
      chunk = type === 'coherent' ? memory : Math.min(DEFAULT_CHUNK, memory),
      peers,
      tlbSets,
      numaNode,
    } = device;
    if (names.has(name)) fail(['devices', index, 'name'], `must be unique: there are two devices named "${name}"`);
    names.add(name);
    if (!isChunk(chunk, memory)) {
      const allowed = `a multiple of ${formatBytes(PMD_SIZE)} up to the device's ${formatBytes(memory)}, or all of them`;
      fail(['devices', index, 'chunk'], `must be ${allowed}, not ${formatBytes(chunk)}`);
    }
    if (type === 'coherent' && chunk !== memory) {
      fail(['devices', index, 'chunk'], 'must be left out: the memory of a coherent device is there all at once');
    }
    if (type === 'coherent' && memory % PMD_SIZE !== 0) {
      const multiple = `a multiple of ${formatBytes(PMD_SIZE)}`;
      fail(['devices', index, 'memory'], `must be ${multiple} for a coherent device, not ${formatBytes(memory)}`);
    }
    return { name, driver, memory, type, address, chunk, peers, tlbSets, numaNode };
  });
}

/** Give coherent memory its place in the physical map. */
function placeDevices(memory: MemorySpec, devices: readonly DeviceSpec[], fail: Fail): DeviceSpec[] {
  const addresses = placeWindows(memory, devices, (index, field, message) => fail(['devices', index, field], message));
  return devices.map((device, index) => ({ ...device, address: addresses[index]! }));
}

/** The predicate of a sentence about one zod issue. */
function issueText(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case 'unrecognized_keys': {
      const known = Object.keys(shapeAt(issue.path));
      return `has no field "${issue.keys[0]}" (${suggestion(issue.keys[0]!, known)})`;
    }
    case 'invalid_value': {
      if (issue.path[0] === 'addressing' && issue.input === 'pageless') {
        return 'must be legacy or offset: pageless is planned, but not there yet';
      }
      return `must be ${issue.values.map(String).join(' or ')}${notThis(issue.input)}`;
    }
    case 'invalid_type':
      if (issue.message.startsWith('must')) return `${issue.message}${notThis(issue.input)}`;
      return `must be ${issue.expected === 'object' ? 'an object' : `a ${issue.expected}`}${notThis(issue.input)}`;
    default:
      return `${issue.message}${notThis(issue.input)}`;
  }
}

/** The fields that a place in the spec may have. */
function shapeAt(path: readonly PropertyKey[]): object {
  const fields = path.filter((step) => typeof step === 'string').join('.');
  const shapes: Record<string, object> = {
    memory: memorySchema.shape,
    'memory.windows': windowSchema.shape,
    'memory.map': mapEntrySchema.shape,
    'memory.map.children': mapChildSchema.shape,
    devices: deviceSchema.shape,
  };
  return shapes[fields] ?? machineSchema.shape;
}

const notThis = (value: unknown): string => (value === undefined ? '' : `, not ${shown(value)}`);

const pathText = (path: readonly PropertyKey[]): string => z.core.toDotPath(path) || 'the spec';
