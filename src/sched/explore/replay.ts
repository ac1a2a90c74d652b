/** The execution of one schedule again; and a strategy that writes down what another one answers. */
import { PfnlessError } from '../../base/errors.js';
import { type Schedule, trimmed } from './schedule.js';
import type { RunChoice, Strategy } from './strategy.js';

export interface ReplayOptions {
  /** Take a choice that does not fit as 0, instead of throwing: shrinking tries schedules that may not fit. */
  readonly lenient?: boolean;
}

/** One execution; behind the schedule's end every answer is 0. @throws PfnlessError ERR_PFNLESS_SYNTAX at a choice that does not fit */
export function replaySchedule(schedule: Schedule, { lenient = false }: ReplayOptions = {}): Strategy {
  let executions = 0;
  let at = 0;
  const moves = trimmed(schedule).length;
  return {
    name: 'replay',
    begin() {
      at = 0;
      return executions++ === 0;
    },
    choose(point, n) {
      const answer = schedule[at++] ?? 0;
      if (answer < n) return answer;
      if (lenient) return 0;
      throw new PfnlessError(
        'ERR_PFNLESS_SYNTAX',
        `the schedule does not fit the program: choice ${at} (${point}) has ${n} answers, not ${answer + 1}`,
      );
    },
    end() {
      if (lenient || at >= moves) return;
      throw new PfnlessError(
        'ERR_PFNLESS_SYNTAX',
        `the schedule does not fit the program: it answers ${moves} choices, and there were ${at}`,
      );
    },
    get complete() {
      return executions > 0;
    },
  };
}

/** Answers as `strategy` does, and remembers the execution under way. */
export class Recorder implements Strategy {
  readonly name: string;
  readonly answers: number[] = [];
  /** How often somebody who could have gone on was preempted. */
  switches = 0;
  readonly #strategy: Strategy;
  /** One number for each choice: what was asked, of whom, and what was answered. */
  #hash = 0;

  constructor(strategy: Strategy) {
    this.name = strategy.name;
    this.#strategy = strategy;
  }

  begin(): boolean {
    this.answers.length = 0;
    this.switches = 0;
    this.#hash = 0;
    return this.#strategy.begin();
  }

  choose(point: string, n: number, run?: RunChoice): number {
    const answer = this.#strategy.choose(point, n, run);
    this.answers.push(answer);
    if (answer !== 0 && run?.stays) this.switches++;
    this.#mix(n);
    this.#mix(answer);
    if (run === undefined) for (let at = 0; at < point.length; at++) this.#mix(point.charCodeAt(at));
    else for (const thread of run.threads) this.#mix(thread);
    return answer;
  }

  yielded(thread: number): void {
    this.#strategy.yielded?.(thread);
  }

  stepped(thread: number, footprint: number): void {
    this.#mix(thread);
    this.#strategy.stepped?.(thread, footprint);
  }

  end(): void {
    this.#strategy.end?.();
  }

  get complete(): boolean {
    return this.#strategy.complete;
  }

  /** Two executions with the same choices and the same steps have the same. */
  get fingerprint(): number {
    return this.#hash >>> 0;
  }

  #mix(value: number): void {
    this.#hash = Math.imul(this.#hash ^ value, 0x01000193) + 0x9e3779b9;
    this.#hash ^= this.#hash >>> 15;
  }
}
