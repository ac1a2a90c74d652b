/** Replaying some traces one after the other on one machine: here, or in a thread of `workers/conform.ts`. */
import { performance } from 'node:perf_hooks';
import type { MessagePort } from 'node:worker_threads';
import { type ReplayOptions, TraceReplayer, type TraceReport } from '../conformance/replay-trace.js';
import { parseTrace } from '../conformance/trace.js';
import type { Violation } from '../machine/types.js';
import type { ErrorReport } from '../report/error-report.js';
import { readText } from './files.js';

/** Which traces, and how, as data: it goes to other threads. */
export interface ReplayShard {
  readonly files: readonly string[];
  readonly options: ReplayOptions;
  /** Gets the name of each file when its turn comes. */
  readonly progress: MessagePort;
}

export interface ShardResult {
  readonly reports: readonly TraceReport[];
  readonly violations: readonly Violation[];
  /** Of replay alone: not of reading traces and booting the machine. */
  readonly wallMs: number;
}

/** What a thread answers. Errors lose their class and their code on the way from thread to thread, so they go as data. */
export type ShardAnswer = ShardResult | { readonly refused: ErrorReport; readonly file: string };

/**
 * @param onFile called with the name of each file when its turn comes
 * @throws PfnlessError ERR_PFNLESS_FILE for a file that is no trace
 */
export async function replayShard(
  files: readonly string[],
  options: ReplayOptions,
  onFile: (file: string) => void,
): Promise<ShardResult> {
  const replayer = new TraceReplayer(options);
  const reports: TraceReport[] = [];
  let wallMs = 0;
  try {
    for (const file of files) {
      onFile(file);
      const trace = parseTrace(readText(file), file);
      await replayer.prepare(trace);
      const start = performance.now();
      reports.push(await replayer.replay(trace));
      wallMs += performance.now() - start;
    }
    return { reports, violations: await replayer.check(), wallMs };
  } finally {
    await replayer.dispose();
  }
}
