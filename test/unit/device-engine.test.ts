import { describe, expect, test } from 'vitest';
import { DEVICE_PTE_VALID } from '#src/abi/device-pte';
import { ACCESS_ATOMIC, ACCESS_READ, ACCESS_WRITE } from '#src/abi/packet';
import { RINGS } from '#src/abi/queue';
import { createRandom } from '#src/base/random';
import type { ComputeProgram } from '#src/device/program';
import { BASE, PAGE, Rig, RW, RWA, runLaunch } from './device-rig.js';

const EFAULT = 14;
const addr = (page: number, offset = 0): number => BASE + page * PAGE + offset;

/** A driver that maps what is asked for, to the frame of the same number. */
function mapAll(rig: Rig, flags = RWA): () => void {
  return () => {
    const faults = rig.takeFaults();
    if (faults.length === 0) throw new Error('the engine is idle, and nobody faulted');
    for (const { address } of faults) rig.map((address - BASE) / PAGE, flags);
    rig.replay();
  };
}

describe('faults', () => {
  test('a lane that misses is reported once, waits, and goes on after the fault replay', () => {
    const rig = new Rig();
    const engine = rig.engine();
    rig.ram[0] = 41;
    const seen: unknown[] = [];
    const report = runLaunch(
      engine,
      (ctx) => ctx.storeI32(addr(1), ctx.loadI32(addr(0)) + 1),
      { lanes: 1 },
      () => {
        seen.push(...rig.takeFaults());
        rig.map(seen.length - 1, RW);
        rig.replay();
      },
    );
    expect(seen).toEqual([
      { context: 1, address: addr(0), access: ACCESS_READ, lanes: 1 },
      { context: 1, address: addr(1), access: ACCESS_WRITE, lanes: 1 },
    ]);
    expect(rig.ram[PAGE / 4]).toBe(42);
    expect(report).toEqual({ lanes: 1, faults: 2, parked: 2, operations: 2, failure: null });
  });

  test('lanes that miss the same page share one record; many pages make one batch', () => {
    const rig = new Rig();
    const engine = rig.engine();
    const program: ComputeProgram = (ctx) => void ctx.loadU8(addr(ctx.lane % 4));
    const batches: number[][] = [];
    const report = runLaunch(engine, program, { lanes: 64 }, () => {
      const faults = rig.takeFaults();
      batches.push(faults.map((fault) => fault.lanes));
      for (const { address } of faults) rig.map((address - BASE) / PAGE, 0);
      rig.replay();
    });
    expect(batches).toEqual([[16, 16, 16, 16]]);
    expect(report).toMatchObject({ faults: 4, parked: 64, operations: 64 });
  });

  test('a page is not reported again before an answer, unless an access needs more', () => {
    const rig = new Rig({ waveLanes: 1 });
    const engine = rig.engine();
    const program: ComputeProgram = (ctx) => {
      if (ctx.lane % 3 === 0) ctx.loadI32(addr(0));
      else if (ctx.lane % 3 === 1) ctx.storeI32(addr(0), 1);
      else ctx.atomicAdd(addr(0), 1);
    };
    const accesses: number[] = [];
    runLaunch(engine, program, { lanes: 9 }, () => {
      accesses.push(...rig.takeFaults().map((fault) => fault.access));
      rig.map(0, RWA);
      rig.replay();
    });
    expect(accesses).toEqual([ACCESS_READ, ACCESS_WRITE, ACCESS_ATOMIC]);
  });

  test('a fault replay leaves alone what was reported after the driver looked', () => {
    const rig = new Rig({ waveLanes: 1 });
    const engine = rig.engine();
    const request = { program: 't', context: 1, lanes: 2, groupSize: 1, args: {} };
    engine.launch(
      (ctx) => void ctx.loadI32(addr(ctx.lane)),
      request,
      () => {},
    );
    engine.step();
    expect(rig.takeFaults()).toHaveLength(1);
    engine.step();
    rig.replay();
    while (engine.step());
    // Lane 0 tried again and missed again; the record of lane 1 still stands.
    expect(rig.takeFaults().map(({ address }) => address)).toEqual([addr(1), addr(0)]);
  });

  test('the turn of replayed lanes is over when their launch ends before they run', () => {
    const rig = new Rig({ waveLanes: 8 });
    const program: ComputeProgram = (ctx) => {
      ctx.loadI32(addr(0));
      if (ctx.lane === 0) throw new Error('lane 0 gives up');
    };
    const report = runLaunch(rig.engine(), program, { lanes: 8 }, () => {
      rig.takeFaults();
      rig.map(0, 0);
      rig.replay();
      expect(rig.replayTurnsOver()).toBe(false);
    });
    expect(report.failure?.kind).toBe('program');
    expect(rig.replayTurnsOver()).toBe(true);
  });

  test('the lanes of a launch that was cancelled have no turn to wait for', () => {
    const rig = new Rig({ waveLanes: 8 });
    const engine = rig.engine();
    const program: ComputeProgram = (ctx) => void ctx.loadI32(addr(ctx.lane % 2));
    const report = runLaunch(engine, program, { lanes: 8 }, () => {
      rig.takeFaults();
      rig.cancel(addr(0), EFAULT);
    });
    expect(report.failure?.errno).toBe(EFAULT);
    rig.replay();
    while (engine.step());
    expect(rig.replayTurnsOver()).toBe(true);
  });

  test('a fault replay that serves nothing makes the lane fault anew', () => {
    const rig = new Rig();
    let replays = 0;
    const report = runLaunch(
      rig.engine(),
      (ctx) => void ctx.loadI32(addr(0)),
      { lanes: 1 },
      () => {
        expect(rig.takeFaults()).toHaveLength(1);
        if (++replays === 4) rig.map(0, 0);
        rig.replay();
      },
    );
    expect(report).toMatchObject({ faults: 4, operations: 1 });
  });

  test('more faults than the ring holds stay pending, and all are served', () => {
    const pages = RINGS.faults.capacity * 2;
    const rig = new Rig({ pages });
    const report = runLaunch(rig.engine(), (ctx) => void ctx.loadI32(addr(ctx.lane)), { lanes: pages }, mapAll(rig));
    expect(report).toMatchObject({ faults: pages, operations: pages, failure: null });
  });

  test('a cancelled page fails the launch that waits for it with its errno; others go on', () => {
    const rig = new Rig();
    const engine = rig.engine();
    const reports: unknown[] = [];
    const launch = (page: number): void =>
      engine.launch(
        (ctx) => ctx.storeI32(addr(page), 7),
        { program: 't', context: 1, lanes: 4, groupSize: 4, args: {} },
        (report) => reports.push(report.failure && { ...report.failure, page }),
      );
    launch(0);
    launch(1);
    while (engine.step());
    expect(rig.takeFaults()).toHaveLength(2);
    rig.map(1, RW);
    rig.cancel(addr(0), 13);
    rig.replay();
    while (engine.step());
    expect(reports).toEqual([expect.objectContaining({ kind: 'fault', errno: 13, address: addr(0), page: 0 }), null]);
    expect(rig.ram[PAGE / 4]).toBe(7);
  });

  test('a cancel of writes leaves the readers of the page alone', () => {
    const rig = new Rig();
    const engine = rig.engine();
    const failures: unknown[] = [];
    const read: ComputeProgram = (ctx) => void ctx.loadI32(addr(0));
    const write: ComputeProgram = (ctx) => ctx.storeI32(addr(0), 1);
    // The reader shares the writer's report.
    for (const program of [write, read]) {
      const request = { program: 't', context: 1, lanes: 1, groupSize: 1, args: {} };
      engine.launch(program, request, ({ failure }) => failures.push(failure?.errno ?? 0));
    }
    while (engine.step());
    rig.cancel(addr(0), EFAULT, ACCESS_WRITE);
    rig.map(0, 0);
    rig.replay();
    while (engine.step());
    expect(failures).toEqual([EFAULT, 0]);
  });
});

describe('fault replay log', () => {
  test('stores are not done twice and loads return what they returned, however often the lane faults', () => {
    const rig = new Rig({ pages: 40 });
    const program: ComputeProgram = (ctx) => {
      // Each round sees the value of the first word, changes it, and faults on a page of its own.
      for (let round = 0; round < 30; round++) {
        const value = ctx.loadI32(addr(0));
        ctx.storeI32(addr(0), value * 3 + round);
        ctx.storeF64(addr(1 + round), value);
      }
    };
    const report = runLaunch(rig.engine(), program, { lanes: 1 }, mapAll(rig, RW));
    let expected = 0;
    for (let round = 0; round < 30; round++) {
      expect(new Float64Array(rig.ram.buffer)[(1 + round) * (PAGE / 8)]).toBe(expected);
      expected = (expected * 3 + round) | 0;
    }
    expect(rig.ram[0]).toBe(expected);
    expect(report).toMatchObject({ faults: 31, operations: 90, failure: null });
  });

  test('an atomic counter counts each lane once though each lane faults on many pages', () => {
    const rig = new Rig({ pages: 64 });
    const random = createRandom(5);
    const program: ComputeProgram = (ctx) => {
      for (let page = 1; page < 20; page++) {
        ctx.atomicAdd(addr(0), 1);
        ctx.atomicMax(addr(0, 4), ctx.lane);
        ctx.loadU8(addr(page, ctx.lane));
      }
    };
    const report = runLaunch(rig.engine(), program, { lanes: 300, groupSize: 7 }, () => {
      const faults = rig.takeFaults();
      for (const { address } of faults) if (random.below(3) === 0) rig.map((address - BASE) / PAGE, RWA);
      rig.replay();
    });
    expect(rig.ram[0]).toBe(300 * 19);
    expect(rig.ram[1]).toBe(299);
    expect(report).toMatchObject({ operations: 300 * 19 * 3, failure: null });
  });

  test('every kind of access survives a preemption between any two of them', () => {
    const run = (preempt?: () => boolean): { memory: number[]; sums: number[] } => {
      const rig = new Rig();
      rig.map(0, RWA, 8);
      const program: ComputeProgram = (ctx) => {
        const at = addr(1 + ctx.lane);
        ctx.storeU8(at, 200);
        ctx.storeI32(at + 4, -5);
        ctx.storeU32(at + 8, 0xffff_fff0);
        ctx.storeF32(at + 12, 0.5);
        ctx.storeF64(at + 16, 1e300);
        const sum = ctx.loadU8(at) + ctx.loadI32(at + 4) + ctx.loadU32(at + 8) + ctx.loadF32(at + 12);
        ctx.storeF64(at + 24, sum + ctx.loadF64(at + 16));
        ctx.storeF64(at + 32, sum);
        const old =
          ctx.atomicExchange(at + 4, 9) * 1e6 +
          ctx.atomicCompareExchange(at + 4, 9, 4) * 1e3 +
          ctx.atomicMin(at + 4, -1) * 1e2 +
          ctx.atomicMax(at + 4, 3) * 10 +
          ctx.atomicAdd(at + 4, 2);
        ctx.storeF64(at + 40, old);
        ctx.storeLocal(ctx.localLane, old);
        ctx.barrier();
        ctx.storeF64(at + 48, ctx.loadLocal(0) + ctx.loadLocal(1) + ctx.loadLocal(4095));
      };
      const report = runLaunch(rig.engine(preempt ? { preempt } : {}), program, { lanes: 4, groupSize: 2 });
      expect(report.failure).toBeNull();
      return { memory: [...rig.ram], sums: [report.operations] };
    };
    const straight = run();
    const random = createRandom(11);
    expect(straight.memory[(1 * PAGE) / 4 + 1]).toBe(5);
    expect(run(() => true)).toEqual(straight);
    for (let round = 0; round < 20; round++) expect(run(() => random.below(3) === 0)).toEqual(straight);
  });

  test('a program that takes another way when it runs again is found out', () => {
    const rig = new Rig();
    rig.map(0, RW);
    let calls = 0;
    const program: ComputeProgram = (ctx) => {
      if (calls++ > 0) return;
      ctx.loadI32(addr(0));
      ctx.loadI32(addr(1));
    };
    const report = runLaunch(rig.engine(), program, { lanes: 1 }, mapAll(rig));
    expect(report.failure).toMatchObject({ kind: 'program', message: expect.stringContaining('another way') });
  });

  test('a program that catches the signal does no harm', () => {
    const rig = new Rig();
    rig.map(0, RW);
    const program: ComputeProgram = (ctx) => {
      try {
        ctx.loadI32(addr(1));
      } catch {
        // wrong, but it happens
      }
      try {
        ctx.storeI32(addr(0), ctx.loadI32(addr(0)) + 1);
      } catch {
        // again
      }
    };
    expect(runLaunch(rig.engine(), program, { lanes: 1 }, mapAll(rig)).failure).toBeNull();
    expect(rig.ram[0]).toBe(1);
  });
});

describe('work groups', () => {
  const reduce: ComputeProgram = (ctx) => {
    ctx.storeLocal(ctx.localLane, ctx.loadI32(addr(1, ctx.lane * 4)));
    for (let width = 1; width < ctx.groupSize; width *= 2) {
      ctx.barrier();
      const other = ctx.localLane + width;
      const sum = ctx.localLane % (2 * width) === 0 && other < ctx.groupSize;
      if (sum) ctx.storeLocal(ctx.localLane, ctx.loadLocal(ctx.localLane) + ctx.loadLocal(other));
    }
    if (ctx.localLane === 0) ctx.atomicAdd(addr(0), ctx.loadLocal(0));
  };

  test.each([
    [64, 16],
    [100, 16], // short last group
    [1000, 1000],
    [5, 1],
  ])('a tree reduction with barriers sums %i words in groups of %i', (lanes, groupSize) => {
    const rig = new Rig();
    for (let i = 0; i < lanes; i++) rig.ram[PAGE / 4 + i] = i + 1;
    const report = runLaunch(rig.engine(), reduce, { lanes, groupSize }, mapAll(rig));
    expect(report.failure).toBeNull();
    expect(rig.ram[0]).toBe((lanes * (lanes + 1)) / 2);
  });

  test('lanes that end early do not keep the others at the barrier', () => {
    const rig = new Rig();
    rig.map(0, RWA);
    const program: ComputeProgram = (ctx) => {
      if (ctx.lane % 2 === 1) return;
      ctx.barrier();
      ctx.atomicAdd(addr(0), 1);
    };
    runLaunch(rig.engine(), program, { lanes: 64, groupSize: 8 });
    expect(rig.ram[0]).toBe(32);
  });

  test('work-group memory is zero when a group starts', () => {
    const rig = new Rig();
    rig.map(0, RWA);
    const program: ComputeProgram = (ctx) => {
      ctx.atomicAdd(addr(0), ctx.loadLocal(3));
      ctx.storeLocal(3, 1);
    };
    runLaunch(rig.engine(), program, { lanes: 20, groupSize: 1 });
    expect(rig.ram[0]).toBe(0);
  });
});

describe('failures of a program', () => {
  test.each([
    ['unaligned', addr(0, 2), 'aligned'],
    ['fractional', addr(0, 4.5), 'aligned'],
    ['not a number', Number.NaN, 'not in'],
    ['negative', -4096, 'not in'],
    ['above the user addresses', 2 ** 47, 'not in'],
  ])('%s address: the launch fails with EFAULT and says which lane', (_, address, message) => {
    const rig = new Rig();
    rig.map(0, RWA);
    for (const program of [
      (ctx) => ctx.lane === 2 && ctx.loadI32(address),
      (ctx) => ctx.lane === 2 && ctx.storeF32(address, 0),
      (ctx) => ctx.lane === 2 && ctx.atomicAdd(address, 1),
      (ctx) => ctx.lane === 2 && ctx.loadI32(addr(0)) + ctx.loadI32(address),
    ] as ComputeProgram[]) {
      const { failure } = runLaunch(rig.engine(), program, { lanes: 3 });
      expect(failure).toMatchObject({
        kind: 'fault',
        errno: EFAULT,
        lane: 2,
        message: expect.stringContaining(message),
      });
    }
  });

  test('an exception is the launch failure, and a launch beside it goes on', () => {
    const rig = new Rig();
    rig.map(0, RWA);
    const engine = rig.engine();
    let ended = 0;
    engine.launch(
      (ctx) => void ctx.atomicAdd(addr(0), 1),
      { program: 't', context: 1, lanes: 1000, groupSize: 8, args: {} },
      (report) => {
        expect(report.failure).toBeNull();
        ended++;
      },
    );
    const { failure } = runLaunch(engine, (ctx) => (ctx as unknown as { nothing(): void }).nothing(), { lanes: 9 });
    expect(failure).toMatchObject({ kind: 'program', errno: 0, lane: 0, message: expect.stringContaining('nothing') });
    while (engine.step());
    expect(ended).toBe(1);
    expect(rig.ram[0]).toBe(1000);
  });

  test('local memory outside of its bounds, and an unbound context, are refused', () => {
    const rig = new Rig();
    const engine = rig.engine();
    expect(runLaunch(engine, (ctx) => void ctx.loadLocal(4096), { lanes: 1 }).failure?.message).toMatch(/no word 4096/);
    expect(runLaunch(engine, (ctx) => ctx.storeLocal(-1, 0), { lanes: 1 }).failure?.message).toMatch(/no word -1/);
    expect(runLaunch(engine, () => {}, { lanes: 1, context: 9 }).failure?.message).toMatch(/not bound/);
  });

  test('unbinding a context fails its launches', () => {
    const rig = new Rig();
    const engine = rig.engine();
    const report = runLaunch(
      engine,
      (ctx) => void ctx.loadI32(addr(0)),
      { lanes: 1 },
      () => engine.unbindContext(1),
    );
    expect(report.failure?.message).toMatch(/unbound/);
    expect(engine.runnable).toBe(false);
  });
});

describe('invalidations', () => {
  test('a translation is not used after its fence, and the fence comes while a long lane runs', () => {
    const rig = new Rig();
    rig.map(0, RW);
    const engine = rig.engine();
    let sent = 0;
    const program: ComputeProgram = (ctx) => {
      for (let i = 0; i < 20_000; i++) {
        if (i === 100) {
          rig.tables.unmapRange(rig.root, addr(0), addr(1));
          sent = rig.invalidate(addr(0), addr(1));
        }
        ctx.loadI32(addr(0));
      }
    };
    engine.launch(program, { program: 't', context: 1, lanes: 1, groupSize: 1, args: {} }, () => {});
    engine.step();
    expect(rig.invalidateFence).toBe(sent);
    expect(rig.takeFaults()).toHaveLength(1);
    expect(engine.stats()).toMatchObject({ invalidations: 1, tlbMisses: 2, walks: 2 });
    expect(engine.stats().operations).toBeLessThan(100 + 4096 + 1);
  });

  test('the fence comes while a long log is replayed, too', () => {
    const rig = new Rig();
    rig.map(0, RW);
    const engine = rig.engine();
    let runs = 0;
    let waited = 0;
    const program: ComputeProgram = (ctx) => {
      runs++;
      for (let i = 0; i < 30_000; i++) {
        if (runs === 2 && i === 100) rig.invalidate(addr(9), addr(10));
        if (runs === 2 && i > 100 && rig.invalidateFence === 0) waited++;
        ctx.loadI32(addr(0));
      }
      ctx.loadI32(addr(1));
    };
    runLaunch(engine, program, { lanes: 1 }, () => {
      rig.takeFaults();
      rig.map(1, RW);
      rig.replay();
    });
    expect(runs).toBe(2);
    expect(waited).toBeLessThan(4097);
    expect(waited).toBeGreaterThan(0);
  });

  test('permissions that grew need no invalidation', () => {
    const rig = new Rig();
    rig.map(0, 0);
    const program: ComputeProgram = (ctx) => ctx.storeI32(addr(0), ctx.loadI32(addr(0)) + 1);
    expect(runLaunch(rig.engine(), program, { lanes: 1 }, mapAll(rig, RW))).toMatchObject({ faults: 1, failure: null });
    expect(rig.ram[0]).toBe(1);
  });

  test('an entry that names a memory without a link breaks the device loudly', () => {
    const rig = new Rig();
    rig.tables.map(rig.root, addr(0), 0, (1 << 8) | DEVICE_PTE_VALID);
    expect(() => runLaunch(rig.engine(), (ctx) => void ctx.loadI32(addr(0)), { lanes: 1 })).toThrow(/no link/);
  });
});
