/**
 * The executor of explorations: as inline-executor.ts, everything on the caller's thread and one step at a time, but without
 * promises and turns of the event loop, so that an execution takes microseconds, and with one choice for each switch.
 *
 * Who runs next is asked (a) when the one that ran cannot go on, of all who can, longest waiting first, and (b) at a preemption
 * point, of the one that runs (answer 0) and all others who can. A task that gives way of its own accord (it waits in a loop
 * for what others do) is no candidate while there is another, as in CHESS: systematic search would let it spin for ever.
 */
import { assert, PfnlessError } from '../../base/errors.js';
import { enterTask, type HeldLocks, leaveTask, requireNoLocks } from '../../sync/lock-order.js';
import { SCHEDULE_POINT, type Sleeps, type Wait } from '../../sync/task.js';
import type { Actor, Executor } from '../executor.js';
import { type WaitReport, waitsText } from '../tasks.js';
import type { RunChoice, Strategy } from './strategy.js';

/** A task, or an actor. */
interface Thread {
  readonly id: number;
  readonly name: string;
  readonly generator: Generator<Wait, unknown, void> | null;
  readonly actor: Actor | null;
  /** A program's: the run is over when these are. */
  readonly foreground: boolean;
  /** What it yielded last; `null` before it ran for the first time. */
  wait: Wait | null;
  turn: number;
  /** An actor whose last step made no progress, and nobody has made any since. */
  stalled: boolean;
  /** Gave way of its own accord. */
  gaveWay: boolean;
  steps: number;
  readonly locks: HeldLocks;
}

export interface StepperHooks {
  /** What the step that ends now may have touched (Strategy.stepped). */
  footprint(thread: number): number;
  /** A thread has the turn from here on. */
  switched?(thread: number): void;
  /** A task's step is over, and others can see what it did. What this throws ends the run. */
  tasked?(): void;
  /** It has no more: why it cannot go on, or `preempted`. */
  paused?(thread: number, why: string): void;
}

/** An execution that does not come to its end. */
export class NoProgress extends Error {
  override readonly name = 'NoProgress';
  readonly kind: 'deadlock' | 'livelock' | 'starvation';

  constructor(kind: NoProgress['kind'], message: string) {
    super(message);
    this.kind = kind;
  }
}

const TAME: Strategy = { name: 'tame', begin: () => true, choose: () => 0, complete: false };

/** A huge page has 512 points of its own. */
const SPUN_MAX = 50_000;
export class Stepper implements Executor {
  readonly kind = 'inline';
  readonly #threads: Thread[] = [];
  readonly #hooks: StepperHooks;
  #strategy: Strategy = TAME;
  #foreground = 0;
  #turn = 0;
  #nextId = 0;
  /** Foreground tasks that have ended since `forgetTurns`. */
  #ended = 0;
  /** The thread whose step is under way. */
  #running: Thread | null = null;
  /** Who was chosen to preempt it. */
  #preempting: Thread | null = null;
  #steps = 0;
  /** Step at which `drive` gives up. */
  #end = 0;
  /** Schedule points that the thread which runs has passed without a choice. */
  #spun = 0;
  /** Candidates of the choice under way, and their numbers: used again and again. */
  readonly #candidates: Thread[] = [];
  readonly #choice: { threads: number[]; stays: boolean } = { threads: [], stays: false };

  constructor(hooks: StepperHooks) {
    this.#hooks = hooks;
  }

  /** Steps since `forgetTurns`. */
  get steps(): number {
    return this.#steps;
  }

  /** Who decides from now on. `null`: everybody in turn. */
  decideBy(strategy: Strategy | null): void {
    this.#strategy = strategy ?? TAME;
  }

  /** A task that the run has to wait for. @returns its number */
  spawn(name: string, generator: Sleeps<unknown>): number {
    this.#foreground++;
    return this.#add({ name, generator, actor: null, foreground: true });
  }

  background(name: string, task: Sleeps<never>): void {
    this.#add({ name, generator: task, actor: null, foreground: false });
  }

  addActor(actor: Actor): void {
    this.#add({ name: actor.name, generator: null, actor, foreground: false });
  }

  /**
   * Run until all foreground tasks have ended, or further, until nobody can go on.
   * @param limit most steps
   * @throws NoProgress, and what a task throws: the machine is of no use afterwards
   */
  drive(limit: number, until: 'ended' | 'rest' = 'ended'): void {
    this.#end = this.#steps + limit;
    while (this.#foreground > 0 || until === 'rest') {
      if (this.#steps >= this.#end) this.#stuckInLoops(limit);
      const thread = this.#preempting ?? this.#next();
      this.#preempting = null;
      if (thread === null) {
        if (this.#foreground === 0) return;
        throw new NoProgress('deadlock', `nobody can go on: ${waitsText(this.waits())}`);
      }
      this.#step(thread);
    }
  }

  /** As after boot: turns are forgotten, so that the order of candidates depends on this execution alone. */
  forgetTurns(): void {
    assert(this.#foreground === 0, 'a task is left');
    this.#turn = 0;
    this.#steps = 0;
    this.#ended = 0;
    this.#nextId = this.#threads.length;
    for (const thread of this.#threads) {
      thread.turn = 0;
      thread.steps = 0;
      thread.stalled = false;
      thread.gaveWay = false;
    }
  }

  preempt(): boolean {
    const running = this.#running;
    if (running === null || this.#preempting !== null) return this.#preempting !== null;
    const candidates = this.#collect(running);
    if (candidates.length === 0) {
      // Alone, and going round in circles: nobody would ever count a step.
      if (++this.#spun > SPUN_MAX) this.#stuckInLoops(SPUN_MAX);
      return false;
    }
    candidates.unshift(running);
    // What comes next is chosen in the knowledge of what this step did.
    this.#endStep(running);
    const chosen = this.#ask(true);
    if (chosen === running) {
      this.#steps++;
      // A thread may be in a loop that never ends its turn.
      if (this.#steps >= this.#end + SPUN_MAX) this.#stuckInLoops(SPUN_MAX);
      return false;
    }
    this.#preempting = chosen;
    return true;
  }

  waits(): readonly WaitReport[] {
    return this.#threads
      .filter(({ foreground }) => foreground)
      .map(({ name, wait }) => ({ task: name, what: wait?.what ?? 'its first turn' }));
  }

  nameOf(thread: number): string {
    return this.#threads.find(({ id }) => id === thread)?.name ?? `${thread}`;
  }

  /** Promises have no place here: tasks are spawned. */
  run(name: string): Promise<never> {
    return Promise.reject(new PfnlessError('ERR_PFNLESS_UNSUPPORTED', `the machine is being explored: no ${name}`));
  }

  settle(): Promise<never> {
    return this.run('settling');
  }

  get stopped(): null {
    return null;
  }

  stop(): void {}

  #add(parts: Pick<Thread, 'name' | 'generator' | 'actor' | 'foreground'>): number {
    const id = this.#nextId++;
    const { name, generator, actor, foreground } = parts;
    // Spelled out: one shape for all, made without a copy.
    this.#threads.push({
      id,
      name,
      generator,
      actor,
      foreground,
      wait: null,
      turn: this.#turn,
      stalled: false,
      gaveWay: false,
      steps: 0,
      locks: [],
    });
    return id;
  }

  #next(): Thread | null {
    const candidates = this.#collect(null);
    if (candidates.length === 0) return null;
    if (candidates.length === 1) return candidates[0]!;
    return this.#ask(false);
  }

  /** Everybody but `running` who can go on, longest waiting first; those that gave way only where there is no other. */
  #collect(running: Thread | null): Thread[] {
    const found = this.#candidates;
    found.length = 0;
    let eager = 0;
    for (const thread of this.#threads) {
      if (thread === running || !canGoOn(thread)) continue;
      found.push(thread);
      if (!thread.gaveWay) eager++;
    }
    if (eager > 0 && eager < found.length) {
      let kept = 0;
      for (const thread of found) if (!thread.gaveWay) found[kept++] = thread;
      found.length = kept;
    } else if (running !== null && eager === 0) {
      // Whoever gave way waits for the one that runs.
      found.length = 0;
    }
    if (found.length > 1) found.sort((a, b) => a.turn - b.turn || a.id - b.id);
    return found;
  }

  #ask(stays: boolean): Thread {
    const candidates = this.#candidates;
    const { threads } = this.#choice;
    threads.length = 0;
    for (const { id } of candidates) threads.push(id);
    this.#choice.stays = stays;
    return candidates[this.#strategy.choose('run', candidates.length, this.#choice as RunChoice)]!;
  }

  #step(thread: Thread): void {
    thread.turn = ++this.#turn;
    this.#steps++;
    this.#spun = 0;
    thread.steps++;
    this.#running = thread;
    this.#hooks.switched?.(thread.id);
    const progress = thread.actor === null ? this.#resume(thread) : thread.actor.step();
    this.#running = null;
    // One that was preempted has told of its step.
    if (this.#preempting === null) this.#endStep(thread);
    if (thread.actor === null) this.#hooks.tasked?.();
    if (!progress) {
      thread.stalled = true;
      return;
    }
    for (const other of this.#threads) {
      other.stalled = false;
      if (other !== thread) other.gaveWay = false;
    }
  }

  #resume(thread: Thread): true {
    const step = goOn(thread);
    if (step.done) {
      requireNoLocks(thread.locks, thread.name);
      this.#threads.splice(this.#threads.indexOf(thread), 1);
      this.#foreground--;
      this.#ended++;
      return true;
    }
    thread.wait = step.value;
    thread.gaveWay = step.value === SCHEDULE_POINT && this.#preempting === null;
    if (thread.gaveWay) this.#strategy.yielded?.(thread.id);
    this.#hooks.paused?.(thread.id, this.#preempting === null ? step.value.what : 'preempted');
    return true;
  }

  #endStep({ id }: Thread): void {
    this.#strategy.stepped?.(id, this.#hooks.footprint(id));
  }

  /** Nobody sleeps, and there is no end: tell who turned most. */
  #stuckInLoops(limit: number): never {
    const left = this.#threads.filter(({ foreground }) => foreground);
    const texts = left.map(({ name, steps, wait }) => `${name}: ${steps} turns, last at ${wait?.what ?? 'its start'}`);
    // The others got on, or nobody does.
    throw new NoProgress(
      this.#ended > 0 ? 'starvation' : 'livelock',
      `no end after ${limit} steps: ${texts.join('; ')}`,
    );
  }
}

function goOn({ generator, locks }: Thread): IteratorResult<Wait, unknown> {
  const before = enterTask(locks);
  try {
    return generator!.next();
  } finally {
    leaveTask(before);
  }
}

const canGoOn = ({ actor, wait, stalled }: Thread): boolean =>
  actor === null ? wait === null || wait.ready() : !stalled && actor.runnable;
