/**
 * A host CPU as the machine holds it: a task of the kernel that hands it lists and serves its faults, and what the kernel's
 * shootdowns see of it (mm/tlbflush.ts).
 */
import { PAGE_SIZE } from '../abi/address.js';
import { CPU_BLOCK_BYTES, CPU_OPS_MAX, type CpuConfig, type PhysicalRange } from '../abi/cpu.js';
import { memoryOfDevice } from '../abi/device-pte.js';
import { VM_FAULT_OOM, VM_FAULT_SIGSEGV, type VmFault } from '../abi/errno.js';
import { WORD_MACHINE_CHECK, WORD_NOMEM, WORD_OP, WORD_SIGBUS, WORD_SIGSEGV } from '../abi/word-op.js';
import type { Pfn, VirtAddr } from '../base/brand.js';
import { formatAddress } from '../base/bytes.js';
import { InvariantViolation } from '../base/errors.js';
import { injects } from '../base/injection.js';
import { HostCpu } from '../cpu/host-cpu.js';
import { TlbSlots } from '../cpu/tlb.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { tableOfPage } from '../mm/pgtable.js';
import type { CpuTranslation, RemoteCpu } from '../mm/tlbflush.js';
import { userFault } from '../mm/uaccess.js';
import type { Executor } from '../sched/executor.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import { type CpuCounters, type CpuFault, CpuPort, type SuspendedList } from '../transport/cpu-port.js';
import type { CpuThread } from '../transport/cpu-worker.js';
import { allocate } from './host-memory.js';
import type { MachineSpec } from './spec.js';
import type { MachineDevice } from './state.js';

const OP_WORDS = WORD_OP.bytes / 4;
const { word: OP } = WORD_OP;
/** Operations by which a CPU may be made late for a shootdown. */
const LATE_OPS_MAX = 16;
/** Operations of one step, inline: then somebody else has a turn. */
const INLINE_SLICE = 1;

export class MachineCpu implements RemoteCpu {
  readonly cpu: number;
  readonly #kernel: Kernel;
  readonly #port: CpuPort;
  readonly #tlb: TlbSlots;
  #mm: MmStruct | null = null;
  /** The list that has the CPU. */
  #current: Int32Array | null = null;
  thread: CpuThread | null = null;

  constructor(kernel: Kernel, port: CpuPort) {
    this.cpu = port.cpu;
    this.#kernel = kernel;
    this.#port = port;
    this.#tlb = new TlbSlots(port.block, port.tlbAt);
  }

  /**
   * Run lists of loads and stores, one record of WORD_OP each, which come back with their answers. An access that cannot be done is
   * answered and passed over, as a signal handler would that goes on behind it. Lists wait for each other.
   * @throws InvariantViolation when the page tables lead to a physical address where there is nothing
   */
  *run(mm: MmStruct, ops: Int32Array): Sleeps<Int32Array> {
    const answers = new Int32Array(ops.length);
    yield* this.#acquire(ops);
    try {
      for (let at = 0; at < ops.length; at += CPU_OPS_MAX * OP_WORDS) {
        const part = ops.subarray(at, at + CPU_OPS_MAX * OP_WORDS);
        answers.set(yield* this.#runList(mm, part, ops), at);
      }
    } finally {
      // One that ends while it sleeps does not have the CPU.
      if (this.#current === ops) this.#current = null;
    }
    return answers;
  }

  *#acquire(list: Int32Array): Sleeps<void> {
    yield* waitUntil(`CPU ${this.cpu}`, () => this.#current === null);
    this.#current = list;
  }

  /** Part of a list. */
  *#runList(mm: MmStruct, ops: Int32Array, list: Int32Array): Sleeps<Int32Array> {
    const port = this.#port;
    this.#mm = mm;
    port.start(ops, mm.pid, tableOfPage(this.#kernel, mm.pgd));
    const isWaiting = (): boolean => port.waiting;
    for (let starvedAt = -1; ; ) {
      yield* waitUntil(`CPU ${this.cpu}`, isWaiting);
      const { fault } = port;
      if (fault === null) break;
      const outcome = yield* this.#serve(mm, fault, list);
      // Out of memory, the instruction is tried again, here once (`pagefault_out_of_memory()`).
      const starved = (outcome & VM_FAULT_OOM) !== 0 && starvedAt !== fault.address;
      starvedAt = starved ? fault.address : -1;
      if (outcome === 0 || starved) port.retry();
      else port.skip(outcomeOf(outcome));
    }
    const answers = port.answers();
    this.#requireSane(mm, answers);
    return answers;
  }

  /** Serve a fault of a list. While that sleeps until the machine's user does something (a userfaultfd), another list may have the CPU. */
  *#serve(mm: MmStruct, { address, write }: CpuFault, list: Int32Array): Sleeps<VmFault> {
    const port = this.#port;
    const serving = userFault(this.#kernel, mm, address as VirtAddr, write);
    let suspended: SuspendedList | null = null;
    let step = serving.next();
    for (; !step.done; step = serving.next()) {
      if (step.value.outside && suspended === null) {
        suspended = port.suspend();
        this.#current = null;
      }
      yield step.value;
    }
    if (suspended !== null) {
      yield* this.#acquire(list);
      this.#mm = mm;
      port.restore(suspended, mm.pid, tableOfPage(this.#kernel, mm.pgd));
    }
    return step.value;
  }

  #requireSane(mm: MmStruct, answers: Int32Array): void {
    const floats = new Float64Array(answers.buffer);
    for (let op = 0; op < answers.length; op += OP_WORDS) {
      if (answers[op + OP.outcome] !== WORD_MACHINE_CHECK) continue;
      const where = `process ${mm.pid}, 0x${formatAddress(floats[op / 2 + OP.address]!)}`;
      throw new InvariantViolation(`${where}: its page tables lead CPU ${this.cpu} to PFN ${answers[op + OP.found]}`);
    }
  }

  holds(mm: MmStruct): boolean {
    return this.#mm === mm;
  }

  requestFlush(start: VirtAddr, end: VirtAddr): void {
    const { inject } = this.#kernel;
    const late = injects(this.#kernel, 'shootdown-late') ? 1 + inject!.below(LATE_OPS_MAX) : 0;
    this.#port.requestFlush(start, end, late);
  }

  awaitFlush(): void {
    this.#port.awaitFlush();
  }

  *translations(): Generator<CpuTranslation, void, void> {
    const mm = this.#mm;
    // One that waits to be flushed is not used any more; of a process that is gone nothing is.
    if (mm === null || !this.#port.tlbCurrent || !this.#kernel.mms.has(mm)) return;
    for (const { vpn, target, writable } of this.#tlb.held()) {
      const page = this.#kernel.memmap.pfnToPage(target as Pfn);
      yield { mm, address: (vpn * PAGE_SIZE) as VirtAddr, page, writable };
    }
  }

  counters(): CpuCounters {
    return this.#port.counters();
  }

  async close(timeoutMs: number): Promise<void> {
    await this.thread?.close(timeoutMs);
  }
}

function outcomeOf(fault: number): number {
  if ((fault & VM_FAULT_OOM) !== 0) return WORD_NOMEM;
  return (fault & VM_FAULT_SIGSEGV) !== 0 ? WORD_SIGSEGV : WORD_SIGBUS;
}

/** Memory with physical addresses, RAM first. */
function physicalRanges(kernel: Kernel, devices: readonly MachineDevice[]): PhysicalRange[] {
  const { memmap, ram, ramRanges } = kernel;
  const ranges = ramRanges.map(({ first, pages }) => ({
    firstPfn: memmap.pageToPfn(first) as number,
    pages,
    memory: ram.buffer,
    firstFrame: memmap.ramFrame(first) as number,
  }));
  for (const { spec, link } of devices) {
    if (spec.address === null) continue;
    const memory = link.memories.memories[memoryOfDevice(link.index)]!;
    ranges.push({ firstPfn: spec.address / PAGE_SIZE, pages: spec.memory / PAGE_SIZE, memory, firstFrame: 0 });
  }
  return ranges;
}

/** Start a machine's CPUs: each is in `cpus` before it starts, so that whoever fails later can close it. */
export async function startCpus(
  spec: MachineSpec,
  parts: {
    readonly kernel: Kernel;
    readonly executor: Executor;
    readonly devices: readonly MachineDevice[];
    readonly hostDoorbell: SharedArrayBuffer;
    readonly cpus: MachineCpu[];
  },
): Promise<void> {
  const { kernel, executor, devices, hostDoorbell, cpus } = parts;
  const ranges = physicalRanges(kernel, devices);
  for (let cpu = 1; cpu <= spec.cpus; cpu++) {
    const block = allocate(CPU_BLOCK_BYTES, `the block of CPU ${cpu}`);
    const config: CpuConfig = { cpu, block, hostDoorbell, ranges };
    const port = new CpuPort(config);
    const machineCpu = new MachineCpu(kernel, port);
    cpus.push(machineCpu);
    if (executor.kind === 'inline') {
      const engine = new HostCpu(config, INLINE_SLICE);
      executor.addActor({
        name: `CPU ${cpu}`,
        get runnable() {
          return engine.runnable;
        },
        step: () => engine.step(),
      });
    } else {
      // Only here does the platform come in: an inline machine never loads this module.
      const { startCpuThread } = await import('../transport/cpu-worker.js');
      machineCpu.thread = startCpuThread(port, config, (why) =>
        executor.stop(new InvariantViolation(`CPU ${cpu} is lost: ${why}`)),
      );
    }
    kernel.remoteCpus.push(machineCpu);
  }
}
