import { describe, expect, it } from 'vitest';
import { randomChooser, roundRobin } from '#src/sched/choice';
import type { Actor } from '#src/sched/executor';
import { InlineExecutor } from '#src/sched/inline-executor';
import { SCHEDULE_POINT, type Sleeps, waitUntil } from '#src/sync/task';

function* walker(name: string, log: string[], steps: number): Sleeps<string> {
  for (let step = 0; step < steps; step++) {
    log.push(`${name}${step}`);
    yield SCHEDULE_POINT;
  }
  return name;
}

function counter(name: string, log: string[], steps: number): Actor {
  let left = steps;
  return {
    name,
    get runnable() {
      return left > 0;
    },
    step() {
      log.push(`${name}${steps - left--}`);
      return true;
    },
  };
}

async function threeTasksAndADevice(chooser: { choose(point: string, n: number): number }): Promise<string[]> {
  const executor = new InlineExecutor({ chooser });
  const log: string[] = [];
  executor.addActor(counter('d', log, 4));
  await Promise.all(['a', 'b', 'c'].map((name) => executor.run(name, walker(name, log, 4))));
  await executor.settle();
  return log;
}

describe('inline executor', () => {
  it('resolves with what the task returns and rejects with what it throws', async () => {
    const executor = new InlineExecutor({ chooser: roundRobin() });
    expect(await executor.run('a', walker('a', [], 3))).toBe('a');
    const failing = (function* (): Sleeps<void> {
      yield SCHEDULE_POINT;
      throw new RangeError('no');
    })();
    await expect(executor.run('b', failing)).rejects.toThrow(RangeError);
  });

  it('is a function of the choices: the same seed gives the same order', async () => {
    for (const seed of [1, 2, 3]) {
      expect(await threeTasksAndADevice(randomChooser(seed))).toEqual(await threeTasksAndADevice(randomChooser(seed)));
    }
  });

  it('gives other orders to other seeds', async () => {
    const orders = new Set<string>();
    for (let seed = 0; seed < 20; seed++) orders.add((await threeTasksAndADevice(randomChooser(seed))).join());
    expect(orders.size).toBeGreaterThan(15);
  });

  it('is fair when every choice is 0: tasks and devices take turns', async () => {
    const log = await threeTasksAndADevice(roundRobin());
    expect(log).toEqual([0, 1, 2, 3].flatMap((step) => ['a', 'b', 'c', 'd'].map((name) => `${name}${step}`)));
  });

  it('is fair to those who wait while short tasks come one after the other', async () => {
    const executor = new InlineExecutor({ chooser: roundRobin() });
    const log: string[] = [];
    executor.addActor(counter('d', log, 4));
    const long = executor.run('a', walker('a', log, 4)).then(() => log.push('end'));
    let short = 0;
    for (; !log.includes('end') && short < 100; short++) await executor.run('b', walker('b', log, 1));
    await long;
    expect(short).toBeLessThan(10);
    expect(log).toContain('d3');
  });

  it('passes over a device that makes no progress until somebody else makes some', async () => {
    const executor = new InlineExecutor({ chooser: roundRobin() });
    let fed = false;
    let done = false;
    let idleSteps = 0;
    executor.addActor({
      name: 'd',
      runnable: true,
      step: () => {
        if (!fed) idleSteps++;
        const progress = fed && !done;
        done = fed;
        return progress;
      },
    });
    function* feeder(): Sleeps<void> {
      yield SCHEDULE_POINT;
      fed = true;
      yield* waitUntil('the device', () => done);
    }
    await executor.run('feeder', feeder());
    expect(idleSteps).toBeLessThanOrEqual(2);
  });

  it('calls a deadlock by name, rejects everybody in it, and goes on', async () => {
    const executor = new InlineExecutor({ chooser: roundRobin() });
    executor.background('fault service', waitUntil('a fault', () => false) as Sleeps<never>);
    const first = executor.run(
      'migrate',
      waitUntil('copy fence 12 of device 0', () => false),
    );
    const second = executor.run(
      'munmap',
      waitUntil('mmap_lock of mm 3 (write)', () => false),
    );
    const outcomes = await Promise.allSettled([first, second]);
    for (const outcome of outcomes) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'ERR_PFNLESS_DEADLOCK' } });
    }
    await expect(first).rejects.toThrow(
      'Nobody can go on: migrate waits for copy fence 12 of device 0; munmap waits for mmap_lock of mm 3 (write)',
    );
    expect(await executor.run('next', walker('n', [], 1))).toBe('n');
  });

  it('gives a chain of promises its time before it calls a deadlock', async () => {
    const executor = new InlineExecutor({ chooser: roundRobin() });
    let done = false;
    const report = async (hops: number): Promise<void> => (hops === 0 ? undefined : report(hops - 1));
    void report(20).then(() => {
      done = true;
    });
    await executor.run(
      'launch',
      waitUntil('the launch', () => done),
    );
  });

  it('stands still while something outside is under way', async () => {
    let outside = true;
    const executor = new InlineExecutor({ chooser: roundRobin(), outside: () => outside });
    const log: string[] = [];
    const run = executor.run('a', walker('a', log, 2));
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(log).toEqual([]);
    outside = false;
    await run;
    expect(log).toEqual(['a0', 'a1']);
  });

  it('lets the caller go on between the ends of two tasks', async () => {
    const executor = new InlineExecutor({ chooser: roundRobin() });
    const log: string[] = [];
    const long = executor.run('long', walker('l', log, 6));
    await executor.run('short', walker('s', log, 1));
    await executor.run('next', walker('n', log, 1));
    expect(log).not.toContain('l5');
    await long;
  });

  it('lets the event loop have its turn while a caller runs task after task', async () => {
    const executor = new InlineExecutor({ chooser: roundRobin() });
    let turns = 0;
    let over = false;
    const count = (): void => {
      turns++;
      if (!over) setImmediate(count);
    };
    setImmediate(count);
    for (let task = 0; task < 20; task++) await executor.run('short', walker('s', [], 1));
    over = true;
    expect(turns).toBeGreaterThanOrEqual(19);
  });

  it('stop rejects what is in flight and what comes after', async () => {
    const executor = new InlineExecutor({ chooser: roundRobin() });
    const stuck = executor.run(
      'a',
      waitUntil('nothing', () => false),
    );
    const settling = executor.settle();
    executor.stop(new Error('over'));
    await expect(stuck).rejects.toThrow('over');
    await expect(settling).rejects.toThrow('over');
    await expect(executor.run('b', walker('b', [], 1))).rejects.toThrow('over');
  });

  it('ends with what a background task throws', async () => {
    const executor = new InlineExecutor({ chooser: roundRobin() });
    const broken = (function* (): Sleeps<never> {
      yield SCHEDULE_POINT;
      throw new Error('broken service');
    })();
    executor.background('service', broken);
    await expect(
      executor.run(
        'a',
        waitUntil('nothing', () => false),
      ),
    ).rejects.toThrow('broken service');
  });

  it('preempts never when every choice is 0, sometimes when they are random', () => {
    const tame = new InlineExecutor({ chooser: roundRobin() });
    const wild = new InlineExecutor({ chooser: randomChooser(1) });
    const count = (executor: InlineExecutor) =>
      Array.from({ length: 800 }, () => executor.preempt('preempt task')).filter(Boolean).length;
    expect(count(tame)).toBe(0);
    expect(count(wild)).toBeGreaterThan(50);
    expect(count(wild)).toBeLessThan(200);
  });
});
