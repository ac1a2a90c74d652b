import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { ALL_CHECKERS } from '#src/check/boot';
import type { TraceHeader, TraceOperation } from '#src/conformance/trace';
import { TraceSession } from '#src/conformance/trace-session';
import { ProcessView } from '#src/conformance/trace-state';
import { bootWithState } from '#src/machine/boot';
import type { MachineInput } from '#src/machine/spec';
import type { MachineState } from '#src/machine/state';
import type { Addressing } from '#src/machine/types';
import { pagemapAndMincore } from '#src/mm/proc-pagemap';
import { smapsRange } from '#src/mm/proc-smaps';
import type { Sleeps } from '#src/sync/task';

/** Device entries have the types 28 to 30 under `legacy`, 25 to 27 under `offset`; nothing else may differ. */
const FIRST_LEGACY_TYPE = 28 << 8;
const TYPE_SHIFT = 3 << 8;
const BASE = 0x100000000000 as VirtAddr;
const MIB = 2 ** 20;
const ALWAYS = ALL_CHECKERS.filter(({ always }) => always);

type Loose = Readonly<Record<string, unknown>>;
type Ranged = Loose & { readonly pg: number; readonly n: number };
const of = fc.constantFrom;

/** Operations of the recorder: any at any time, also what makes no sense, as of a child that is not there. */
function operations(pages: number, advices: readonly string[]): fc.Arbitrary<readonly TraceOperation[]> {
  const proc = fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.constant(1) });
  const start = fc.oneof(fc.nat(pages - 1), of(0, pages / 4, pages / 2));
  const range = fc
    .tuple(start, fc.oneof(fc.integer({ min: 1, max: 8 }), of(pages / 4, pages / 2)))
    .map(([pg, n]) => ({ pg, n: Math.min(n, pages - pg) }));
  const op = (name: string, fields: Readonly<Record<string, fc.Arbitrary<unknown>>> = {}): fc.Arbitrary<Loose> =>
    fc.record({ op: fc.constant(name), proc, ...fields });
  const ranged = (name: string, fields: Readonly<Record<string, fc.Arbitrary<unknown>>> = {}): fc.Arbitrary<Ranged> =>
    fc.tuple(op(name, fields), range).map(([head, place]) => ({ ...head, ...place }));
  const slot = fc.nat(7);
  const mirrored = of('migrate_to_dev', 'dev_read', 'migrate_to_sys', 'snapshot', 'exclusive', 'check_exclusive');
  const each = fc.oneof(
    ranged('cpu_write', { k: fc.constant(0) }),
    ranged('cpu_read'),
    mirrored.chain((name) => ranged(name, { slot })),
    of('migrate_to_dev').chain((name) => ranged(name, { slot: fc.nat(1) })),
    ranged('dev_write', { slot: fc.nat(1), k: fc.constant(0) }),
    ranged('mmap', { prot: of('NONE', 'R', 'RW', 'W'), kind: of('private', 'shared') }),
    ranged('mprotect', { prot: of('NONE', 'R', 'RW') }),
    ranged('munmap'),
    ranged('madvise', { advice: of(...advices) }),
    fc
      .tuple(ranged('mremap'), fc.nat(pages - 1))
      .map(([move, dst]) => ({ ...move, dst, n: Math.min(move.n, pages - dst) })),
    fc.oneof(op('fork'), op('exit')),
    fc.oneof(op('open', { slot, dev: fc.nat(1) }), op('close', { slot })),
    op('fail_alloc', { slot, flags: fc.constant(1) }),
    op('release_chunks', { slot }),
    fc.oneof(ranged('pin', { write: of(0, 1) }), op('unpin'), ranged('splice'), op('splice_drain')),
    op('smaps'),
  );
  const opening: readonly Loose[] = [
    { op: 'mmap', proc: 0, pg: 0, n: pages, prot: 'RW', kind: 'private' },
    { op: 'madvise', proc: 0, pg: 0, n: pages, advice: advices[0] },
    { op: 'open', proc: 0, slot: 0, dev: 0 },
    { op: 'open', proc: 0, slot: 1, dev: 1 },
    { op: 'cpu_write', proc: 0, pg: 0, n: pages, k: 0 },
  ];
  return fc
    .array(each, { minLength: 10, maxLength: 60 })
    .map((some) => [...opening, ...some] as unknown as readonly TraceOperation[]);
}

const seenBy = ({ pm, mc, s0, s1, sums }: ProcessView) => ({
  pm: [...pm],
  mc: [...mc],
  s0: [...s0],
  s1: [...s1],
  sums: { ...sums },
});

/** The same without a memory of what was there before, and in one go. */
function* wholeLook(state: MachineState, mm: ProcessView['mm'], pages: number) {
  const { kernel, devices } = state;
  const [pm, mc] = [new Int32Array(pages), new Int32Array(pages)];
  pagemapAndMincore(kernel, mm, BASE, pm, mc);
  const { rss, anon, swap, ahp, prd, prc, shd, shc } = smapsRange(kernel, mm, BASE, pages);
  const snapshots: number[][] = [];
  for (const { driver } of devices) {
    const observer = driver.observe(mm);
    const codes = new Uint8Array(pages);
    expect(yield* observer.snapshot(BASE, codes)).toBe(0);
    snapshots.push([...codes]);
    yield* observer.close();
  }
  const [s0, s1] = snapshots;
  return { pm: [...pm], mc: [...mc], s0, s1, sums: { rss, anon, swap, ahp, prd, prc, shd, shc } };
}

/** What each operation answered and what the processes look like after it, with the swap types of `offset`. */
async function outcomes(addressing: Addressing, pages: number, list: readonly TraceOperation[]): Promise<unknown[]> {
  const devices = [0, 1].map((index) => ({ name: `gpu${index}`, memory: 64 * MIB, chunk: 16 * MIB }));
  const memory = { ram: 64 * MIB, physicalBits: 40 };
  const spec: MachineInput = { name: 'trace', addressing, executor: 'inline', memory, devices };
  const { machine, state } = await bootWithState(spec, ALL_CHECKERS);
  const free = state.kernel.buddy.freePagesCount;
  const seen: unknown[] = [];
  function* all(): Sleeps<void> {
    const session = new TraceSession(state, { arena_base: BASE, arena_pages: pages } as unknown as TraceHeader);
    const opened: ProcessView[] = [];
    const viewOf = (mm: ProcessView['mm']): ProcessView => {
      const view = opened.find((each) => each.mm === mm) ?? new ProcessView(state, mm, { base: BASE, pages });
      if (!opened.includes(view)) opened.push(view);
      return view;
    };
    for (const operation of list) {
      const answer = yield* session.execute(operation);
      const views = [session.parent, session.child].flatMap((party) => (party === null ? [] : [viewOf(party.mm)]));
      for (const view of views) {
        yield* view.look();
        expect(seenBy(view)).toEqual(yield* wholeLook(state, view.mm, pages));
      }
      const asOffset = (pm: number): number => (pm >= FIRST_LEGACY_TYPE ? pm - TYPE_SHIFT : pm);
      const states = views.map((view) => {
        const { pm, ...others } = seenBy(view);
        return { pm: addressing === 'legacy' ? pm.map(asOffset) : pm, ...others };
      });
      const wrong = ALWAYS.flatMap(({ look }) => [...look(state)]);
      seen.push({ operation, answer, states, wrong, log: state.log.splice(0) });
      expect(wrong).toEqual([]);
    }
    for (const view of opened) yield* view.close();
    yield* session.end();
  }
  await state.executor.run('trace', all());
  expect(await machine.check()).toEqual([]);
  expect(state.kernel.buddy.freePagesCount).toBe(free);
  expect(state.devices.map(({ driver }) => driver.stats().usedPages)).toEqual([0, 0]);
  await machine.dispose();
  return seen;
}

/** What a process sees may change without anything new in its own page tables. */
const AT_A_DISTANCE: readonly (readonly [string, number, readonly Loose[]])[] = [
  [
    'a page that the child brings into the page cache',
    64,
    [
      { op: 'mmap', proc: 0, pg: 0, n: 8, prot: 'RW', kind: 'shared' },
      { op: 'fork', proc: 0 },
      { op: 'cpu_write', proc: 1, pg: 2, n: 3, k: 0 },
      { op: 'exit', proc: 1 },
    ],
  ],
  [
    'pages of a huge page that the child has no more',
    2048,
    [
      { op: 'mmap', proc: 0, pg: 0, n: 512, prot: 'RW', kind: 'private' },
      { op: 'madvise', proc: 0, pg: 0, n: 512, advice: 'HUGEPAGE' },
      { op: 'cpu_write', proc: 0, pg: 0, n: 512, k: 0 },
      { op: 'fork', proc: 0 },
      { op: 'munmap', proc: 1, pg: 0, n: 8 },
      { op: 'munmap', proc: 1, pg: 100, n: 8 },
      { op: 'exit', proc: 1 },
    ],
  ],
];

test.each(AT_A_DISTANCE)('a look sees %s', async (_, pages, list) => {
  await outcomes('offset', pages, list as unknown as readonly TraceOperation[]);
});

describe('operations of the recorder come to the same under both addressings, leave nothing, and are seen whole', () => {
  test.each([
    ['4 KiB pages', 64, ['DONTNEED', 'FREE', 'HUGEPAGE'], 60],
    ['huge pages', 2048, ['HUGEPAGE', 'COLLAPSE', 'DONTNEED', 'NOHUGEPAGE', 'FREE'], 10],
  ] as const)(
    '%s',
    async (_, pages, advices, numRuns) => {
      await fc.assert(
        fc.asyncProperty(operations(pages, advices), async (list) => {
          expect(await outcomes('offset', pages, list)).toEqual(await outcomes('legacy', pages, list));
        }),
        { numRuns },
      );
    },
    60_000,
  );
});
