/**
 * The machine as users hold it. It owns the processes; boot.ts made everything else. Its end is orderly when it can be
 * (processes exit, drivers unload, devices stop) and complete when it cannot: no thread survives `dispose`. What is broken is
 * not put away in order: what it would wait for may never come.
 */
import type { DeviceStats } from '../abi/control.js';
import { RINGS } from '../abi/queue.js';
import type { Page } from '../base/brand.js';
import { PfnlessError } from '../base/errors.js';
import { memoryFailure } from '../mm/memory-failure.js';
import { createMm, type MmStruct } from '../mm/mm-struct.js';
import { meminfo, meminfoText, vmstat, vmstatText } from '../mm/proc-meminfo.js';
import { kpagecount, kpageflags } from '../mm/proc-page.js';
import { softOfflinePage } from '../mm/soft-offline.js';
import { waitsText } from '../sched/tasks.js';
import { lateAfter } from '../sched/turn.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import { load32 } from '../sync/word.js';
import { requireDevice, requireFrames, requireProcFile } from './arguments.js';
import { EmulatedFile } from './file.js';
import { isForgetful } from './forgetting.js';
import { joinMaps } from './iomem.js';
import { Lifetime } from './lifetime.js';
import { EmulatedProcess } from './process.js';
import type { MachineSpec } from './spec.js';
import type { Checker, MachineDevice, MachineState } from './state.js';
import type {
  FileInput,
  Machine,
  MachineFile,
  MachineStats,
  Meminfo,
  Process,
  ProcFile,
  Violation,
  Vmstat,
} from './types.js';

/** How long a device may take to stop by itself before its thread is killed, in milliseconds. */
export const CLOSE_TIMEOUT_MS = 1000;
/** The same when it is in the middle of work that nobody waits for any more. */
const ABANDON_TIMEOUT_MS = 50;
/** The same for everything before, on a kernel that forgets, in milliseconds. */
const SHUT_DOWN_MAX_MS = 5_000;
/** Violations of one invariant that one check reports: one mistake tends to show on thousands of pages. */
const VIOLATIONS_MAX = 20;

const NO_DEVICE_STATS: DeviceStats = Object.freeze({
  tlbHits: 0,
  tlbMisses: 0,
  walks: 0,
  faults: 0,
  copiedPages: 0,
  invalidations: 0,
  launches: 0,
  operations: 0,
});

export class EmulatedMachine implements Machine {
  readonly spec: MachineSpec;
  readonly deviceCount: number;
  readonly #state: MachineState;
  readonly #checkers: readonly Checker[];
  readonly #life = new Lifetime('the machine has been disposed');
  readonly #processes = new Set<Process>();
  readonly #files = new Set<MachineFile>();
  /** What each device said of itself last: a lost one cannot be asked any more. */
  readonly #deviceStats = new Map<MachineDevice, DeviceStats>();
  #lastPid = 0;
  /** A check has found something. */
  #isViolated = false;

  constructor(state: MachineState, checkers: readonly Checker[]) {
    this.spec = state.spec;
    this.deviceCount = state.devices.length;
    this.#state = state;
    this.#checkers = checkers;
  }

  process(): Promise<Process> {
    return this.#life.call(async () => {
      const { kernel } = this.#state;
      const mm = createMm(kernel, this.#nextPid());
      if (mm === undefined) {
        throw new PfnlessError('ERR_PFNLESS_ERRNO', 'There is no memory for another process: ENOMEM.', {
          errno: 'ENOMEM',
        });
      }
      return this.#adopt(mm);
    });
  }

  file(input: FileInput): Promise<MachineFile> {
    return this.#life.call(async () => {
      const onClosed = (closed: EmulatedFile) => this.#files.delete(closed);
      const file = new EmulatedFile({ machine: this.#state, machineLife: this.#life, onClosed }, input);
      this.#files.add(file);
      return file;
    });
  }

  readonly #nextPid = (): number => ++this.#lastPid;

  readonly #adopt = (mm: MmStruct): EmulatedProcess => {
    const process = new EmulatedProcess({
      machine: this.#state,
      machineLife: this.#life,
      mm,
      nextPid: this.#nextPid,
      adopt: this.#adopt,
      onExit: (exited) => this.#processes.delete(exited),
    });
    this.#processes.add(process);
    return process;
  };

  settle(): Promise<void> {
    return this.#life.call(() => this.#atRest(() => {}));
  }

  stats(): Promise<MachineStats> {
    return this.#life.call(async () => {
      const { kernel, devices, cpus } = this.#state;
      const deviceStats = await Promise.all(devices.map((device) => this.#statsOf(device)));
      const driverStats = devices.map(({ driver }) => driver.stats());
      const sum = (counter: 'deviceFaults' | 'faultBatches' | 'evicted') =>
        driverStats.reduce((total, stats) => total + stats[counter], 0);
      const { cpuFaults, migratedToDevice, migratedToRam, tlbShootdowns } = kernel.stats;
      return {
        cpuFaults,
        deviceFaults: sum('deviceFaults'),
        faultBatches: sum('faultBatches'),
        migratedToDevice,
        migratedToRam,
        evicted: sum('evicted'),
        tlbShootdowns,
        freeRamPages: kernel.buddy.freePagesCount,
        hugetlb: {
          total: kernel.hugetlb.total,
          free: kernel.hugetlb.free.length,
          reserved: kernel.hugetlb.reserved,
        },
        cpus: cpus.map((cpu) => cpu.counters()),
        devices: devices.map(({ spec, link }, at) => ({
          name: spec.name,
          lost: link.lost?.message ?? null,
          usedPages: driverStats[at]!.usedPages,
          freePages: driverStats[at]!.freePages,
          tlbHits: deviceStats[at]!.tlbHits,
          tlbMisses: deviceStats[at]!.tlbMisses,
          copiedPages: deviceStats[at]!.copiedPages,
          operations: deviceStats[at]!.operations,
        })),
      };
    });
  }

  check(): Promise<readonly Violation[]> {
    return this.#life.call(async () => {
      const violations: Violation[] = [];
      for (const checker of this.#checkers) {
        // Each by itself: a large machine does not hold up the event loop for all of them.
        violations.push(...(await this.#atRest(() => violationsOf(checker, this.#state))));
      }
      if (violations.length > 0) this.#isViolated = true;
      return violations;
    });
  }

  meminfo(): Meminfo {
    this.#life.assertAlive();
    return meminfo(this.#state.kernel);
  }

  vmstat(): Vmstat {
    this.#life.assertAlive();
    return vmstat(this.#state.kernel);
  }

  kpageflags(pfn: number, count: number): BigUint64Array {
    this.#life.assertAlive();
    requireFrames(pfn, count);
    return kpageflags(this.#state.kernel, pfn, count);
  }

  kpagecount(pfn: number, count: number): BigUint64Array {
    this.#life.assertAlive();
    requireFrames(pfn, count);
    return kpagecount(this.#state.kernel, pfn, count);
  }

  hardOfflinePage(pfn: number): Promise<void> {
    return this.#offline('hard_offline_page', pfn, memoryFailure);
  }

  softOfflinePage(pfn: number): Promise<void> {
    return this.#offline('soft_offline_page', pfn, softOfflinePage);
  }

  #offline(name: string, pfn: number, offline: typeof memoryFailure): Promise<void> {
    return this.#life.call(async () => {
      requireFrames(pfn, 1);
      const { kernel, executor } = this.#state;
      const errno = await executor.run(name, offline(kernel, pfn));
      if (errno === 0) return;
      throw new PfnlessError('ERR_PFNLESS_ERRNO', `${name} of frame ${pfn}: ${errno}.`, { errno });
    });
  }

  proc(file: ProcFile): string {
    requireProcFile(file);
    if (file === 'iomem') return this.iomem();
    return file === 'meminfo' ? meminfoText(this.meminfo()) : vmstatText(this.vmstat());
  }

  iomem(): string {
    this.#life.assertAlive();
    const { kernel, devices } = this.#state;
    const inspections = devices.map(({ spec, driver }) => ({ name: spec.name, inspection: driver.inspect?.() }));
    const holderOf = (first: Page): string | undefined =>
      inspections.find(({ inspection }) => (inspection?.frameOf(first) ?? null) !== null)?.name;
    return joinMaps(
      kernel.iomem.print(),
      kernel.privateSpace.print(({ pages }) => holderOf(pages)),
    );
  }

  killDevice(device: number | string): Promise<void> {
    return this.#life.call(() => requireDevice(this.#state.devices, device).link.terminate());
  }

  dispose(): Promise<void> {
    return this.#life.end(async () => {
      const { executor, devices, cpus, spec } = this.#state;
      const isBroken = this.#isViolated || this.#life.broken !== null;
      const { stopped } = executor;
      const idle = !isBroken && stopped === null && executor.waits().length === 0;
      try {
        // It was stopped by what nobody waited for: whoever ends the machine is the first to hear of it.
        if (!isBroken && stopped !== null) throw stopped;
        if (idle && devices.every(({ link }) => link.lost === null)) {
          await (isForgetful(spec) ? this.#inTime(this.#shutDown()) : this.#shutDown());
        }
      } finally {
        executor.stop(this.#life.overError);
        const timeoutMs = idle ? CLOSE_TIMEOUT_MS : ABANDON_TIMEOUT_MS;
        await Promise.all([...devices.map(({ link }) => link), ...cpus].map((each) => each.close(timeoutMs)));
      }
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  /** A kernel that forgets may wait for ever for what it has lost count of. @throws PfnlessError ERR_PFNLESS_DEADLOCK when it is late */
  async #inTime(work: Promise<void>): Promise<void> {
    const isLate = await lateAfter(SHUT_DOWN_MAX_MS, work);
    if (!isLate) return;
    const waits = waitsText(this.#state.executor.waits());
    const message = `The machine does not come to its end: ${waits || 'a device does not answer'}.`;
    throw new PfnlessError('ERR_PFNLESS_DEADLOCK', message);
  }

  /** Processes exit, files are closed, drivers unload. */
  async #shutDown(): Promise<void> {
    const { executor, devices } = this.#state;
    await Promise.all([...this.#processes].map((process) => process.exit()));
    await Promise.all([...this.#files].map((file) => file.close()));
    for (const { driver, spec } of devices) await executor.run(`remove ${spec.name}`, driver.remove());
  }

  /** Look when no task is left, every ring is empty, and everything has come to rest after that: at once, before anybody else goes on. */
  async #atRest<T>(look: () => T): Promise<T> {
    const { executor, devices } = this.#state;
    do {
      await executor.run('settle', ringsEmpty(devices));
      await executor.settle();
    } while (executor.waits().length > 0);
    return look();
  }

  async #statsOf(device: MachineDevice): Promise<DeviceStats> {
    const { link } = device;
    if (!link.lost) {
      try {
        this.#deviceStats.set(device, await link.control.stats());
      } catch (reason) {
        // It may die while it is asked; anything else is an error.
        if (!link.lost) throw reason;
      }
    }
    return this.#deviceStats.get(device) ?? NO_DEVICE_STATS;
  }
}

/** What a checker finds, up to a number that a person would read. */
function violationsOf(checker: Checker, state: MachineState): Violation[] {
  const violations: Violation[] = [];
  for (const message of checker.look(state)) {
    const isLast = violations.length === VIOLATIONS_MAX - 1;
    violations.push({ invariant: checker.invariant, message: isLast ? `${message} (there may be more)` : message });
    if (isLast) break;
  }
  return violations;
}

/** Every record that was put into a ring of a living device has been taken out. */
function ringsEmpty(devices: readonly MachineDevice[]): Sleeps<void> {
  const queues = devices.map(({ link }) => ({ link, words: new Int32Array(link.memories.queue) }));
  return waitUntil('empty rings', () =>
    queues.every(
      ({ link, words }) =>
        link.lost !== null ||
        Object.values(RINGS).every(({ headWord, tailWord }) => load32(words, headWord) === load32(words, tailWord)),
    ),
  );
}
