/**
 * A driver's end of the rings: copies, invalidations, answers to faults, and the fences that say when they are done.
 * Waiting ends early, with `false`, when the device dies.
 */
import {
  ACCESS_READ,
  type Access,
  COMMAND_CANCEL,
  COMMAND_PACKET,
  COMMAND_REPLAY,
  COPY_FAIL,
  COPY_LATE_SHIFT,
  COPY_PACKET,
  COPY_QUIET,
  INVALIDATE_PACKET,
} from '../abi/packet.js';
import { fenceReached, QUEUE_HEADER, RINGS } from '../abi/queue.js';
import { type FaultInjector, injects } from '../base/injection.js';
import { RingProducer } from '../sync/ring.js';
import { type Sleeps, waitUntil } from '../sync/task.js';
import { load32, store32 } from '../sync/word.js';
import type { DeviceLink } from '../transport/device-link.js';
import type { CopyBatch } from './copy-batch.js';

const { word: HEADER } = QUEUE_HEADER;
const { word: COPY } = COPY_PACKET;
const { word: INVALIDATE } = INVALIDATE_PACKET;
const { word: COMMAND } = COMMAND_PACKET;
/** Steps by which the device may be made late: as many as fit beside the flags of a copy. */
const LATE_STEPS_MAX = 100;

/** A batch that was sent, and the sequence numbers of its packets. */
export interface CopyTicket {
  readonly batch: CopyBatch;
  readonly first: number;
  readonly last: number;
  /** Every run was sent: the device did not die in between. */
  readonly complete: boolean;
}

interface Command {
  readonly kind: number;
  readonly context: number;
  readonly address?: number;
  readonly access?: Access;
  readonly errno?: number;
  readonly upTo?: number;
}

export class DeviceQueue {
  readonly #link: DeviceLink;
  readonly inject: FaultInjector | null;
  readonly #header: Int32Array;
  readonly #copies: RingProducer;
  readonly #invalidations: RingProducer;
  readonly #commands: RingProducer;
  #copySequence = 0;
  #invalidateSequence = 0;
  /** Sequence number of the last invalidation that is in the ring: later ones wait for room. */
  #invalidateSent = 0;
  #commandSequence = 0;
  /** Command sequence of the last fault replay. */
  #replaySequence = 0;
  /** Sequence numbers at the last `reset`, by the word of their fence: people are told how many came since. */
  readonly #sentBefore = new Map<number, number>();

  constructor(link: DeviceLink, inject: FaultInjector | null = null) {
    this.#link = link;
    this.inject = inject;
    const { queue } = link.memories;
    this.#header = new Int32Array(queue);
    this.#copies = new RingProducer(queue, RINGS.copies);
    this.#invalidations = new RingProducer(queue, RINGS.invalidations);
    this.#commands = new RingProducer(queue, RINGS.commands);
  }

  /** For people, numbers begin anew: another machine at the same point says the same. */
  reset(): void {
    this.#sentBefore
      .set(HEADER.copyFence, this.#copySequence)
      .set(HEADER.invalidateFence, this.#invalidateSequence)
      .set(HEADER.replayFence, this.#commandSequence);
  }

  get lost(): boolean {
    return this.#link.lost !== null;
  }

  /** Send a batch; `copied` waits for it. */
  *send(batch: CopyBatch): Sleeps<CopyTicket> {
    const ring = this.#copies;
    const first = this.#copySequence + 1;
    let sent = 0;
    for (const run of batch.runs) {
      if (ring.free() === 0) this.#ring();
      yield* this.#waitSpace(ring, 'copy');
      if (this.lost) break;
      const at = ring.reserve();
      const { words } = ring;
      run.sequence = ++this.#copySequence;
      words[at + COPY.sequence] = run.sequence;
      const quiet = sent + 1 < batch.runs.length ? COPY_QUIET : 0;
      words[at + COPY.memories] = run.memories | quiet | this.#copyTrouble();
      words[at + COPY.sourceFrame] = run.sourceFrame;
      words[at + COPY.targetFrame] = run.targetFrame;
      words[at + COPY.pages] = run.pages;
      words[at + COPY.sourcePage] = run.sourcePage;
      words[at + COPY.targetPage] = run.targetPage;
      ring.publish();
      sent++;
    }
    if (sent > 0) this.#ring();
    return { batch, first, last: this.#copySequence, complete: sent === batch.runs.length };
  }

  /** Wait until a batch is copied. False: the device died or a copy failed; the targets are undefined. */
  *copied({ batch, first, last, complete }: CopyTicket): Sleeps<boolean> {
    if (batch.runs.length === 0) return true;
    if (!complete || !(yield* this.#waitFence(HEADER.copyFence, last, 'copy'))) return false;
    // Only the last failure is recorded: one of a batch that was sent after ours counts against ours too.
    const failed = load32(this.#header, HEADER.copyError);
    return failed === 0 || !fenceReached(failed, first);
  }

  /** Sequence number of the last run that was copied, or failed. */
  get copiesDone(): number {
    return load32(this.#header, HEADER.copyFence);
  }

  /** Make the device forget [start, end) of a context, and wait until it has. False: the device died (so it has). */
  *invalidate(context: number, start: number, end: number): Sleeps<boolean> {
    const ring = this.#invalidations;
    // Who waits for what is under way waits for those as well that have no room yet: they are numbered now, and sent in this order.
    const sequence = ++this.#invalidateSequence;
    const isNext = (): boolean => this.#invalidateSent + 1 === sequence && ring.free() > 0;
    if (!isNext()) {
      yield* waitUntil(`room for one more invalidation of ${this.#link.name}`, () => this.lost || isNext());
    }
    if (this.lost) return false;
    this.#invalidateSent = sequence;
    const at = ring.reserve();
    ring.words[at + INVALIDATE.sequence] = sequence;
    ring.words[at + INVALIDATE.context] = context;
    ring.floats[at / 2 + INVALIDATE.start] = start;
    ring.floats[at / 2 + INVALIDATE.end] = end;
    ring.words[at + INVALIDATE.late] = injects(this, 'invalidation-late') ? 1 + this.inject!.below(LATE_STEPS_MAX) : 0;
    ring.publish();
    this.#ring();
    return yield* this.#waitFence(HEADER.invalidateFence, sequence, 'invalidation');
  }

  /** Wait for the invalidations that others have sent and that may still be under way. */
  *waitInvalidations(): Sleeps<boolean> {
    return yield* this.#waitFence(HEADER.invalidateFence, this.#invalidateSequence, 'invalidation');
  }

  /** Fault replay: the lanes of a context whose faults were taken, up to record `upTo`, try again. */
  *replay(context: number, upTo: number): Sleeps<void> {
    yield* this.#command({ kind: COMMAND_REPLAY, context, upTo });
    this.#replaySequence = this.#commandSequence;
  }

  /**
   * Wait until the lanes of every fault replay sent so far have had their turn. Whoever takes pages away waits here first, so
   * that two parties who want the same page cannot keep each other from ever using it.
   */
  *waitReplays(): Sleeps<boolean> {
    return yield* this.#waitFence(HEADER.replayFence, this.#replaySequence, 'fault replay');
  }

  /** This access (or a stronger one) to a page cannot be had: lanes that wait for it fail with `errno` (a Linux number). */
  *cancel(context: number, address: number, access: Access, errno: number): Sleeps<void> {
    yield* this.#command({ kind: COMMAND_CANCEL, context, address, access, errno });
  }

  *#command({ kind, context, address = 0, access = ACCESS_READ, errno = 0, upTo = 0 }: Command): Sleeps<void> {
    const ring = this.#commands;
    yield* this.#waitSpace(ring, 'command');
    if (this.lost) return;
    const at = ring.reserve();
    ring.words[at + COMMAND.sequence] = ++this.#commandSequence;
    ring.words[at + COMMAND.kind] = kind;
    ring.words[at + COMMAND.context] = context;
    ring.words[at + COMMAND.errno] = errno;
    ring.floats[at / 2 + COMMAND.address] = address;
    ring.words[at + COMMAND.access] = access;
    ring.words[at + COMMAND.upTo] = upTo;
    ring.publish();
    this.#ring();
  }

  /** Ring the doorbell. Lost is a ring, not what it is for: who sleeps on a doorbell looks again by itself, if late. */
  #ring(): void {
    if (injects(this, 'doorbell-lost')) return;
    this.#link.ring();
    if (injects(this, 'doorbell-twice')) this.#link.ring();
  }

  /** Flags of a copy packet that make it fail, or late. */
  #copyTrouble(): number {
    if (this.inject === null) return 0;
    const late = injects(this, 'copy-late') ? (1 + this.inject.below(LATE_STEPS_MAX)) << COPY_LATE_SHIFT : 0;
    return late | (injects(this, 'copy-error') ? COPY_FAIL : 0);
  }

  /** The fault ring holds so many records at a time from now on, 0 for all that it has room for. */
  limitFaults(records: number): void {
    store32(this.#header, HEADER.faultLimit, records);
  }

  *#waitSpace(ring: RingProducer, what: string): Sleeps<void> {
    if (ring.free() > 0) return;
    yield* waitUntil(`room for one more ${what} of ${this.#link.name}`, () => this.lost || ring.free() > 0);
  }

  *#waitFence(word: number, sequence: number, what: string): Sleeps<boolean> {
    const reached = (): boolean => fenceReached(load32(this.#header, word), sequence);
    this.#link.looked?.();
    for (let looks = this.#link.patience ?? 0; looks >= 0; looks--) if (reached()) return true;
    const number = sequence - (this.#sentBefore.get(word) ?? 0);
    const ready = (): boolean => this.lost || reached();
    while (!ready()) yield { what: `${what} fence ${number} of ${this.#link.name}`, ready, soon: true };
    return reached();
  }
}
