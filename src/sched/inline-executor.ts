/**
 * Everything on the caller's thread: kernel tasks and device engines take turns, one step at a time, and a `Chooser` says
 * whose turn it is. Deterministic: a pure function of the choices. Counterpart: threads-executor.ts.
 *
 * The pump starts in a microtask and runs until no foreground task is left. It lets the event loop take a turn after each
 * task that ends (so that the caller can go on while others do), and now and then in a long run (so that Ctrl-C is seen):
 * counted in steps, as time would make one run unlike the other. While something outside the machine is under way (the module of a program is being loaded) nothing moves. So
 * the outcome does not depend on how long any of this takes.
 */
import { PfnlessError } from '../base/errors.js';
import type { Sleeps } from '../sync/task.js';
import type { Chooser, PreemptPoint } from './choice.js';
import type { Actor, Executor } from './executor.js';
import { Settling, type Task, TaskList, type WaitReport, waitsText } from './tasks.js';
import { takeTurn } from './turn.js';

/** Steps between two turns of the event loop: a step takes microseconds up to a millisecond. */
const STEPS_PER_TURN = 64;
/** Microtasks that a chain of promises may take from the engine's report to the task that waits for it. */
const PROMISE_HOPS = 8;

interface Stepped {
  readonly actor: Actor;
  /** Number of its last turn. */
  turn: number;
  /** Its last step made no progress, and nobody has made any since. */
  stalled: boolean;
}

export interface InlineExecutorOptions {
  readonly chooser: Chooser;
  /** Is something under way that neither a task nor an actor drives? Default: never. */
  readonly outside?: () => boolean;
}

export class InlineExecutor implements Executor {
  readonly kind = 'inline';
  readonly #chooser: Chooser;
  readonly #outside: () => boolean;
  readonly #tasks = new TaskList();
  readonly #actors: Stepped[] = [];
  readonly #settling = new Settling();
  #stopped: Error | null = null;
  #pumping = false;
  /** Steps so far. */
  #turn = 0;
  #stepsSinceTurn = 0;

  constructor(options: InlineExecutorOptions) {
    this.#chooser = options.chooser;
    this.#outside = options.outside ?? (() => false);
  }

  run<T>(name: string, task: Sleeps<T>): Promise<T> {
    if (this.#stopped) return Promise.reject(this.#stopped);
    // Behind all who wait already: or a caller who starts one short task after the other would be all that ever runs.
    const ended = this.#tasks.spawn(name, task, this.#turn);
    this.#start();
    return ended;
  }

  background(name: string, task: Sleeps<never>): void {
    this.#tasks.spawnBackground(name, task, (reason) => this.stop(reason as Error));
  }

  addActor(actor: Actor): void {
    this.#actors.push({ actor, turn: 0, stalled: false });
  }

  preempt(point: PreemptPoint): boolean {
    return this.#chooser.choose(point, 2) === 1;
  }

  settle(): Promise<void> {
    if (this.#stopped) return Promise.reject(this.#stopped);
    this.#start();
    return this.#settling.wait();
  }

  get stopped(): Error | null {
    return this.#stopped;
  }

  waits(): readonly WaitReport[] {
    return this.#tasks.waits();
  }

  stop(reason: Error): void {
    this.#stopped ??= reason;
    this.#tasks.clear(this.#stopped);
    this.#settling.fail(this.#stopped);
  }

  #start(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    queueMicrotask(() => this.#pump().catch((reason) => this.stop(reason)));
  }

  async #pump(): Promise<void> {
    try {
      while (this.#tasks.busy || this.#settling.wanted) {
        if (this.#outside()) {
          await takeTurn();
          continue;
        }
        const step = this.#step();
        if (step === 'stuck') await this.#stuck();
        else if (step === 'ended' || ++this.#stepsSinceTurn >= STEPS_PER_TURN) {
          this.#stepsSinceTurn = 0;
          await takeTurn();
        }
      }
    } finally {
      this.#pumping = false;
    }
  }

  /** Give one turn to a ready task or a runnable actor. */
  #step(): 'progress' | 'ended' | 'stuck' {
    for (;;) {
      const candidates = this.#candidates();
      if (candidates.length === 0) return 'stuck';
      const chosen = candidates[candidates.length === 1 ? 0 : this.#chooser.choose('run', candidates.length)];
      chosen.turn = ++this.#turn;
      if ('generator' in chosen) {
        this.#progress();
        return this.#tasks.resume(chosen) ? 'ended' : 'progress';
      }
      if (chosen.actor.step()) {
        this.#progress();
        return 'progress';
      }
      chosen.stalled = true;
    }
  }

  #progress(): void {
    for (const stepped of this.#actors) stepped.stalled = false;
  }

  /** Who could have the next turn, longest waiting first. */
  #candidates(): (Task | Stepped)[] {
    const tasks = this.#tasks.all.filter((task) => this.#tasks.isReady(task));
    const actors = this.#actors.filter(({ actor, stalled }) => !stalled && actor.runnable);
    return [...tasks, ...actors].sort((a, b) => a.turn - b.turn);
  }

  /** Nobody can go on. Promises that are on their way get their microtasks and one turn; then it is rest, or deadlock. */
  async #stuck(): Promise<void> {
    const foreground = this.#tasks.foreground;
    for (let hop = 0; hop <= PROMISE_HOPS; hop++) {
      await (hop < PROMISE_HOPS ? null : takeTurn());
      if (this.#outside() || this.#tasks.foreground !== foreground || this.#candidates().length > 0) return;
    }
    if (!this.#tasks.busy) return this.#settling.done();
    const message = `Nobody can go on: ${waitsText(this.#tasks.waits())}`;
    this.#tasks.rejectForeground(new PfnlessError('ERR_PFNLESS_DEADLOCK', message));
  }
}
