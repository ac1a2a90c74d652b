/**
 * Kernel tasks on this thread, devices on their own. Counterpart: the loop of a device's worker, and inline-executor.ts.
 *
 * One word wakes the kernel: the host doorbell, which a device rings after it put something into a ring or advanced a
 * fence. What a device does besides (control calls, its death) arrives through the event loop; the doorbell is rung for an
 * answer, too, and answers are counted beside it. So while a foreground task is unfinished the pump goes round: run what is
 * ready; nothing is: spin on the doorbell; if an answer has come, let the event loop have a turn; else park on the doorbell
 * for up to a millisecond, look again, and only if there is still nothing take a turn. Fault, service and fault replay never
 * wait for one.
 * A pump that never runs dry takes a turn every few milliseconds, so that Ctrl-C is seen: the time counts, as a resumed task may
 * run for long, and it counts from pump to pump, as a caller may start task after task without the event loop ever being reached.
 *
 * No wake-up is lost: the pump reads the doorbell, says that it sleeps, looks for ready tasks, and waits for the doorbell
 * to leave the value that it read. A device writes its data, changes the doorbell, and reads `sleeping`.
 *
 * With nothing in flight the pump ends, and the doorbell is watched without a thread or the event loop being held.
 */
import { HOST_DOORBELL } from '../abi/queue.js';
import { InvariantViolation } from '../base/errors.js';
import type { Sleeps } from '../sync/task.js';
import { load32, store32, waitWord, waitWordAsync, wakeWord } from '../sync/word.js';
import type { Executor } from './executor.js';
import { Settling, TaskList, type WaitReport } from './tasks.js';
import { clockMs, takeTurn } from './turn.js';

const DOORBELL = HOST_DOORBELL.word.doorbell;
const SLEEPING = HOST_DOORBELL.word.sleeping;
const MESSAGES = HOST_DOORBELL.word.messages;

/** Loads of the doorbell before the pump parks: some 20 µs. A parked round trip costs twice that. */
const SPIN_LOADS = 4000;
/**
 * The same for a fence, where each thread has a core of its own: some 600 µs, in which 8 MiB are copied. To wake us would take the
 * device 6 % of the time in which it copies huge pages. Other waits are not worth it: a core may be half of one, and who spins
 * slows the lanes on the other half.
 */
const FENCE_SPIN_LOADS = 120_000;
/**
 * Longest time between two looks at the event loop, in milliseconds, while the doorbell is silent: it doubles from the
 * first to the second, so that the answer to a control call is seen after about twice the time that it took.
 */
const PARK_MIN_MS = 0.05;
const PARK_MAX_MS = 1;
/** Longest time that a busy pump keeps the event loop waiting, in milliseconds. */
const TURN_EVERY_MS = 5;
/** A running task looks at the clock at every so many of its schedule points (a power of two): they are in hot loops. */
const POINTS_PER_LOOK = 16;

export class ThreadsExecutor implements Executor {
  readonly kind = 'threads';
  readonly #doorbell: Int32Array;
  readonly #ownCores: boolean;
  readonly #tasks = new TaskList();
  readonly #settling = new Settling();
  #stopped: Error | null = null;
  #pumping = false;
  /** A promise of the doorbell is pending. One is enough: every ring ends it. */
  #watching = false;
  #parkMs = PARK_MIN_MS;
  /** The event loop should have a turn now, although there is work. */
  #turnDue = false;
  #lastTurnMs = 0;
  /** Messages of devices before the last turn. */
  #messagesAtTurn = 0;
  #points = 0;

  /**
   * @param hostDoorbell memory of a HOST_DOORBELL record
   * @param ownCores each thread of the machine has a core of its own
   */
  constructor(hostDoorbell: SharedArrayBuffer, { ownCores = false } = {}) {
    this.#doorbell = new Int32Array(hostDoorbell);
    this.#ownCores = ownCores;
  }

  run<T>(name: string, task: Sleeps<T>): Promise<T> {
    if (this.#stopped) return Promise.reject(this.#stopped);
    const ended = this.#tasks.spawn(name, task);
    this.#start();
    return ended;
  }

  background(name: string, task: Sleeps<never>): void {
    this.#tasks.spawnBackground(name, task, (reason) => this.stop(reason as Error));
    this.#start();
  }

  addActor(): never {
    throw new InvariantViolation('a device of the threads executor runs by itself');
  }

  /** Others do not need the task to give way: they run on threads of their own. The event loop does. */
  preempt(): boolean {
    return (++this.#points & (POINTS_PER_LOOK - 1)) === 0 && this.#isTurnDue();
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
    wakeWord(this.#doorbell, DOORBELL);
  }

  #start(): void {
    if (this.#pumping || this.#stopped) return;
    this.#pumping = true;
    queueMicrotask(() => this.#pump().catch((reason) => this.stop(reason)));
  }

  async #pump(): Promise<void> {
    try {
      store32(this.#doorbell, SLEEPING, 0);
      for (;;) {
        do if (this.#isTurnDue()) await this.#turn();
        while (this.#runReady());
        if (this.#tasks.busy) {
          if (!this.#sleep()) await this.#turn();
        } else if (this.#settling.wanted) {
          await this.#settle();
        } else if (this.#watch()) {
          return;
        }
      }
    } finally {
      this.#pumping = false;
    }
  }

  /** Give each ready task one turn, unless the event loop has to have one first. Returns whether there was a ready task. */
  #runReady(): boolean {
    const ready = this.#tasks.all.filter((task) => this.#tasks.isReady(task));
    if (ready.length > 0) this.#parkMs = PARK_MIN_MS;
    for (const task of ready) {
      // An earlier one may have taken what this one waits for, or stopped everything.
      if (this.#stopped || !this.#tasks.isReady(task)) continue;
      const ended = this.#tasks.resume(task);
      // The caller of a task that has ended wants to go on while the others do.
      if (ended && this.#tasks.foreground > 0) this.#turnDue = true;
      else if (this.#isTurnDue()) break;
    }
    return ready.length > 0;
  }

  #isTurnDue(): boolean {
    return this.#turnDue || clockMs() - this.#lastTurnMs >= TURN_EVERY_MS;
  }

  async #turn(): Promise<void> {
    this.#messagesAtTurn = load32(this.#doorbell, MESSAGES);
    await takeTurn();
    this.#turnDue = false;
    this.#lastTurnMs = clockMs();
  }

  /**
   * Nothing is ready: wait for the doorbell, spinning, then parked. Returns whether something is ready now; false is the time to
   * look at the event loop. Many rings are for nobody who waits here: they neither end the spinning nor cost a turn.
   */
  #sleep(): boolean {
    let rung = load32(this.#doorbell, DOORBELL);
    if (this.#tasks.anyReady()) return true;
    if (this.#hasMessage()) return false;
    const isFirst = this.#parkMs === PARK_MIN_MS;
    const loads = this.#ownCores && isFirst && this.#tasks.waitsSoon ? FENCE_SPIN_LOADS : SPIN_LOADS;
    for (let load = 0; load < loads; load++) {
      const now = load32(this.#doorbell, DOORBELL);
      if (now === rung) continue;
      rung = now;
      if (this.#tasks.anyReady()) return true;
      if (this.#hasMessage()) return false;
    }
    store32(this.#doorbell, SLEEPING, 1);
    waitWord(this.#doorbell, DOORBELL, rung, this.#parkMs);
    store32(this.#doorbell, SLEEPING, 0);
    this.#parkMs = Math.min(this.#parkMs * 2, PARK_MAX_MS);
    return this.#tasks.anyReady();
  }

  /** Has a device posted a message since the event loop had its last turn? */
  #hasMessage(): boolean {
    return load32(this.#doorbell, MESSAGES) !== this.#messagesAtTurn;
  }

  /** At rest is: no foreground task, nothing ready, and a doorbell that is silent over a turn of the event loop. */
  async #settle(): Promise<void> {
    const rung = load32(this.#doorbell, DOORBELL);
    await this.#turn();
    const silent = load32(this.#doorbell, DOORBELL) === rung;
    if (silent && !this.#tasks.busy && !this.#tasks.anyReady()) this.#settling.done();
  }

  /** Nothing is in flight: start the pump again when the doorbell rings. Returns false when there is something to do now. */
  #watch(): boolean {
    if (this.#stopped) return true;
    const rung = load32(this.#doorbell, DOORBELL);
    store32(this.#doorbell, SLEEPING, 1);
    if (this.#tasks.anyReady()) {
      store32(this.#doorbell, SLEEPING, 0);
      return false;
    }
    if (!this.#watching) {
      this.#watching = true;
      void waitWordAsync(this.#doorbell, DOORBELL, rung, Number.POSITIVE_INFINITY).then(() => {
        this.#watching = false;
        this.#start();
      });
    }
    return true;
  }
}
