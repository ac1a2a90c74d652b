/**
 * A machine that is used for one execution after the other, as booting one takes a thousand times as long as running a small
 * program. After each execution it is as it was at the start, in everything that a later one could see, so that an execution is a
 * function of machine, program and schedule, be it the first on its machine or the millionth.
 *
 * How that is known: what an execution leaves behind is (1) nothing, which the checks at its end prove (all frames free, no
 * pages on devices, no process, no mirror), (2) the order of what is free, which is put back (`reset` of drivers and engines) or compared with the
 * start word by word (free lists, pagemaps), and (3) counters that only differences are ever taken of (fences, ring positions).
 * After a failure a world is thrown away.
 */
import { MAX_PAGE_ORDER, PAGE_SIZE } from '../abi/address.js';
import { HOST_DOORBELL } from '../abi/queue.js';
import { STRUCT_PAGE, STRUCT_PAGE_WORD_SHIFT } from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { failedPages, freeBlockPages, ramPages, ramUse } from '../check/ram.js';
import { PromptControl } from '../device/prompt-control.js';
import { createKernelOf, deviceMemories, startDrivers, WAVE_LANES } from '../machine/boot.js';
import { isForgetful } from '../machine/forgetting.js';
import { type MachineSpec, parseMachineSpec } from '../machine/spec.js';
import type { MachineState } from '../machine/state.js';
import type { SiteChoice } from '../mm/check-sites.js';
import type { Kernel } from '../mm/kernel.js';
import { unpoisonMemory } from '../mm/memory-failure.js';
import { Stepper } from '../sched/explore/stepper.js';
import { pageRefAdd } from '../sync/page-ref.js';
import { createPromptLink } from '../transport/prompt-link.js';
import type { Injection, Program } from '../workload/program/program.js';
import { TaskCpu } from './cpu.js';
import { Environment } from './environment.js';

/** What of a program decides which machine it needs, and which kernel runs there. */
export interface WorldSpec {
  readonly addressing: MachineSpec['addressing'];
  readonly sites: SiteChoice;
  readonly devices: number;
  readonly hugePages: MachineSpec['hugePages'];
  readonly coherent: readonly number[];
  readonly peers: readonly number[];
  readonly swap: number;
  readonly inject: readonly Injection[];
}

/**
 * RAM from the second page on, so that the allocator has one free block of each order, and some of the largest: as all that was taken
 * apart merges again, the free lists are the same after most executions, without anybody's help.
 */
const RAM = { name: 'System RAM', kind: 'ram', start: PAGE_SIZE, end: 16 * 2 ** 20 + PAGE_SIZE - 1 } as const;
const BELOW_RAM = { name: 'Reserved', start: 0, end: PAGE_SIZE - 1 } as const;
/** Memory of each device: as little as every addressing can give. */
const DEVICE_MEMORY = '2MiB';
const TLB_SETS = 4;
/** Steps of boot, at the most: a turn for each service. */
const BOOT_STEPS_MAX = 64;

const LRU_NEXT = STRUCT_PAGE.word.lruNext;
const LRU_PREV = STRUCT_PAGE.word.lruPrev;

export const worldSpecOf = (
  program: Program,
  addressing: MachineSpec['addressing'],
  sites: SiteChoice = {},
): WorldSpec => ({
  addressing,
  sites,
  devices: program.devices,
  hugePages: program.hugePages,
  coherent: program.coherent,
  peers: program.peers,
  swap: program.swap,
  inject: program.inject,
});

/** Two programs of one kernel can share a machine if they have the same. */
export const worldKey = ({ addressing, devices, hugePages, coherent, peers, swap, inject }: WorldSpec): string =>
  [addressing, devices, hugePages, coherent.join(), peers.join(), swap, ...inject].join(' ');

export class World {
  readonly state: MachineState;
  /** Its kernel has forgotten something. */
  readonly forgetful: boolean;
  readonly stepper: Stepper;
  readonly environment: Environment;
  readonly #engines: readonly PromptControl[];
  /** Called after each step of a task. */
  onTaskStep: (() => void) | null = null;
  /** Frames that are free between executions. */
  readonly freeAtStart: number;
  readonly #freeListsAtStart: Int32Array;
  readonly #pagemapsAtStart: string;

  constructor(spec: WorldSpec) {
    const machine = machineSpec(spec);
    const log: string[] = [];
    this.forgetful = isForgetful(spec.sites);
    this.environment = new Environment(spec.inject);
    this.stepper = new Stepper({
      footprint: (thread) => this.environment.takeFootprint(thread),
      switched: (thread) => this.environment.switched(thread),
      tasked: () => this.onTaskStep?.(),
      paused: (thread, why) => this.environment.onPause?.(thread, why),
    });
    const { stepper, environment } = this;
    const kernel = createKernelOf(machine, stepper, log, { inject: environment });
    const memories = deviceMemories(machine, kernel, new SharedArrayBuffer(HOST_DOORBELL.bytes));
    this.#engines = memories.map((each, index) => {
      const { name } = machine.devices[index]!;
      const config = { index, name, tlbSets: TLB_SETS, waveLanes: WAVE_LANES };
      return new PromptControl(config, each, {
        preempt: () => stepper.preempt(),
        ...environment.engineHooks,
      });
    });
    const links = memories.map((each, index) => {
      const { name } = machine.devices[index]!;
      const config = { index, name, tlbSets: TLB_SETS, waveLanes: WAVE_LANES };
      return createPromptLink({
        config,
        memories: each,
        device: this.#engines[index]!,
        touched: () => environment.touchedDevice(index),
      });
    });
    const devices = startDrivers(machine, kernel, links, stepper);
    for (const link of links) stepper.addActor(link);
    this.state = { spec: machine, kernel, executor: stepper, devices, cpus: [], log, heldPages: new Map() };
    stepper.drive(BOOT_STEPS_MAX, 'rest');
    environment.boot(devices.length, this.#engines);
    poisonAll(kernel, takeAll(kernel));
    this.freeAtStart = kernel.buddy.freePagesCount;
    this.#freeListsAtStart = freeLists(kernel);
    this.#pagemapsAtStart = pagemaps(kernel);
  }

  /**
   * Before an execution. Precondition: the machine is new, or the execution before has given back everything.
   * @param frames pages that each device has to hand out
   */
  reset(frames: number): void {
    const { kernel, devices } = this.state;
    if (kernel.memoryFailures.poisoned > 0) unpoisonAll(kernel);
    if (pagemaps(kernel) !== this.#pagemapsAtStart) this.#renewDeviceMemory();
    for (const { driver } of devices) driver.reset!(frames);
    for (const engine of this.#engines) engine.reset();
    this.#restoreFreeLists();
    this.stepper.forgetTurns();
    this.environment.reset();
    kernel.remoteCpus.length = 0;
  }

  /** A CPU for one task, until the next `reset`. */
  addCpu(): TaskCpu {
    const { remoteCpus } = this.state.kernel;
    const cpu = new TaskCpu(this.state.kernel, remoteCpus.length + 1, {
      preempt: () => this.stepper.preempt(),
      faultsOnOld: () => this.environment.faultsOnOld(),
    });
    remoteCpus.push(cpu);
    return cpu;
  }

  /** Memory of devices that was released in the middle of a program may have come back in another order. */
  #renewDeviceMemory(): void {
    const { kernel, devices } = this.state;
    for (const { driver } of devices) this.stepper.spawn('release of device memory', driver.releaseMemory!());
    this.stepper.drive(1000);
    // Their first chunks come back in the order of the devices, as at boot.
    for (const { driver } of devices) driver.reset!(1);
    assert(pagemaps(kernel) === this.#pagemapsAtStart, 'device memory is not where it was at the start');
  }

  #restoreFreeLists(): void {
    const { kernel } = this.state;
    if (sameWords(freeLists(kernel), this.#freeListsAtStart)) return;
    poisonAll(kernel, takeAll(kernel));
    assert(sameWords(freeLists(kernel), this.#freeListsAtStart), 'the free lists are not as at the start');
  }
}

function machineSpec({ addressing, sites, devices, hugePages, coherent, peers, swap }: WorldSpec): MachineSpec {
  return parseMachineSpec({
    name: 'explored',
    addressing,
    ...sites,
    executor: 'inline',
    hugePages,
    memory: { physicalBits: 46, map: [BELOW_RAM, RAM] },
    // The first page of a swap area is its header.
    swap: swap === 0 ? [] : [(swap + 1) * PAGE_SIZE],
    devices: Array.from({ length: devices }, (_, index) => ({
      name: `gpu${index}`,
      memory: DEVICE_MEMORY,
      type: coherent.includes(index) ? 'coherent' : 'private',
      peers: peers.includes(index) ? 'peers' : null,
      // As of a device without affinity: the kernel finds one.
      numaNode: -1,
    })),
  });
}

interface Block {
  readonly page: Page;
  readonly order: number;
}

/** Every free block, the highest first. */
function takeAll({ buddy }: Kernel): Block[] {
  const taken: Block[] = [];
  for (let order = MAX_PAGE_ORDER; order >= 0; order--) {
    for (let page = buddy.allocPages(order); page !== NULL_PAGE; page = buddy.allocPages(order)) {
      taken.push({ page, order });
    }
  }
  return taken.sort((a, b) => b.page - a.page);
}

/** Give blocks back, the highest first: so each list begins with its lowest block, and all frames are poisoned. */
function poisonAll({ buddy, memmap }: Kernel, blocks: readonly Block[]): void {
  for (const { page, order } of blocks) {
    // The reference that it was allocated with.
    pageRefAdd(memmap.words, page, -1);
    buddy.freePages(page, order);
  }
}

/** Nothing is in use between executions, so every frame that failed can be free again. */
function unpoisonAll(kernel: Kernel): void {
  for (const page of [...failedPages(kernel)]) unpoisonMemory(kernel, page);
  assert(kernel.memoryFailures.poisoned === 0, 'a frame that failed is in use');
}

function pagemaps(kernel: Kernel): string {
  let text = '';
  for (const { id, pages, range } of kernel.pagemaps) text += `${id} ${pages} ${range?.start};`;
  return text;
}

/** Every free block, with its neighbours in its list. */
function freeLists(kernel: Kernel): Int32Array {
  const { words } = kernel.memmap;
  const found: number[] = [];
  for (const page of ramPages(kernel)) {
    if (ramUse(kernel, page) !== 'free') continue;
    const slot = page << STRUCT_PAGE_WORD_SHIFT;
    found.push(page, freeBlockPages(kernel, page), words[slot + LRU_NEXT]!, words[slot + LRU_PREV]!);
  }
  return Int32Array.from(found);
}

const sameWords = (a: Int32Array, b: Int32Array): boolean =>
  a.length === b.length && a.every((word, at) => word === b[at]);
