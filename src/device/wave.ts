/**
 * One launch in flight: work groups are opened in order, their lanes run in order, and a lane that cannot go on is parked
 * while others run. Hundreds of groups may be open at a time, so that faults come in batches, as on hardware with many warps.
 *
 * Lanes that can go on again run before lanes that have not started. Not modelled: lanes in lockstep.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { LaunchFailure, LaunchReport, LaunchRequest } from '../abi/control.js';
import { ACCESS_READ, type Access } from '../abi/packet.js';
import { InvariantViolation, shortened } from '../base/errors.js';
import type { FaultBuffer, FaultWaiter, ReplayTurn } from './fault-buffer.js';
import type { Lane, LaneGroup } from './lane.js';
import { type ComputeProgram, LOCAL_WORDS } from './program.js';

/** Work groups that may be open at a time. */
const OPEN_GROUPS_MAX = 512;
/** Lanes that may wait for pages before no further lane is started: as many faults as the ring can hold. */
const FAULTED_LANES_MAX = 1024;

/** Characters of what a program threw. */
const TEXT_MAX = 1000;

/** What the waves of a device share. */
export interface WaveResources {
  readonly lane: Lane;
  readonly faults: FaultBuffer;
}

class WorkGroup implements LaneGroup {
  readonly index: number;
  readonly size: number;
  /** Lanes that have not started: `next`..`size - 1`. */
  next = 0;
  ended = 0;
  /** Lanes parked at the barrier. */
  readonly waiting: ParkedLane[] = [];
  #memory: Float64Array | undefined;

  constructor(index: number, size: number) {
    this.index = index;
    this.size = size;
  }

  get memory(): Float64Array {
    return (this.#memory ??= new Float64Array(LOCAL_WORDS));
  }

  arrive(): boolean {
    if (this.waiting.length + this.ended + 1 < this.size) return false;
    this.openBarrier();
    return true;
  }

  openBarrier(): void {
    for (const parked of this.waiting) parked.wake();
    this.waiting.length = 0;
  }
}

/** A lane that was abandoned, and what it takes to run it again. */
class ParkedLane implements FaultWaiter {
  readonly group: WorkGroup;
  readonly localLane: number;
  /** Operations that it had completed, and their log. */
  recorded = 0;
  log: Float64Array | undefined;
  /** What it waits for, and what it wants of its page. */
  address = 0;
  access: Access = ACCESS_READ;
  /** The fault replay that woke it, until it has run. */
  #turn: ReplayTurn | null = null;
  readonly #wave: Wave;

  constructor(wave: Wave, group: WorkGroup, localLane: number) {
    this.#wave = wave;
    this.group = group;
    this.localLane = localLane;
  }

  get gone(): boolean {
    return this.#wave.done;
  }

  wake(): void {
    this.#wave.ready.push(this);
  }

  reported(): void {
    this.#wave.faults++;
  }

  replay(turn: ReplayTurn | null): void {
    // The launch may have failed, and been reported, since the lane was parked: then it has no turn to wait for.
    if (this.gone) return;
    this.#wave.faulted--;
    this.#turn = turn;
    if (turn !== null) turn.lanes++;
    this.wake();
  }

  /** It has run, or never will. */
  turnOver(): void {
    if (this.#turn === null) return;
    this.#turn.lanes--;
    this.#turn = null;
  }

  cancel(errno: number): void {
    const lane = this.#wave.laneOf(this);
    const { address } = this;
    const message = `lane ${lane} cannot have what is at 0x${address.toString(16)} (errno ${errno})`;
    this.#wave.fail({ kind: 'fault', errno, address, lane, message });
  }
}

export class Wave {
  readonly context: number;
  /** Lanes that can go on again, oldest first. */
  readonly ready: ParkedLane[] = [];
  /** Fault records sent on behalf of this launch. */
  faults = 0;
  /** Lanes that wait for pages. */
  faulted = 0;

  readonly #program: ComputeProgram;
  readonly #request: LaunchRequest;
  readonly #resources: WaveResources;
  readonly #onReport: (report: LaunchReport) => void;
  /** The group whose lanes are being started. */
  #opening: WorkGroup | undefined;
  #groupsOpened = 0;
  #groupsOpen = 0;
  #lanesEnded = 0;
  #parked = 0;
  #operations = 0;
  #failure: LaunchFailure | null = null;

  constructor(
    program: ComputeProgram,
    request: LaunchRequest,
    resources: WaveResources,
    onReport: (report: LaunchReport) => void,
  ) {
    this.context = request.context;
    this.#program = program;
    this.#request = request;
    this.#resources = resources;
    this.#onReport = onReport;
  }

  get done(): boolean {
    return this.#failure !== null || this.#lanesEnded === this.#request.lanes;
  }

  /** Is there a lane that could run? */
  get runnable(): boolean {
    return !this.done && (this.ready.length > 0 || this.#canStart);
  }

  get operations(): number {
    return this.#operations;
  }

  /** Number of a parked lane in the launch. */
  laneOf({ group, localLane }: ParkedLane): number {
    return group.index * this.#request.groupSize + localLane;
  }

  /** Run up to `limit` lanes; fewer when one is preempted or none can run. */
  run(limit: number): void {
    for (let count = 0; count < limit && !this.done; ) {
      const batch = this.ready.splice(0, limit - count);
      if (batch.length === 0) {
        if (!this.#canStart) return;
        count++;
        if (!this.#startLane()) return;
      }
      for (const [index, parked] of batch.entries()) {
        count++;
        if (!this.done && this.#runLane(parked.group, parked.localLane, parked)) continue;
        // Preempted, or the launch is over: the others keep their place, and whoever waits for their turn hears of its end.
        this.ready.unshift(...batch.slice(this.done ? index : index + 1));
        return;
      }
    }
  }

  /** Give up: the first failure is the one that is reported. */
  fail(failure: LaunchFailure): void {
    this.#failure ??= failure;
  }

  /** Tell whoever launched. Precondition: `done`. */
  report(): void {
    for (const parked of this.ready) parked.turnOver();
    this.#onReport({
      lanes: this.#lanesEnded,
      faults: this.faults,
      parked: this.#parked,
      operations: this.#operations,
      failure: this.#failure,
    });
  }

  get #canStart(): boolean {
    if (this.faulted >= FAULTED_LANES_MAX) return false;
    if (this.#opening !== undefined) return true;
    const { lanes, groupSize } = this.#request;
    return this.#groupsOpened * groupSize < lanes && this.#groupsOpen < OPEN_GROUPS_MAX;
  }

  #startLane(): boolean {
    const group = (this.#opening ??= this.#openGroup());
    const localLane = group.next++;
    if (group.next === group.size) this.#opening = undefined;
    return this.#runLane(group, localLane, undefined);
  }

  #openGroup(): WorkGroup {
    const { lanes, groupSize } = this.#request;
    const index = this.#groupsOpened++;
    this.#groupsOpen++;
    return new WorkGroup(index, Math.min(groupSize, lanes - index * groupSize));
  }

  /** Run a lane until it ends or is abandoned. @returns false when it was preempted */
  #runLane(group: WorkGroup, localLane: number, parked: ParkedLane | undefined): boolean {
    const { lane } = this.#resources;
    const { lanes, groupSize, args } = this.#request;
    lane.lane = group.index * groupSize + localLane;
    lane.lanes = lanes;
    lane.group = group.index;
    lane.groupSize = groupSize;
    lane.localLane = localLane;
    if (parked?.log !== undefined) {
      lane.restoreLog(parked.log, parked.recorded);
      parked.log = undefined;
    }
    lane.begin(this.context, group, parked?.recorded ?? 0);
    try {
      requireNothing(this.#program(lane, args));
      if (lane.outcome === 'ran' && lane.at < lane.recorded) throw new Error(ANOTHER_WAY);
    } catch (error) {
      if (error instanceof InvariantViolation) throw error;
      if (lane.outcome === 'ran') this.#programFailed(lane.lane, error);
    }
    this.#operations += lane.accesses;
    parked?.turnOver();
    switch (lane.outcome) {
      case 'ran':
        this.#laneEnded(group);
        return true;
      case 'failed':
        this.fail(lane.failure!);
        return true;
      default:
        this.#park(parked ?? new ParkedLane(this, group, localLane));
        return lane.outcome !== 'preempted';
    }
  }

  #programFailed(lane: number, error: unknown): void {
    this.fail({ kind: 'program', errno: 0, address: 0, lane, ...textsOf(error) });
  }

  #laneEnded(group: WorkGroup): void {
    this.#lanesEnded++;
    group.ended++;
    if (group.ended === group.size) this.#groupsOpen--;
    else if (group.waiting.length > 0 && group.waiting.length + group.ended === group.size) group.openBarrier();
  }

  #park(parked: ParkedLane): void {
    const { lane, faults } = this.#resources;
    parked.recorded = lane.at;
    parked.log = lane.saveLog();
    if (lane.outcome === 'preempted') {
      parked.wake();
      return;
    }
    this.#parked++;
    if (lane.outcome === 'barrier') {
      parked.group.waiting.push(parked);
    } else {
      this.faulted++;
      parked.access = lane.faultAccess;
      parked.address = lane.faultAddress;
      faults.add(this.context, Math.floor(parked.address / PAGE_SIZE), parked);
    }
  }
}

/** What a program threw, which may be anything: even to ask it for its text may throw. */
function textsOf(error: unknown): Pick<LaunchFailure, 'message' | 'stack'> {
  try {
    if (!(error instanceof Error)) return { message: shortened(String(error), TEXT_MAX) };
    const message = shortened(`${error.name}: ${error.message}`, TEXT_MAX);
    return typeof error.stack === 'string' ? { message, stack: shortened(error.stack, TEXT_MAX) } : { message };
  } catch {
    return { message: 'threw something that has no text' };
  }
}

/**
 * A promise would settle when the lane is long over, and its rejection would end the thread; a generator or a function would never have
 * begun.
 */
function requireNothing(returned: unknown): void {
  if (typeof returned !== 'function' && (typeof returned !== 'object' || returned === null)) return;
  if (returned instanceof Promise) returned.catch(() => {});
  const what = returned instanceof Promise ? 'is asynchronous' : 'returns something that would have to be called';
  throw new Error(`${what}: a compute program is a plain function, which returns when its work is done`);
}

const ANOTHER_WAY =
  'took another way when it ran again after a fault; a program must depend on nothing but its arguments and loaded values';
