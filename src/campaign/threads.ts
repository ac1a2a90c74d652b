/** Pools of threads, one machine in each. */
import { Piscina } from 'piscina';
import { execArgvOfThreads } from '../transport/exec-argv.js';

/**
 * Piscina requires a door before it imports it, and to end a thread that is about to require a module of today's kind kills the whole process
 * (Node 20: `IsGraphAsync must be used on an instantiated module`). Where such modules cannot be required, it imports them at once.
 */
const ONLY_IMPORTS = process.allowedNodeEnvironmentFlags.has('--experimental-require-module')
  ? ['--no-experimental-require-module']
  : [];

/** So many threads behind a door. The caller destroys it. */
export function threadPool(door: URL, threads: number): Piscina {
  const execArgv = [...execArgvOfThreads(), ...ONLY_IMPORTS];
  const pool = new Piscina({ filename: door.href, minThreads: threads, maxThreads: threads, execArgv });
  // A thread that ends before it has a task has no caller to tell: another one takes its place.
  pool.on('error', () => {});
  return pool;
}

export interface PoolWork<Task, Result> {
  /** The module behind which a task is run. */
  readonly door: URL;
  /** Tasks at a time. */
  readonly jobs: number;
  /** One task on some thread of the pool. What it throws ends everything. */
  run(pool: Piscina, task: Task): Promise<Result>;
  /** Asked before a task is begun: enough? */
  isOver?(): boolean;
  /** Called as tasks start and end. */
  onProgress?(done: number, running: ReadonlySet<Task>): void;
}

/** All tasks, several at a time. Results in the order of the tasks, without those that were not begun. */
export async function runInPool<Task, Result>(
  tasks: readonly Task[],
  { door, jobs, run, isOver = () => false, onProgress = () => {} }: PoolWork<Task, Result>,
): Promise<Result[]> {
  if (tasks.length === 0) return [];
  const threads = Math.min(jobs, tasks.length);
  const pool = threadPool(door, threads);
  const results: { readonly result: Result }[] = [];
  const running = new Set<Task>();
  const queue = tasks.entries();
  let done = 0;
  const work = async (): Promise<void> => {
    while (!isOver()) {
      const next = queue.next();
      if (next.done) return;
      const [index, task] = next.value;
      running.add(task);
      onProgress(done, running);
      results[index] = { result: await run(pool, task) };
      running.delete(task);
      onProgress(++done, running);
    }
  };
  try {
    await Promise.all(Array.from({ length: threads }, work));
  } finally {
    await pool.destroy();
  }
  // Callbacks of arrays pass over what was never assigned.
  return results.filter(() => true).map(({ result }) => result);
}
