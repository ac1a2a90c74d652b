/**
 * Replaying traces on several threads, each with a machine of its own. What comes out is as if one thread had done it: reports
 * stand in the order of the files, and of several files that cannot be read it is the first that is named.
 */
import { statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { MessageChannel } from 'node:worker_threads';
import type { Piscina } from 'piscina';
import { type ErrorCode, PfnlessError } from '../base/errors.js';
import { threadPool } from '../campaign/threads.js';
import type { ReplayOptions } from '../conformance/replay-trace.js';
import { type ReplayShard, replayShard, type ShardAnswer, type ShardResult } from './replay-shard.js';

const DOOR = new URL('../../workers/conform.js', import.meta.url);
/** Traces for which one more thread pays: each compiles everything anew, and that takes as long as replaying so many. */
const FILES_PER_THREAD = 400;
/** No more threads than replay has any use for. */
const THREADS_MAX = 8;

/** As many threads as this computer runs at a time, but no more than pay. */
export const threadsFor = (files: readonly string[]): number =>
  Math.min(availableParallelism(), THREADS_MAX, Math.ceil(files.length / FILES_PER_THREAD));

/**
 * @param threads at the most: there are none without a file
 * @param onFile called with the name of each file when its turn comes
 * @throws PfnlessError ERR_PFNLESS_FILE for the first file that is no trace
 */
export async function replayFiles(
  files: readonly string[],
  options: ReplayOptions,
  threads: number,
  onFile: (file: string) => void,
): Promise<ShardResult> {
  if (threads <= 1 || files.length === 1) return await replayShard(files, options, onFile);
  const shards = shardsOf(files, Math.min(threads, files.length));
  const pool = threadPool(DOOR, shards.length);
  try {
    const answers = await Promise.all(shards.map((shard) => runShard(pool, shard, options, onFile)));
    return joined(files, answers);
  } finally {
    await pool.destroy();
  }
}

/** Shares of about the same number of bytes, which replay takes about the same time for. */
function shardsOf(files: readonly string[], count: number): string[][] {
  const shards = Array.from({ length: count }, () => ({ bytes: 0, files: [] as string[] }));
  const sized = files.map((file) => ({ file, bytes: statSync(file, { throwIfNoEntry: false })?.size ?? 0 }));
  for (const { file, bytes } of sized.sort((a, b) => b.bytes - a.bytes)) {
    const least = shards.reduce((a, b) => (b.bytes < a.bytes ? b : a));
    least.bytes += bytes;
    least.files.push(file);
  }
  return shards.map((shard) => shard.files);
}

async function runShard(
  pool: Piscina,
  files: readonly string[],
  options: ReplayOptions,
  onFile: (file: string) => void,
): Promise<ShardAnswer> {
  const { port1, port2 } = new MessageChannel();
  port1.on('message', onFile);
  try {
    const shard: ReplayShard = { files, options, progress: port2 };
    return (await pool.run(shard, { transferList: [port2] })) as ShardAnswer;
  } finally {
    port1.close();
  }
}

function joined(files: readonly string[], answers: readonly ShardAnswer[]): ShardResult {
  const place = new Map(files.map((file, index) => [file, index]));
  const refused = answers
    .flatMap((answer) => ('refused' in answer ? [answer] : []))
    .sort((a, b) => place.get(a.file)! - place.get(b.file)!)[0];
  if (refused !== undefined) throw new PfnlessError(refused.refused.code as ErrorCode, refused.refused.message);
  const results = answers as readonly ShardResult[];
  return {
    reports: results.flatMap(({ reports }) => reports).sort((a, b) => place.get(a.trace)! - place.get(b.trace)!),
    violations: results.flatMap(({ violations }) => violations),
    wallMs: Math.max(...results.map(({ wallMs }) => wallMs)),
  };
}
