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
