/**
 * The command processor: obeys invalidations and takes the driver's answers to faults.
 *
 * The fence of an invalidation is published after the TLB and the running lane's last translations have forgotten the range,
 * by the thread that walks the page tables: nothing can come back from the old entries after it.
 */
import { COMMAND_CANCEL, COMMAND_PACKET, COMMAND_REPLAY, INVALIDATE_PACKET } from '../abi/packet.js';
import { QUEUE_HEADER, RINGS } from '../abi/queue.js';
import { InvariantViolation } from '../base/errors.js';
import { RingConsumer } from '../sync/ring.js';
import { store32 } from '../sync/word.js';
import type { FaultBuffer, ReplayTurn } from './fault-buffer.js';
import type { Tlb } from './tlb.js';

const { word: INVALIDATE } = INVALIDATE_PACKET;
const { word: COMMAND } = COMMAND_PACKET;

export class CommandProcessor {
  /** Invalidations obeyed. */
  invalidations = 0;
  /** Fault replays whose lanes have not all run, oldest first. */
  readonly #turns: ReplayTurn[] = [];
  /** Times that the oldest invalidation was passed over (fault injection). */
  #passed = 0;
  readonly #invalidations: RingConsumer;
  readonly #commands: RingConsumer;
  readonly #tlb: Tlb;
  readonly #faults: FaultBuffer;

  constructor(queue: SharedArrayBuffer, tlb: Tlb, faults: FaultBuffer) {
    this.#invalidations = new RingConsumer(queue, RINGS.invalidations);
    this.#commands = new RingConsumer(queue, RINGS.commands);
    this.#tlb = tlb;
    this.#faults = faults;
  }

  get invalidationsPending(): boolean {
    return this.#invalidations.pending() > 0;
  }

  /** Is the oldest invalidation late (fault injection)? Then the device goes on as it is, this time. Precondition: there is one. */
  passOver(): boolean {
    const ring = this.#invalidations;
    if (this.#passed >= ring.words[ring.peek() + INVALIDATE.late]!) return false;
    this.#passed++;
    return true;
  }

  get commandsPending(): boolean {
    return this.#commands.pending() > 0;
  }

  /**
   * Obey all invalidations that wait. Precondition: there is one.
   * @param forget drops the translations that are held outside of the TLB
   */
  obeyInvalidations(forget: () => void): void {
    const ring = this.#invalidations;
    let sequence = 0;
    this.#passed = 0;
    for (let count = ring.pending(); count > 0; count--) {
      const at = ring.peek();
      sequence = ring.words[at + INVALIDATE.sequence]!;
      const start = ring.floats[at / 2 + INVALIDATE.start]!;
      const end = ring.floats[at / 2 + INVALIDATE.end]!;
      this.#tlb.invalidateRange(ring.words[at + INVALIDATE.context]! >>> 0, start, end);
      ring.release();
      this.invalidations++;
    }
    forget();
    store32(ring.words, QUEUE_HEADER.word.invalidateFence, sequence);
  }

  /** Take all commands that wait. Precondition: there is one. */
  takeCommands(): void {
    const ring = this.#commands;
    for (let count = ring.pending(); count > 0; count--) {
      const at = ring.peek();
      const sequence = ring.words[at + COMMAND.sequence]!;
      this.#take(at, sequence);
      ring.release();
      store32(ring.words, QUEUE_HEADER.word.commandFence, sequence);
    }
  }

  /** Publish the fault replays whose lanes have all run. @returns true if there was one */
  publishTurns(): boolean {
    let sequence: number | undefined;
    while (this.#turns.length > 0 && this.#turns[0]!.lanes === 0) sequence = this.#turns.shift()!.sequence;
    if (sequence === undefined) return false;
    store32(this.#commands.words, QUEUE_HEADER.word.replayFence, sequence);
    return true;
  }

  #take(at: number, sequence: number): void {
    const { words, floats } = this.#commands;
    const context = words[at + COMMAND.context]! >>> 0;
    const kind = words[at + COMMAND.kind];
    if (kind === COMMAND_REPLAY) {
      const turn: ReplayTurn = { sequence, lanes: 0 };
      this.#faults.replay(context, words[at + COMMAND.upTo]!, turn);
      this.#turns.push(turn);
    } else if (kind === COMMAND_CANCEL) {
      const address = floats[at / 2 + COMMAND.address]!;
      this.#faults.cancel(context, address, words[at + COMMAND.access]!, words[at + COMMAND.errno]!);
    } else {
      throw new InvariantViolation(`command processor: there is no command ${kind}`);
    }
  }
}
