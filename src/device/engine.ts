/**
 * The simulated GPU: MMU and TLB, fault buffer, copy engine, command processor and the launches in flight, behind one `step()`.
 *
 * The engine never blocks and knows neither threads nor time: a worker's loop or the inline executor steps it. A step does one
 * kind of work, the most urgent that there is: invalidations (the kernel waits for them with locks held), answers to
 * faults, a slice of a copy, a slice of lanes. Data moves through the rings of abi/queue.ts only.
 */
import {
  type DeviceConfig,
  type DeviceMemories,
  type DeviceStats,
  type LaunchReport,
  type LaunchRequest,
  NO_LANE,
} from '../abi/control.js';
import { ERRNO_NUMBER } from '../abi/errno.js';
import { HOST_DOORBELL } from '../abi/queue.js';
import { assert } from '../base/errors.js';
import { type Doorbell, ringDoorbell } from '../sync/doorbell.js';
import { CommandProcessor } from './command-processor.js';
import { CopyEngine } from './copy-engine.js';
import { FaultBuffer } from './fault-buffer.js';
import { Lane } from './lane.js';
import { ReachableMemory } from './memory.js';
import { Mmu } from './mmu.js';
import type { ComputeProgram } from './program.js';
import { Tlb } from './tlb.js';
import { Wave, type WaveResources } from './wave.js';

export interface EngineOptions {
  /**
   * Asked before each operation of a lane but the first one of an activation; true abandons the lane and ends the step. The
   * inline executor explores interleavings with it. Absent: lanes run to their end.
   */
  readonly preempt?: () => boolean;
  /**
   * Which of `n` kinds of work that wait comes first, 0 being the most urgent. Rings are independent of each other, so each order
   * is one that hardware may choose. Absent: always 0.
   */
  readonly order?: (n: number) => number;
}

export class Engine {
  readonly #config: DeviceConfig;
  readonly #mmu: Mmu;
  readonly #lane: Lane;
  readonly #faults: FaultBuffer;
  readonly #commands: CommandProcessor;
  readonly #copies: CopyEngine;
  readonly #resources: WaveResources;
  readonly #hostDoorbell: Doorbell;
  readonly #order: EngineOptions['order'];
  readonly #forget = (): void => this.#lane.forget();
  /** Launches in flight; the one at index 0 has its turn next. */
  readonly #waves: Wave[] = [];
  #launches = 0;
  /** Operations of launches that are over. */
  #operations = 0;

  constructor(config: DeviceConfig, memories: DeviceMemories, options: EngineOptions = {}) {
    const { queue } = memories;
    const memory = new ReachableMemory(memories.memories);
    const tlb = new Tlb(config.tlbSets);
    this.#config = config;
    this.#order = options.order;
    this.#mmu = new Mmu(tlb, memory, memories.pageTables);
    this.#faults = new FaultBuffer(queue);
    this.#commands = new CommandProcessor(queue, tlb, this.#faults);
    this.#copies = new CopyEngine(queue, memory, memories.memmap);
    this.#lane = new Lane(this.#mmu, { poll: () => this.#obeyInvalidations(), preempt: options.preempt });
    this.#resources = { lane: this.#lane, faults: this.#faults };
    this.#hostDoorbell = {
      words: new Int32Array(memories.hostDoorbell),
      at: HOST_DOORBELL.word.doorbell,
      sleepingAt: HOST_DOORBELL.word.sleeping,
    };
  }

  /** Announce an address space. `root` is the word index of its top level table. */
  bindContext(context: number, root: number): void {
    this.#mmu.bind(context, root);
  }

  /** Forget an address space. Its launches fail; when this returns nothing walks its page tables any more. */
  unbindContext(context: number): void {
    const message = `context ${context} was unbound while the launch ran`;
    for (const wave of this.#waves) {
      if (wave.context === context)
        wave.fail({ kind: 'fault', errno: ERRNO_NUMBER.EFAULT, address: 0, lane: NO_LANE, message });
    }
    this.#faults.dropContext(context);
    this.#mmu.unbind(context);
    this.#forget();
    this.#reap();
  }

  /**
   * Queue a launch. `onReport` is called once, from within a later `step` (or `unbindContext`); before this returns when
   * the request makes no sense.
   */
  launch(program: ComputeProgram, request: LaunchRequest, onReport: (report: LaunchReport) => void): void {
    this.#launches++;
    const wave = new Wave(program, request, this.#resources, onReport);
    this.#waves.push(wave);
    if (this.#mmu.isBound(request.context)) return;
    const message = `context ${request.context} is not bound on ${this.#config.name}`;
    wave.fail({ kind: 'fault', errno: ERRNO_NUMBER.EFAULT, address: 0, lane: NO_LANE, message });
    this.#reap();
  }

  /** Is there something that `step` could do now? */
  get runnable(): boolean {
    return (
      this.#commands.invalidationsPending ||
      this.#commands.commandsPending ||
      this.#copies.pending ||
      this.#faults.flushable ||
      this.#waves.some((wave) => wave.runnable || wave.done)
    );
  }

  /**
   * Do one piece of work. @returns false when there was none
   * @throws InvariantViolation when the driver or the engine broke the rules; the device is unusable then
   */
  step(): boolean {
    if (this.#order !== undefined) return this.#stepInOrder(this.#order);
    return this.#obeyInvalidations() || this.#obeyCommands() || this.#copy() || this.#runLanes() || this.#late();
  }

  /** What `step` does next, if nobody asks for another order. */
  get nextWork(): 'invalidations' | 'commands' | 'a copy' | 'lanes' {
    if (this.#commands.invalidationsPending) return 'invalidations';
    if (this.#commands.commandsPending) return 'commands';
    return this.#copies.pending ? 'a copy' : 'lanes';
  }

  /**
   * A reset in the middle of work, as after a hang: launches and copies fail, faults and translations are forgotten. Contexts and
   * memory stay. Nobody waits for ever: every fence reaches what was sent.
   */
  abort(): void {
    for (const wave of this.#waves) {
      const message = `${this.#config.name} was reset while the launch ran`;
      wave.fail({ kind: 'fault', errno: ERRNO_NUMBER.EIO, address: 0, lane: NO_LANE, message });
      this.#faults.dropContext(wave.context);
    }
    this.#copies.abort();
    if (this.#commands.invalidationsPending) this.#commands.obeyInvalidations(this.#forget);
    this.#mmu.tlb.reset();
    this.#forget();
    this.#reap();
    this.#commands.publishTurns();
    ringDoorbell(this.#hostDoorbell);
  }

  /** As after boot. Precondition: no context is bound, nothing is in flight. */
  reset(): void {
    assert(this.#waves.length === 0 && !this.runnable, `${this.#config.name} is reset in the middle of work`);
    this.#mmu.tlb.reset();
    this.#forget();
  }

  #stepInOrder(order: (n: number) => number): boolean {
    const work: (() => boolean)[] = [];
    if (this.#commands.invalidationsPending) work.push(() => this.#obeyInvalidations());
    if (this.#commands.commandsPending) work.push(() => this.#obeyCommands());
    if (this.#copies.pending) work.push(() => this.#copy());
    work.push(() => this.#runLanes());
    const chosen = work[work.length === 1 ? 0 : order(work.length)]!;
    return chosen() || (work.length > 1 && work[0]!()) || this.#late();
  }

  stats(): DeviceStats {
    const operations = this.#waves.reduce((sum, wave) => sum + wave.operations, this.#operations);
    return {
      tlbHits: operations - this.#mmu.served,
      tlbMisses: this.#mmu.misses,
      walks: this.#mmu.walks,
      faults: this.#faults.records,
      copiedPages: this.#copies.copiedPages,
      invalidations: this.#commands.invalidations,
      launches: this.#launches,
      operations,
    };
  }

  #obeyInvalidations(): boolean {
    if (!this.#commands.invalidationsPending || this.#commands.passOver()) return false;
    this.#commands.obeyInvalidations(this.#forget);
    ringDoorbell(this.#hostDoorbell);
    return true;
  }

  #obeyCommands(): boolean {
    if (!this.#commands.commandsPending) return false;
    this.#commands.takeCommands();
    this.#reap();
    this.#commands.publishTurns();
    ringDoorbell(this.#hostDoorbell);
    return true;
  }

  #copy(): boolean {
    if (!this.#copies.pending || this.#copies.passOver()) return false;
    if (this.#copies.step()) ringDoorbell(this.#hostDoorbell);
    return true;
  }

  /** What was passed over is work still: the device must not sleep. */
  #late(): boolean {
    return this.#commands.invalidationsPending || this.#copies.pending;
  }

  /** Give the next launch that can run its slice of lanes, then report the faults that came up. */
  #runLanes(): boolean {
    if (this.#waves.length === 0) return false;
    const turn = this.#waves.findIndex((wave) => wave.runnable);
    if (turn >= 0) {
      const wave = this.#waves[turn]!;
      this.#waves.push(...this.#waves.splice(0, turn + 1));
      wave.run(this.#config.waveLanes);
    }
    const reported = this.#faults.flush();
    const reaped = this.#reap();
    const turnsOver = this.#commands.publishTurns();
    if (reported || turnsOver) ringDoorbell(this.#hostDoorbell);
    return reaped || reported || turn >= 0;
  }

  /** Take launches that are over out, and report them. @returns false when there was none */
  #reap(): boolean {
    let reaped = false;
    for (let index = this.#waves.length - 1; index >= 0; index--) {
      const wave = this.#waves[index]!;
      if (!wave.done) continue;
      this.#waves.splice(index, 1);
      this.#operations += wave.operations;
      wave.report();
      reaped = true;
    }
    return reaped;
  }
}
