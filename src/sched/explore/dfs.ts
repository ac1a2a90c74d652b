/**
 * Every execution there is, depth first, up to a bound of deviations: preemptions, and injected events.
 *
 * Without a bound, sleep sets leave out executions that differ from one that was tried only in the order of steps that commute
 * (Godefroid 1996): once all of what begins with a step of thread t is done, t sleeps in the choices after it until a step is
 * taken that does not commute with t's. With a bound they are off, as the one representative of an order that is left might
 * be beyond the bound.
 */
import type { RunChoice, Strategy } from './strategy.js';

export interface DfsOptions {
  /** Most preemptions and injected events of an execution. Default: any number. */
  readonly preemptions?: number;
  /** Leave out what only reorders steps that commute. Default: where there is no bound. */
  readonly reduce?: boolean;
}

/** A choice on the way, and what has been tried of it. */
interface Node {
  readonly n: number;
  readonly run: { readonly threads: readonly number[]; readonly stays: boolean } | null;
  /** Deviations before it. */
  readonly spent: number;
  /** Answer that is being tried. */
  answer: number;
  /** Steps of threads that need not be tried here, by thread: what they touch. */
  readonly sleep: Map<number, number>;
  /** What the step after `answer` touched. */
  footprint: number;
}

export interface Dfs extends Strategy {
  /** Those that ended in nothing but steps that sleep. */
  readonly redundant: number;
}

export function dfs({ preemptions = Number.POSITIVE_INFINITY, reduce }: DfsOptions = {}): Dfs {
  const reducing = reduce ?? preemptions === Number.POSITIVE_INFINITY;
  const path: Node[] = [];
  let depth = 0;
  let started = false;
  let exhausted = false;
  let redundant = 0;
  /** What sleeps now. */
  let sleep = new Map<number, number>();
  /** Everything from here on has been tried in another order: go on, but try nothing else. */
  let asleep = false;
  let spent = 0;

  const costs = (node: Node, answer: number): number => (answer !== 0 && (node.run === null || node.run.stays) ? 1 : 0);

  /** The first answer from `from` on that is worth trying, or -1. */
  const nextAnswer = (node: Node, from: number): number => {
    for (let answer = from; answer < node.n; answer++) {
      if (node.spent + costs(node, answer) > preemptions) continue;
      if (node.run !== null && node.sleep.has(node.run.threads[answer]!)) continue;
      return answer;
    }
    return -1;
  };

  /** Leave what has been tried behind. False: nothing is left. */
  const backtrack = (): boolean => {
    for (let node = path.at(-1); node !== undefined; node = path.at(-1)) {
      // What begins with this step is done: it sleeps for the answers after it.
      if (reducing && node.run !== null) node.sleep.set(node.run.threads[node.answer]!, node.footprint);
      const next = nextAnswer(node, node.answer + 1);
      if (next >= 0) {
        node.answer = next;
        return true;
      }
      path.pop();
    }
    return false;
  };

  /** The node whose step is under way: its footprint is known when it ends. */
  let pending: Node | null = null;

  const take = (node: Node): number => {
    depth++;
    spent = node.spent + costs(node, node.answer);
    if (reducing) {
      pending = node.run === null ? null : node;
      if (node.run !== null) sleep = new Map(node.sleep);
    }
    return node.answer;
  };

  return {
    name: 'dfs',
    begin() {
      if (exhausted || (started && !backtrack())) {
        exhausted = true;
        return false;
      }
      started = true;
      depth = 0;
      spent = 0;
      sleep = new Map();
      asleep = false;
      pending = null;
      return true;
    },
    choose(_point, n, run?: RunChoice) {
      const known = path[depth];
      if (known !== undefined) return take(known);
      if (asleep) return 0;
      const node: Node = {
        n,
        // A copy: the caller uses its own again.
        run: run === undefined ? null : { threads: [...run.threads], stays: run.stays },
        spent,
        answer: 0,
        sleep: reducing && run !== undefined ? new Map(sleep) : new Map(),
        footprint: -1,
      };
      const first = nextAnswer(node, 0);
      if (first < 0) {
        asleep = true;
        redundant++;
        return 0;
      }
      node.answer = first;
      path.push(node);
      return take(node);
    },
    stepped(thread, footprint) {
      if (!reducing || asleep) return;
      if (pending !== null) pending.footprint = footprint;
      // Only one could run, and that one sleeps: nothing new lies ahead.
      else if (depth >= path.length && sleep.has(thread)) {
        asleep = true;
        redundant++;
        return;
      }
      pending = null;
      for (const [other, touches] of sleep) if ((touches & footprint) !== 0) sleep.delete(other);
    },
    get complete() {
      return exhausted;
    },
    get redundant() {
      return redundant;
    },
  };
}
