/** Work a second: executions of an exploration, operations of replayed traces. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { TraceReplayer } from '../conformance/replay-trace.js';
import { parseTrace, type Trace } from '../conformance/trace.js';
import { explore } from '../explore/explore.js';
import type { Addressing } from '../machine/types.js';
import { parseProgram } from '../workload/program/parse.js';
import type { Benchmark, Rig } from './benchmark.js';
import { nsPer, nsPerAsync } from './clock.js';
import { requireEqual } from './rig.js';

const perSecond = (ns: number): number => 1e9 / ns;

/** Two tasks, one page, all invariants on. */
const PROGRAM = `
devices 1
pages 1
init: store 0 1
A: todevice 0 on 0
B: store 0 7
B: load 0 -> r
forbidden r=1
`;
/** A world is booted for them: as many as make that small. */
const EXECUTIONS = 5000;

export const executions: Benchmark = {
  name: 'inline executions of 2 tasks on 1 page, all invariants on',
  unit: 'executions/s',
  base: null,
  addressed: true,
  subjects: [{ name: 'exploration', goal: { must: 10_000, aim: 30_000 } }],
  async prepare(addressing: Addressing): Promise<Rig> {
    const program = parseProgram(PROGRAM);
    let seed = 0;
    return {
      async round() {
        const ns = nsPer(EXECUTIONS, () => {
          const result = explore(program, { strategy: 'random', executions: EXECUTIONS, seed: ++seed, addressing });
          requireEqual('failure', result.failure, null);
          requireEqual('executions', result.executions, EXECUTIONS);
        });
        return [perSecond(ns)];
      },
      dispose: async () => {},
    };
  },
};

/** Golden traces come with the source, not with the package. */
const TRACES = new URL('../../../test/conformance/traces/', import.meta.url);

/** Those of one format, which share a machine: how fast it boots is measured elsewhere. */
function readTraces(): Trace[] {
  if (!existsSync(TRACES)) return [];
  return readdirSync(TRACES)
    .filter((name) => name.endsWith('.jsonl.gz'))
    .sort()
    .map((name) =>
      parseTrace(gunzipSync(readFileSync(new URL(name, TRACES))).toString(), fileURLToPath(new URL(name, TRACES))),
    )
    .filter(({ header }) => header.trace === 'hmmrec-1');
}

export const traceReplay: Benchmark = {
  name: 'replay of golden traces',
  unit: 'operations/s',
  base: null,
  addressed: true,
  subjects: [{ name: 'conform replay', goal: { must: 50_000, aim: 150_000 } }],
  async prepare(addressing) {
    const traces = readTraces();
    if (traces.length === 0) return null;
    const operations = traces.reduce((sum, { lines }) => sum + lines.length, 0);
    const replayer = new TraceReplayer({ addressing, executor: 'inline', all: false });
    await replayer.prepare(traces[0]!);
    return {
      async round() {
        const ns = await nsPerAsync(operations, async () => {
          for (const trace of traces) requireEqual('divergences', (await replayer.replay(trace)).divergences.length, 0);
        });
        return [perSecond(ns)];
      },
      dispose: () => replayer.dispose(),
    };
  },
};
