/**
 * Random operations on two processes and a device, while pages are evicted in the background: every load sees what the
 * process stored last, wherever the page is, and nothing is left at the end.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { VM_FAULT_SIGSEGV } from '#src/abi/errno';
import type { VirtAddr } from '#src/base/brand';
import { forkMm } from '#src/mm/fork';
import { type Advice, doMadvise } from '#src/mm/madvise';
import { exitMm, type MmStruct } from '#src/mm/mm-struct';
import { doMmap, doMunmap, type Protection } from '#src/mm/mmap';
import { doMprotect } from '#src/mm/mprotect';
import { doMremap } from '#src/mm/mremap';
import { copyFromUser, copyToUser } from '#src/mm/uaccess';
import { SCHEDULE_POINT, type Sleeps } from '#src/sync/task';
import { describeEach, PAGE, runAll, withKernel } from './mm-fixture';

const PAGES = 10;
/** Across a border of page tables. */
const BASE = 2 ** 30 + 508 * PAGE;
const PROTECTIONS: readonly Protection[] = ['none', 'r', 'rw'];
const ADVICE: readonly Advice[] = ['DONTNEED', 'HUGEPAGE', 'NOHUGEPAGE'];

/** What a process sees at a page: `null` where nothing is mapped. */
interface Model {
  prot: Protection;
  value: number;
}
interface Process {
  readonly mm: MmStruct;
  readonly pages: (Model | null)[];
}
const KINDS = [
  'store',
  'store',
  'store',
  'load',

  'store',
  'load',
  'mmap',
  'munmap',
  'mprotect',
  'mremap',
  'madvise',
  'fork',
  'exit',
  'migrate',
] as const;
const operation = fc.record({
  kind: fc.constantFrom(...KINDS),
  child: fc.boolean(),
  page: fc.nat({ max: PAGES - 1 }),
  count: fc.integer({ min: 1, max: 4 }),
  choice: fc.nat({ max: 2 }),
  target: fc.nat({ max: PAGES - 1 }),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

describeEach('operations on address spaces', (addressing) => {
  it('contents, permissions and frames', () => {
    fc.assert(
      fc.property(
        fc.array(operation, { minLength: 10, maxLength: 60 }),
        fc.infiniteStream(fc.boolean()),
        (list, coins) => {
          withKernel(addressing, (bench) => {
            const { kernel, preemption } = bench;
            const driver = bench.driver();
            const processes: Process[] = [
              { mm: bench.mm(), pages: Array.from({ length: PAGES }, () => ({ prot: 'rw', value: 0 })) },
            ];
            bench.mmap(processes[0]!.mm, PAGES, 'rw', BASE);
            let done = false;
            let value = 0;
            preemption.choose = () => coins.next().value as boolean;
            preemption.on = true;

            function* perform({ kind, child, page, count: wanted, choice, target }: Operation): Sleeps<void> {
              const process = processes[child && processes.length > 1 ? 1 : 0]!;
              const { mm, pages } = process;
              const count = Math.min(wanted, PAGES - page);
              const at = (BASE + page * PAGE) as VirtAddr;
              const length = count * PAGE;
              const prot = PROTECTIONS[choice]!;
              const hole = pages.slice(page, page + count).includes(null);
              const model = pages[page];
              switch (kind) {
                case 'store': {
                  const byte = ++value & 0xff;
                  const { fault } = yield* copyToUser(kernel, mm, at, Uint8Array.of(byte));
                  expect(fault).toBe(model?.prot === 'rw' ? 0 : VM_FAULT_SIGSEGV);
                  if (fault === 0) pages[page]!.value = byte;
                  return;
                }
                case 'load': {
                  const out = new Uint8Array(1);
                  const { fault } = yield* copyFromUser(kernel, mm, at, out);
                  expect(fault).toBe(model && model.prot !== 'none' ? 0 : VM_FAULT_SIGSEGV);
                  if (fault === 0) expect(out[0]).toBe(model!.value);
                  return;
                }
                case 'mmap':
                  expect(yield* doMmap(kernel, mm, { addr: at, length, prot, fixed: true })).toBe(at);
                  for (let i = page; i < page + count; i++) pages[i] = { prot, value: 0 };
                  return;
                case 'munmap':
                  expect(yield* doMunmap(kernel, mm, at, length)).toBe(0);
                  pages.fill(null, page, page + count);
                  return;
                case 'mprotect':
                  expect(yield* doMprotect(kernel, mm, at, length, prot)).toBe(hole ? 'ENOMEM' : 0);
                  for (let i = page; i < page + count && pages[i]; i++) pages[i]!.prot = prot;
                  return;
                case 'mremap': {
                  const to = Math.min(target, PAGES - count);
                  const flags = { maymove: true, fixedAt: (BASE + to * PAGE) as VirtAddr };
                  const overlap = to < page + count && page < to + count;
                  const expected = overlap ? 'EINVAL' : model ? flags.fixedAt : 'EFAULT';
                  expect(yield* doMremap(kernel, mm, at, length, length, flags)).toBe(expected);
                  if (overlap || !model) return;
                  // Where the source has a gap, the target keeps what it has.
                  for (let i = 0; i < count; i++) if (pages[page + i]) pages[to + i] = pages[page + i]!;
                  pages.fill(null, page, page + count);
                  return;
                }
                case 'madvise':
                  expect(yield* doMadvise(kernel, mm, at, length, ADVICE[choice]!)).toBe(hole ? 'ENOMEM' : 0);
                  if (choice === 0) for (let i = page; i < page + count; i++) if (pages[i]) pages[i]!.value = 0;
                  return;
                case 'fork':
                  if (processes.length > 1) return;
                  processes.push({
                    mm: (yield* forkMm(kernel, processes[0]!.mm, 99))!,
                    pages: processes[0]!.pages.map((each) => each && { ...each }),
                  });
                  return;
                case 'exit':
                  if (processes.length > 1) yield* exitMm(kernel, processes.pop()!.mm);
                  return;
                case 'migrate':
                  if (model && model.prot !== 'none') yield* driver.toDevice(mm, at, count);
              }
            }
            function* program(): Sleeps<void> {
              for (const each of list) yield* perform(each);
              done = true;
            }
            function* evictor(): Sleeps<void> {
              while (!done) {
                yield SCHEDULE_POINT;
                const [page] = driver.contents.keys();
                if (page !== undefined && coins.next().value) yield* driver.evict([page]);
              }
            }
            runAll(program(), evictor());
            preemption.on = false;
            for (const { mm, pages } of processes) {
              for (const [i, model] of pages.entries()) {
                if (model && model.prot !== 'none') expect(bench.load(mm, BASE + i * PAGE)).toBe(model.value);
              }
            }
          });
        },
      ),
      { numRuns: 150, seed: 20261122 },
    );
  }, 60_000);
});
