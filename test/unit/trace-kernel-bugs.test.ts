/** Mistakes of the recorded kernel itself: replay makes them too, a machine of one's own does not (litmus `thp/device-reads-own-middle`). */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { TraceReplayer } from '#src/conformance/replay-trace';
import { parseTrace, type TraceOperation } from '#src/conformance/trace';
import { TraceSession } from '#src/conformance/trace-session';
import type { Sleeps } from '#src/sync/task';

const FILE = new URL('../conformance/traces/scen-thp_pingpong.jsonl.gz', import.meta.url);
const HUGE = 512;
const whole = { proc: 0, slot: 0, pg: 0, n: HUGE };

/** A huge page, in which each page has a word of its own, on its device, which has forgotten where its pages are. */
const ARRANGEMENT = [
  { op: 'open', proc: 0, slot: 0, dev: 0 },
  { op: 'mmap', ...whole, prot: 'RW', kind: 'private' },
  { op: 'madvise', ...whole, advice: 'HUGEPAGE' },
  { op: 'cpu_write', ...whole, k: 1 },
  { op: 'migrate_to_dev', ...whole },
  { op: 'mremap', ...whole, dst: HUGE },
] as unknown as readonly TraceOperation[];

/** What operations answer after the arrangement. */
async function answersTo(list: readonly object[]): Promise<unknown[]> {
  const trace = parseTrace(gunzipSync(readFileSync(FILE)).toString(), 'scen-thp_pingpong');
  const replayer = new TraceReplayer({ addressing: 'offset', executor: 'inline', all: false });
  const { state } = await replayer.prepare(trace);
  const answers: unknown[] = [];
  function* all(): Sleeps<void> {
    const session = new TraceSession(state, trace.header);
    for (const operation of ARRANGEMENT) expect((yield* session.execute(operation)).errno ?? '0').toBe('0');
    for (const operation of list)
      answers.push(yield* session.execute({ proc: 0, slot: 0, ...operation } as TraceOperation));
    yield* session.end();
  }
  await state.executor.run('a trace', all());
  expect(await replayer.check()).toEqual([]);
  await replayer.dispose();
  return answers;
}

/** Word of a page of the huge one, as the first write left it. */
const written = (page: number): number => 4096 + page;

test('a device that asks for the middle of its own huge page gets the beginning, round by round', async () => {
  const [middle, beginning, both] = await answersTo([
    { op: 'dev_read', pg: HUGE + 100, n: 2 },
    { op: 'dev_read', pg: HUGE, n: 34 },
    { op: 'cpu_read', pg: HUGE + 100, n: 1 },
  ]);
  expect(middle).toMatchObject({ errno: '0', faults: 1, words: [0, 1].map(written) });
  const [first, second] = [Array.from({ length: 32 }, (_, page) => written(page)), [0, 1].map(written)];
  expect(beginning).toMatchObject({ errno: '0', words: [...first, ...second] });
  expect(both).toMatchObject({ words: [written(100)] });
});

test('an entry that is wrong gives way to the next one, and a store goes where it leads', async () => {
  const [, again, , seen] = await answersTo([
    { op: 'dev_read', pg: HUGE + 100, n: 2 },
    { op: 'dev_read', pg: HUGE + 99, n: 3 },
    { op: 'dev_write', pg: HUGE + 101, n: 1, k: 2 },
    { op: 'cpu_read', pg: HUGE, n: HUGE },
  ]);
  expect(again).toMatchObject({ faults: 1, words: [0, 1, 2].map(written) });
  const words = Array.from({ length: HUGE }, (_, page) => written(page));
  words[2] = 2 * 4096 + HUGE + 101;
  expect(seen).toMatchObject({ words });
});
