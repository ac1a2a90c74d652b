/**
 * Boot: from a spec to a running machine. The only place where everything meets.
 *
 * Order: spec, physical layout, kernel, the memories that threads share, links and engines, drivers (which take their
 * first memory as the addressing does it), fault service. Whatever fails, nothing of it is left.
 */
import { PAGE_SIZE, PAGES_PER_SECTION } from '../abi/address.js';
import type { DeviceConfig, DeviceMemories } from '../abi/control.js';
import { memoryOfDevice } from '../abi/device-pte.js';
import type { Errno } from '../abi/errno.js';
import { HOST_DOORBELL, QUEUE_BYTES } from '../abi/queue.js';
import type { PhysAddr } from '../base/brand.js';
import { formatBytes } from '../base/bytes.js';
import { assert, PfnlessError } from '../base/errors.js';
import { EngineControl } from '../device/control.js';
import type { DeviceDriver } from '../drivers/driver.js';
import { PeerGroup } from '../drivers/peer-group.js';
import { createTestHmm } from '../drivers/test-hmm.js';
import { sitesOf } from '../mm/check-sites.js';
import { createKernel, type Kernel, type KernelOptions } from '../mm/kernel.js';
import { randomChooser, roundRobin } from '../sched/choice.js';
import type { Executor } from '../sched/executor.js';
import { InlineExecutor } from '../sched/inline-executor.js';
import { ThreadsExecutor } from '../sched/threads-executor.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import type { DeviceLink } from '../transport/device-link.js';
import { createInlineLink } from '../transport/inline-link.js';
import { windowEntries } from './coherent-windows.js';
import { BootError } from './errors.js';
import { allocate, fromHost } from './host-memory.js';
import { physicalLayout } from './layout.js';
import { CLOSE_TIMEOUT_MS, EmulatedMachine } from './machine.js';
import { type MachineCpu, startCpus } from './machine-cpu.js';
import { type DeviceSpec, type MachineInput, type MachineSpec, parseMachineSpec } from './spec.js';
import type { Checker, MachineDevice, MachineState } from './state.js';
import type { Machine } from './types.js';

/** Memory for one device's page tables: 16,384 tables, which map 32 GiB if they are full. Untouched memory costs nothing. */
const PAGE_TABLE_BYTES = 64 * 2 ** 20;
/** Lanes that a device runs before it looks at its rings again. */
export const WAVE_LANES = 64;

/** A machine, and what it is made of for those who look inside beside its checkers: trace replay shows page tables. */
export interface BootedMachine {
  readonly machine: Machine;
  readonly state: MachineState;
}

/** As `bootWithState`, for users. */
export async function bootMachine(input: MachineInput | undefined, checkers: readonly Checker[]): Promise<Machine> {
  return (await bootWithState(input, checkers)).machine;
}

/**
 * Boot a machine.
 * @param input a spec, or the name of a preset; default: the preset `laptop`
 * @param checkers what `Machine.check` looks for
 * @param extra hooks of the kernel that are no part of a machine's spec: fault injection
 * @throws PfnlessError ERR_PFNLESS_SPEC; BootError when a driver gets no memory; ERR_PFNLESS_BOOT when the host has too little
 */
export async function bootWithState(
  input: MachineInput | undefined,
  checkers: readonly Checker[],
  extra: Partial<KernelOptions> = {},
): Promise<BootedMachine> {
  const spec = parseMachineSpec(input);
  const log: string[] = [];
  const hostDoorbell = allocate(HOST_DOORBELL.bytes, 'the doorbell');
  const engines: EngineControl[] = [];
  // While the module of a program is being loaded, an inline machine stands still.
  const executor = await createExecutor(spec, hostDoorbell, () => engines.some(({ loading }) => loading));
  const links: DeviceLink[] = [];
  const cpus: MachineCpu[] = [];
  try {
    const kernel = createKernelOf(spec, executor, log, extra);
    // All at the same time: a thread takes long to start.
    const starting = deviceMemories(spec, kernel, hostDoorbell).map((memories, index) => {
      const { name, tlbSets } = spec.devices[index]!;
      const config: DeviceConfig = { index, name, tlbSets, waveLanes: WAVE_LANES };
      return createLink(spec, config, memories, executor, engines);
    });
    const started = await Promise.allSettled(starting);
    links.push(...started.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : [])));
    for (const each of started) if (each.status === 'rejected') throw each.reason;
    const devices = startDrivers(spec, kernel, links, executor);
    await startCpus(spec, { kernel, executor, devices, hostDoorbell, cpus });
    const state: MachineState = { cpus, spec, kernel, executor, devices, log, heldPages: new Map() };
    return { machine: new EmulatedMachine(state, checkers), state };
  } catch (reason) {
    executor.stop(new PfnlessError('ERR_PFNLESS_DISPOSED', 'the machine did not boot'));
    await Promise.all([...links, ...cpus].map((each) => each.close(CLOSE_TIMEOUT_MS)));
    throw reason;
  }
}

/** The kernel's, the devices' and the CPUs'. */
const threadsOf = ({ devices, cpus }: MachineSpec): number => 1 + devices.length + cpus;

async function createExecutor(
  spec: MachineSpec,
  hostDoorbell: SharedArrayBuffer,
  outside: () => boolean,
): Promise<Executor> {
  if (spec.executor === 'threads') {
    // Only here and for links does the platform come in: an inline machine never loads this module.
    const { haveCores } = await import('../transport/worker-link.js');
    return new ThreadsExecutor(hostDoorbell, { ownCores: haveCores(threadsOf(spec)) });
  }
  const chooser = spec.schedule === 'random' ? randomChooser(spec.seed) : roundRobin();
  return new InlineExecutor({ chooser, outside });
}

/** The last part of boot: a driver for each device that has a link. @throws BootError when one gets no memory */
export function startDrivers(
  spec: MachineSpec,
  kernel: Kernel,
  links: readonly DeviceLink[],
  executor: Executor,
): MachineDevice[] {
  const groups = new PeerGroups();
  const devices = links.map((link, index) => createDevice(spec.devices[index]!, link, kernel, groups));
  for (const device of devices) probe(device, kernel, spec);
  for (const { link, driver } of devices) {
    executor.background(`fault service of ${link.name}`, faultService(link, driver));
  }
  return devices;
}

/** The first part of boot. `extra`: hooks that only explorations have. */
export function createKernelOf(
  spec: MachineSpec,
  executor: Executor,
  log: string[],
  extra: Partial<KernelOptions> = {},
): Kernel {
  const kernel = fromHost('the RAM and its struct pages', spec.memory.ram, () =>
    createKernel({
      layout: physicalLayout(spec.memory, windowEntries(spec.memory, spec.devices)),
      addressing: spec.addressing,
      sites: sitesOf(spec),
      checked: spec.checks,
      hugePages: spec.hugePages,
      hugetlbPages: spec.hugetlbPages,
      maxMapCount: spec.maxMapCount,
      warn: (text) => log.push(text),
      devicePages: spec.devices.reduce((pages, device) => pages + structPages(device), 0),
      preempt: () => executor.preempt('preempt task'),
      ...extra,
    }),
  );
  for (const bytes of spec.swap) {
    const refused = fromHost('a swap area', bytes, () => kernel.swap.swapon(bytes));
    assert(refused === 0, () => `swapon of ${bytes} bytes: ${refused}`);
  }
  return kernel;
}

/** Struct pages of a device's memory: each chunk takes whole sections of the vmemmap. */
function structPages({ memory, chunk }: DeviceSpec): number {
  const sectionsOfChunk = Math.ceil(chunk / PAGE_SIZE / PAGES_PER_SECTION);
  return Math.ceil(memory / chunk) * sectionsOfChunk * PAGES_PER_SECTION;
}

/** What each device can reach: RAM, every device's memory (links between all of them), and its own tables and rings. */
export function deviceMemories(spec: MachineSpec, kernel: Kernel, hostDoorbell: SharedArrayBuffer): DeviceMemories[] {
  const memories = [
    kernel.ram.buffer,
    ...spec.devices.map(({ name, memory }) => allocate(memory, `the memory of ${name}`)),
  ];
  return spec.devices.map(({ name }) => ({
    memories,
    memmap: kernel.memmap.buffer,
    pageTables: allocate(PAGE_TABLE_BYTES, `the page tables of ${name}`),
    queue: allocate(QUEUE_BYTES, `the rings of ${name}`),
    hostDoorbell,
  }));
}

async function createLink(
  spec: MachineSpec,
  config: DeviceConfig,
  memories: DeviceMemories,
  executor: Executor,
  engines: EngineControl[],
): Promise<DeviceLink> {
  if (spec.executor === 'threads') {
    const { createWorkerLink, haveCores } = await import('../transport/worker-link.js');
    return createWorkerLink({ config, memories, ownCores: haveCores(threadsOf(spec)) });
  }
  // Lanes are switched in their middle only where choices are random: a round robin always runs them to their end.
  const device = new EngineControl(
    spec.schedule === 'random' ? { preempt: () => executor.preempt('preempt lane') } : {},
  );
  const link = await createInlineLink({ config, memories, device });
  engines.push(device);
  executor.addActor(link);
  return link;
}

/** Groups of devices by their names in the spec. */
class PeerGroups {
  readonly #byName = new Map<string, PeerGroup>();

  of({ peers }: DeviceSpec): PeerGroup {
    const group = (peers === null ? undefined : this.#byName.get(peers)) ?? new PeerGroup();
    if (peers !== null) this.#byName.set(peers, group);
    return group;
  }
}

function createDevice(spec: DeviceSpec, link: DeviceLink, kernel: Kernel, groups: PeerGroups): MachineDevice {
  const { name, memory, chunk, numaNode, address } = spec;
  const memoryId = memoryOfDevice(link.index);
  const bytes = link.memories.memories[memoryId]!;
  const coherent = address === null ? null : { id: memoryId, bytes, address: address as PhysAddr };
  const driver = createTestHmm({
    kernel,
    link,
    name,
    memory,
    chunk,
    numaNode,
    memoryId,
    coherent,
    peers: groups.of(spec),
  });
  return { index: link.index, spec, link, driver };
}

/** @throws BootError when the driver gets no memory */
function probe(device: MachineDevice, kernel: Kernel, spec: MachineSpec): void {
  const { name, chunk } = device.spec;
  const errno = device.driver.probe();
  if (errno === 0) return;
  throw new BootError(
    `${name} got no device memory under ${spec.addressing} addressing: ${noMemoryText(chunk, errno)} (${errno}).`,
    { device: name, bytes: chunk, errno },
    kernel.iomem.print(),
  );
}

function noMemoryText(bytes: number, errno: Errno): string {
  const size = formatBytes(bytes);
  if (errno === 'ERANGE') return `no physical address space is free for ${size}`;
  if (errno === 'ENOMEM') return `there are no struct pages for ${size}`;
  return `the request for ${size} failed`;
}

/** The fault service of a device ends with it, and is the end of the machine if it fails otherwise. */
function* faultService(link: DeviceLink, driver: DeviceDriver): Sleeps<never> {
  try {
    yield* driver.serveFaults();
  } catch (reason) {
    if (!link.lost) throw reason;
  }
  for (;;) yield* waitUntil('nothing: the device is lost', () => false);
}
