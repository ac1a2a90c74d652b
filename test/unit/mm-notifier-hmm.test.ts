/** Interval notifiers and their sequence counts, and hmm_range_fault. */
import { expect, it } from 'vitest';
import {
  HMM_PFN_DEVICE_PRIVATE,
  HMM_PFN_DMA_MAPPED,
  HMM_PFN_ERROR,
  HMM_PFN_REQ_FAULT,
  HMM_PFN_REQ_WRITE,
  HMM_PFN_VALID,
  HMM_PFN_WRITE,
  type HmmPfns,
  hmmPfnFlags,
  makeHmmPfns,
} from '#src/abi/hmm-pfn';
import type { VirtAddr } from '#src/base/brand';
import { type HmmResult, hmmRangeFault } from '#src/mm/hmm';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMunmap } from '#src/mm/mmap';
import {
  type MmuIntervalNotifier,
  type MmuNotifierRange,
  mmuIntervalNotifierInsert,
  mmuIntervalNotifierRemove,
  mmuIntervalReadBegin,
  mmuIntervalReadRetry,
  mmuIntervalSetSeq,
  mmuNotifierInvalidateRangeEnd,
  mmuNotifierInvalidateRangeStart,
} from '#src/mm/mmu-notifier';
import { copyToUser } from '#src/mm/uaccess';
import type { Sleeps } from '#src/sync/task';
import { type Bench, describeEach, type FakeDriver, PAGE, run, runUntilBlocked, withKernel } from './mm-fixture';

/** A notifier that writes down what it is told. Its device forgets at once, or when the gate opens. */
function watch(mm: MmStruct, start = 0, end = 2 ** 47) {
  const events: { event: string; start: number; end: number; owner: object | null }[] = [];
  const gate = { open: true };
  const notifier = mmuIntervalNotifierInsert(mm, start, end, {
    *invalidate(self, range, curSeq) {
      mmuIntervalSetSeq(self, curSeq);
      events.push({ event: range.event, start: range.start, end: range.end, owner: range.owner });
      while (!gate.open) yield { what: 'the device', ready: () => gate.open };
    },
  });
  return { notifier, events, gate };
}

const range = (mm: MmStruct, start: number, end: number): MmuNotifierRange => ({
  mm,
  start: start as VirtAddr,
  end: end as VirtAddr,
  event: 'MMU_NOTIFY_CLEAR',
  owner: null,
});
const begin = (notifier: MmuIntervalNotifier): number => run(mmuIntervalReadBegin(notifier));

describeEach('interval notifiers', (addressing) => {
  it('a read that nobody disturbs need not be retried', () =>
    withKernel(addressing, (bench) => {
      const { notifier } = watch(bench.mm());
      expect(mmuIntervalReadRetry(notifier, begin(notifier))).toBe(false);
      run(mmuIntervalNotifierRemove(notifier));
    }));

  it('an invalidation makes reads before it retry, and reads during it wait', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const { notifier } = watch(mm);
      const before = begin(notifier);
      const area = range(mm, 0x10000, 0x20000);
      run(mmuNotifierInvalidateRangeStart(area));
      expect(mmuIntervalReadRetry(notifier, before)).toBe(true);
      const during = mmuIntervalReadBegin(notifier);
      expect(runUntilBlocked(during)).toContain('end of an invalidation');
      mmuNotifierInvalidateRangeEnd(area);
      expect(mmuIntervalReadRetry(notifier, run(during))).toBe(false);
      run(mmuIntervalNotifierRemove(notifier));
    }));

  it('reads outside of the range go on: other intervals are not told', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const inside = watch(mm, 0x10000, 0x20000);
      const outside = watch(mm, 0x20000, 0x30000);
      const seq = begin(outside.notifier);
      const area = range(mm, 0x1f000, 0x20000);
      run(mmuNotifierInvalidateRangeStart(area));
      expect(mmuIntervalReadRetry(outside.notifier, begin(outside.notifier))).toBe(false);
      expect(mmuIntervalReadRetry(outside.notifier, seq)).toBe(false);
      mmuNotifierInvalidateRangeEnd(area);
      expect([inside.events.length, outside.events.length]).toEqual([1, 0]);
      for (const { notifier } of [inside, outside]) run(mmuIntervalNotifierRemove(notifier));
    }));

  it('nested invalidations: a read waits for the last', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const { notifier } = watch(mm);
      const [one, two] = [range(mm, 0x10000, 0x20000), range(mm, 0x18000, 0x28000)];
      run(mmuNotifierInvalidateRangeStart(one));
      run(mmuNotifierInvalidateRangeStart(two));
      const read = mmuIntervalReadBegin(notifier);
      runUntilBlocked(read);
      mmuNotifierInvalidateRangeEnd(one);
      expect(runUntilBlocked(read)).toBeDefined();
      mmuNotifierInvalidateRangeEnd(two);
      const seq = run(read);
      expect(mmuIntervalReadRetry(notifier, seq)).toBe(false);
      run(mmuNotifierInvalidateRangeStart(one));
      expect(mmuIntervalReadRetry(notifier, seq)).toBe(true);
      mmuNotifierInvalidateRangeEnd(one);
      run(mmuIntervalNotifierRemove(notifier));
    }));

  it.each([true, false])(
    'inserted while an invalidation is under way, its first read waits (concerned others: %s)',
    (told) =>
      withKernel(addressing, (bench) => {
        const mm = bench.mm();
        const others = told ? watch(mm) : null;
        const area = range(mm, 0x10000, 0x20000);
        run(mmuNotifierInvalidateRangeStart(area));
        const { notifier } = watch(mm);
        const read = mmuIntervalReadBegin(notifier);
        expect(runUntilBlocked(read)).toBeDefined();
        mmuNotifierInvalidateRangeEnd(area);
        expect(mmuIntervalReadRetry(notifier, run(read))).toBe(false);
        run(mmuIntervalNotifierRemove(notifier));
        if (others) run(mmuIntervalNotifierRemove(others.notifier));
      }),
  );

  it('removed while an invalidation is under way, it still hears of it, and removal waits for the end', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const [first, second] = [watch(mm), watch(mm)];
      first.gate.open = false;
      const area = range(mm, 0x10000, 0x20000);
      const start = mmuNotifierInvalidateRangeStart(area);
      expect(runUntilBlocked(start)).toBe('the device');
      const removal = mmuIntervalNotifierRemove(second.notifier);
      expect(runUntilBlocked(removal)).toContain('end of the invalidation');
      first.gate.open = true;
      run(start);
      expect(second.events).toHaveLength(1);
      expect(runUntilBlocked(removal)).toBeDefined();
      mmuNotifierInvalidateRangeEnd(area);
      run(removal);
      run(mmuNotifierInvalidateRangeStart(area));
      expect(second.events).toHaveLength(1);
      mmuNotifierInvalidateRangeEnd(area);
      run(mmuIntervalNotifierRemove(first.notifier));
    }));

  it('who is told of what', () =>
    withKernel(addressing, (bench) => {
      const mm = bench.mm();
      const at = bench.mmap(mm, 4);
      bench.store(mm, at, 1);
      bench.load(mm, at + PAGE);
      const driver = bench.driver();
      const { notifier, events } = watch(mm);
      const told = (): unknown[] =>
        events.splice(0).map((e) => [e.event, (e.start - at) / PAGE, (e.end - at) / PAGE, e.owner === driver.owner]);
      bench.store(mm, at + 2 * PAGE, 1);
      expect(told()).toEqual([]);
      bench.store(mm, at + PAGE, 1);
      expect(told()).toEqual([['MMU_NOTIFY_CLEAR', 1, 2, false]]);
      run(driver.toDevice(mm, at, 4));
      expect(told()).toEqual([
        ['MMU_NOTIFY_MIGRATE', 0, 4, true],
        ['MMU_NOTIFY_MIGRATE', 3, 4, true],
      ]);
      run(driver.evict([bench.page(mm, at)]));
      expect(told()).toEqual([['MMU_NOTIFY_CLEAR', 0, 1, false]]);
      bench.load(mm, at + PAGE);
      expect(told()).toEqual([['MMU_NOTIFY_MIGRATE', 1, 2, true]]);
      run(doMunmap(bench.kernel, mm, (at + 2 * PAGE) as VirtAddr, PAGE));
      expect(told()).toEqual([['MMU_NOTIFY_UNMAP', 2, 3, false]]);
      run(mmuIntervalNotifierRemove(notifier));
    }));
});

/** The words as the kernel has them. */
const wordsOf = (hmmPfns: HmmPfns): bigint[] => [...new BigUint64Array(hmmPfns.buffer)];
/** What is in the upper half of a word, in its place. */
const inWord = (flags: number): bigint => BigInt(flags >>> 0) << 32n;
const VALID = inWord(HMM_PFN_VALID);
const WRITABLE = inWord(HMM_PFN_VALID | HMM_PFN_WRITE);
const ERROR = inWord(HMM_PFN_ERROR);
const STICKY = inWord(HMM_PFN_DMA_MAPPED);

/** hmm_range_fault of the pages from `at`, retried as drivers do. */
function* query(
  bench: Bench,
  notifier: MmuIntervalNotifier,
  at: number,
  pages: number,
  flags: number,
  owner: object | null,
  hmmPfns = makeHmmPfns(pages),
): Sleeps<HmmResult | bigint[]> {
  const { mmapLock } = notifier.mm;
  yield* mmapLock.downRead();
  try {
    for (;;) {
      const notifierSeq = yield* mmuIntervalReadBegin(notifier);
      const outcome = yield* hmmRangeFault(bench.kernel, {
        notifier,
        notifierSeq,
        start: at as VirtAddr,
        end: (at + pages * PAGE) as VirtAddr,
        hmmPfns,
        defaultFlags: flags,
        pfnFlagsMask: 0,
        devPrivateOwner: owner,
      });
      if (outcome === 'EBUSY') continue;
      return outcome === 0 ? wordsOf(hmmPfns) : outcome;
    }
  } finally {
    mmapLock.upRead();
  }
}

interface Scene {
  readonly bench: Bench;
  readonly mm: MmStruct;
  readonly own: FakeDriver;
  readonly other: FakeDriver;
  ask(at: number, pages: number, flags?: number): HmmResult | bigint[];
}

function scene(addressing: 'legacy' | 'offset', body: (scene: Scene) => void): void {
  withKernel(addressing, (bench) => {
    const mm = bench.mm();
    const { notifier } = watch(mm);
    const [own, other] = [bench.driver(), bench.driver()];
    body({
      bench,
      mm,
      own,
      other,
      ask: (at, pages, flags = 0) => run(query(bench, notifier, at, pages, flags, own.owner)),
    });
    run(mmuIntervalNotifierRemove(notifier));
  });
}

const READ = HMM_PFN_REQ_FAULT;
const WRITE = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;

describeEach('hmm_range_fault', (addressing) => {
  const number = ({ kernel }: Bench, page: number): bigint => BigInt(kernel.addressing.pageNumber(page as never));
  const privateFlag = addressing === 'offset' ? inWord(HMM_PFN_DEVICE_PRIVATE) : 0n;

  it('nothing there: 0; a read request maps the zero page, a write request a page', () =>
    scene(addressing, ({ bench, mm, ask }) => {
      const at = bench.mmap(mm, 2);
      expect(ask(at, 2)).toEqual([0n, 0n]);
      expect(mm.tables).toBe(1);
      expect(ask(at, 1, READ)).toEqual([VALID | BigInt(bench.kernel.zeroPfn)]);
      expect(mm.rssAnon).toBe(0);
      expect(ask(at, 2, WRITE)).toEqual([0, 1].map((i) => WRITABLE | number(bench, bench.page(mm, at + i * PAGE))));
      expect(mm.rssAnon).toBe(2);
    }));

  it('present pages say whether they are writable', () =>
    scene(addressing, ({ bench, mm, ask }) => {
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 1);
      const valid = WRITABLE | number(bench, bench.page(mm, at));
      for (const flags of [0, READ, WRITE]) expect(ask(at, 1, flags)).toEqual([valid]);
    }));

  it('own device pages are reported with their own permission and never come home', () =>
    scene(addressing, ({ bench, mm, own, ask }) => {
      const at = bench.mmap(mm, 1);
      const readOnly = bench.mmap(mm, 1, 'r');
      bench.store(mm, at, 1);
      run(own.toDevice(mm, at, 1));
      run(own.toDevice(mm, readOnly, 1));
      const valid = WRITABLE | privateFlag | number(bench, bench.page(mm, at));
      for (const flags of [0, READ, WRITE]) expect(ask(at, 1, flags)).toEqual([valid]);
      const [word] = ask(readOnly, 1, READ) as bigint[];
      expect(word).toBe(VALID | privateFlag | number(bench, bench.page(mm, readOnly)));
      const hmmPfns = new Int32Array(BigUint64Array.of(word!).buffer);
      expect(bench.kernel.addressing.hmmPfnToPage(hmmPfns, 0)).toBe(bench.page(mm, readOnly));
      expect(own.used).toBe(2);
    }));

  it("another owner's pages: 0, and home they come on request", () =>
    scene(addressing, ({ bench, mm, other, ask }) => {
      const at = bench.mmap(mm, 2);
      bench.store(mm, at, 1);
      bench.store(mm, at + PAGE, 2);
      run(other.toDevice(mm, at, 2));
      expect(ask(at, 2)).toEqual([0n, 0n]);
      expect(other.used).toBe(2);
      expect(ask(at, 2, READ)).toEqual([0, 1].map((i) => WRITABLE | number(bench, bench.page(mm, at + i * PAGE))));
      expect(other.used).toBe(0);
      expect([bench.load(mm, at), bench.load(mm, at + PAGE)]).toEqual([1, 2]);
    }));

  it('no VMA or no VM_READ: ERROR, or EFAULT on request; EPERM for a write to what is read-only', () =>
    scene(addressing, ({ bench, mm, ask }) => {
      const at = bench.mmap(mm, 4);
      bench.mmap(mm, 1, 'none', at + PAGE);
      bench.mmap(mm, 1, 'r', at + 2 * PAGE);
      run(doMunmap(bench.kernel, mm, (at + 3 * PAGE) as VirtAddr, PAGE));
      bench.store(mm, at, 1);
      const [first, ...rest] = ask(at, 4) as bigint[];
      expect(first! & VALID).toBe(VALID);
      expect(rest).toEqual([ERROR, 0n, ERROR]);
      expect(ask(at, 4, READ)).toBe('EFAULT');
      expect(ask(at + PAGE, 1, READ)).toBe('EFAULT');
      expect(ask(at + 3 * PAGE, 1, READ)).toBe('EFAULT');
      expect(ask(at + 2 * PAGE, 1, WRITE)).toBe('EPERM');
      expect(ask(at + 2 * PAGE, 1, READ)).toHaveLength(1);
      expect(ask(2 ** 40, 3)).toEqual([ERROR, ERROR, ERROR]);
    }));

  it('a failing fault is EFAULT', () =>
    scene(addressing, ({ bench, mm, other, ask }) => {
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 1);
      run(other.toDevice(mm, at, 1));
      const taken = [];
      for (let page = bench.kernel.buddy.allocPages(0); page !== 0; page = bench.kernel.buddy.allocPages(0))
        taken.push(page);
      expect(ask(at, 1, READ)).toBe('EFAULT');
      expect(bench.kind(mm, at)).toBe('device-private-write');
      for (const page of taken) {
        bench.kernel.memmap.words[page * 16 + 13] = 0;
        bench.kernel.buddy.freePages(page, 0);
      }
      expect(bench.load(mm, at)).toBe(1);
    }));

  it('a migration entry: 0, and a request waits for the end of the migration', () =>
    scene(addressing, ({ bench, mm, own, ask }) => {
      const at = bench.mmap(mm, 1);
      bench.store(mm, at, 1);
      own.gate.open = false;
      const migration = own.toDevice(mm, at, 1);
      expect(runUntilBlocked(migration)).toBe('the copy');
      expect(bench.kind(mm, at)).toBe('migration-write');
      expect(ask(at, 1)).toEqual([0n]);
      const { notifier } = watch(mm);
      const asked = query(bench, notifier, at, 1, READ, own.owner);
      expect(runUntilBlocked(asked)).toContain('end of the migration');
      own.gate.open = true;
      run(migration);
      expect(run(asked)).toEqual([WRITABLE | privateFlag | number(bench, bench.page(mm, at))]);
      run(mmuIntervalNotifierRemove(notifier));
    }));

  it('an invalidation in between is EBUSY; sticky flags stay', () =>
    scene(addressing, ({ bench, mm, own }) => {
      const { kernel } = bench;
      const at = bench.mmap(mm, 2);
      const { notifier } = watch(mm);
      bench.load(mm, at);
      const seq = begin(notifier);
      bench.store(mm, at, 1);
      run(mm.mmapLock.downRead());
      const hmmPfns = new Int32Array(new BigUint64Array(2).fill(STICKY | ERROR | 5n).buffer);
      const ask = (notifierSeq: number): HmmResult =>
        run(
          hmmRangeFault(kernel, {
            notifier,
            notifierSeq,
            start: at,
            end: (at + 2 * PAGE) as VirtAddr,
            hmmPfns,
            defaultFlags: 0,
            pfnFlagsMask: 0,
            devPrivateOwner: own.owner,
          }),
        );
      expect(ask(seq)).toBe('EBUSY');
      expect(ask(begin(notifier))).toBe(0);
      mm.mmapLock.upRead();
      const valid = WRITABLE | number(bench, bench.page(mm, at));
      expect(wordsOf(hmmPfns)).toEqual([STICKY | valid, STICKY]);
      run(mmuIntervalNotifierRemove(notifier));
    }));

  it('requests by page: only what the mask lets through counts', () =>
    scene(addressing, ({ bench, mm, own }) => {
      const at = bench.mmap(mm, 3);
      const { notifier } = watch(mm);
      const hmmPfns = Int32Array.of(0, 0, 0, WRITE, 0, 0);
      run(mm.mmapLock.downRead());
      for (const pfnFlagsMask of [0, WRITE]) {
        const outcome = run(
          hmmRangeFault(bench.kernel, {
            notifier,
            notifierSeq: begin(notifier),
            start: at,
            end: (at + 3 * PAGE) as VirtAddr,
            hmmPfns: pfnFlagsMask === 0 ? hmmPfns.slice() : hmmPfns,
            defaultFlags: 0,
            pfnFlagsMask,
            devPrivateOwner: own.owner,
          }),
        );
        expect(outcome).toBe(0);
        // hmm_vma_fault() goes on to the end of the range: the page after it is populated as well.
        expect(mm.rssAnon).toBe(pfnFlagsMask === 0 ? 0 : 2);
      }
      mm.mmapLock.upRead();
      expect([0, 1, 2].map((i) => hmmPfnFlags(hmmPfns, i))).toEqual([0, WRITE, WRITE]);
      run(mmuIntervalNotifierRemove(notifier));
    }));

  it('a write request replaces the zero page for the CPU too, which had it in its TLB', () =>
    scene(addressing, ({ bench, mm, own, ask }) => {
      const at = bench.mmap(mm, 1);
      expect(bench.load(mm, at)).toBe(0);
      ask(at, 1, WRITE);
      own.bytesOf(bench.page(mm, at))[0] = 6;
      expect(bench.load(mm, at)).toBe(6);
    }));

  it('two tasks: a store that breaks the zero page makes the query begin anew', () =>
    scene(addressing, ({ bench, mm, own }) => {
      const at = bench.mmap(mm, 1);
      bench.load(mm, at);
      const { notifier, gate } = watch(mm);
      gate.open = false;
      const store = copyToUser(bench.kernel, mm, at, Uint8Array.of(9));
      expect(runUntilBlocked(store)).toBe('the device');
      const asked = query(bench, notifier, at, 1, READ, own.owner);
      expect(runUntilBlocked(asked)).toContain('end of an invalidation');
      gate.open = true;
      run(store);
      expect(run(asked)).toEqual([WRITABLE | number(bench, bench.page(mm, at))]);
      run(mmuIntervalNotifierRemove(notifier));
    }));
});
