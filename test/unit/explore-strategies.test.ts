/** Strategies on toys whose interleavings can be counted by hand, and the stepper that asks them. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type DfsOptions, dfs } from '#src/sched/explore/dfs';
import { pct } from '#src/sched/explore/pct';
import { randomWalk, roundRobin } from '#src/sched/explore/random';
import { Recorder, replaySchedule } from '#src/sched/explore/replay';
import { parseSchedule, printSchedule, trimmed } from '#src/sched/explore/schedule';
import { Stepper } from '#src/sched/explore/stepper';
import type { Strategy } from '#src/sched/explore/strategy';
import { SCHEDULE_POINT, type Sleeps, waitUntil } from '#src/sync/task';

/** What a toy thread does, step by step: each writes its name down, and touches what its footprint says. */
interface Toy {
  readonly name: string;
  readonly steps: number;
  readonly touches?: number;
}

/** One execution: the order of steps. */
function execute(toys: readonly Toy[], strategy: Strategy): string {
  let order = '';
  const stepper = new Stepper({ footprint: (thread) => toys[thread]!.touches ?? -1 });
  function* run({ name, steps }: Toy): Sleeps<void> {
    for (let step = 0; step < steps; step++) {
      if (step > 0 && stepper.preempt()) yield SCHEDULE_POINT;
      order += name;
    }
  }
  for (const toy of toys) stepper.spawn(toy.name, run(toy));
  stepper.decideBy(strategy);
  stepper.drive(1000);
  strategy.end?.();
  return order;
}

function all(toys: readonly Toy[], options: DfsOptions): string[] {
  const strategy = dfs(options);
  const orders: string[] = [];
  while (strategy.begin()) orders.push(execute(toys, strategy));
  expect(strategy.complete).toBe(true);
  return orders;
}

const preemptionsOf = (order: string, toys: readonly Toy[]): number => {
  const done = new Map<string, number>();
  let preemptions = 0;
  for (const [at, name] of [...order].entries()) {
    done.set(name, (done.get(name) ?? 0) + 1);
    const left = toys.find((toy) => toy.name === name)!.steps - done.get(name)!;
    if (left > 0 && order[at + 1] !== name) preemptions++;
  }
  return preemptions;
};

describe('dfs', () => {
  const two = [
    { name: 'a', steps: 3 },
    { name: 'b', steps: 2 },
  ];
  const three = [
    { name: 'a', steps: 2 },
    { name: 'b', steps: 2 },
    { name: 'c', steps: 2 },
  ];

  test.each([
    ['3 and 2 steps: 5! / (3! 2!)', two, 10],
    ['three times 2 steps: 6! / (2! 2! 2!)', three, 90],
    ['one thread', [{ name: 'a', steps: 4 }], 1],
  ])('all interleavings once (%s)', (_, toys, count) => {
    const orders = all(toys, { reduce: false });
    expect(orders).toHaveLength(count);
    expect(new Set(orders).size).toBe(count);
    // Steps that all touch the same thing do not commute: nothing can be left out.
    expect(all(toys, { reduce: true }).sort()).toEqual(orders.sort());
  });

  test.each([0, 1, 2])('exactly those with up to %i preemptions', (preemptions) => {
    const every = all(three, { reduce: false });
    const expected = every.filter((order) => preemptionsOf(order, three) <= preemptions);
    expect(all(three, { preemptions }).sort()).toEqual(expected.sort());
  });

  test('threads that touch nothing in common need one order, besides those that turn out to be redundant', () => {
    const apart = two.map((toy, at) => ({ ...toy, touches: 1 << at }));
    const strategy = dfs();
    const orders: string[] = [];
    while (strategy.begin()) orders.push(execute(apart, strategy));
    expect(orders.length - strategy.redundant).toBe(1);
    expect(orders.length).toBeLessThan(10);
  });

  test('of threads that touch the same in part, every order of dependent steps is there', () => {
    // c depends on a and on b, which do not depend on each other.
    const toys = [
      { name: 'a', steps: 2, touches: 1 },
      { name: 'b', steps: 2, touches: 2 },
      { name: 'c', steps: 1, touches: 3 },
    ];
    const withoutOf = (order: string, name: string): string => order.replaceAll(name, '');
    const classOf = (order: string): string => `${withoutOf(order, 'b')} ${withoutOf(order, 'a')}`;
    const every = new Set(all(toys, { reduce: false }).map(classOf));
    const reduced = all(toys, { reduce: true });
    expect(new Set(reduced.map(classOf))).toEqual(every);
    expect(reduced.length).toBeLessThan(30);
  });

  test('choices of the environment count as deviations', () => {
    const strategy = dfs({ preemptions: 1 });
    const seen: string[] = [];
    while (strategy.begin()) seen.push([1, 2, 3].map(() => strategy.choose('fail', 2)).join(''));
    expect(seen.sort()).toEqual(['000', '001', '010', '100']);
  });
});

describe('random strategies', () => {
  const toys = [
    { name: 'a', steps: 4 },
    { name: 'b', steps: 4 },
  ];
  const orders = (strategy: Strategy, count: number): string[] =>
    Array.from({ length: count }, () => {
      strategy.begin();
      return execute(toys, strategy);
    });

  test.each([
    ['random', (seed: number) => randomWalk(seed)],
    ['pct', (seed: number) => pct(seed, 3)],
  ])('%s is a function of its seed', (_, make) => {
    expect(orders(make(7), 20)).toEqual(orders(make(7), 20));
    expect(orders(make(7), 20)).not.toEqual(orders(make(8), 20));
  });

  test('a random walk meets all 70 orders', () => {
    expect(new Set(orders(randomWalk(1), 5000)).size).toBe(70);
  });

  test('pct of depth d switches at most d - 1 times while both could run', () => {
    for (const depth of [1, 2, 3]) {
      const worst = Math.max(...orders(pct(3, depth), 300).map((order) => preemptionsOf(order, toys)));
      expect(worst).toBe(depth - 1);
    }
  });

  test('round robin has one execution: nobody is preempted', () => {
    const strategy = roundRobin();
    expect(strategy.begin()).toBe(true);
    expect(execute(toys, strategy)).toBe('aaaabbbb');
    expect(strategy.begin()).toBe(false);
    expect(strategy.complete).toBe(true);
  });
});

describe('schedules', () => {
  test('print as a short word of a shell and parse back', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof({ weight: 5, arbitrary: fc.constant(0) }, fc.nat(40))), (schedule) => {
        const text = printSchedule(schedule);
        expect(text).toMatch(/^[\w.-]+$/);
        expect(parseSchedule(text)).toEqual(trimmed(schedule));
      }),
    );
    expect(printSchedule([0, 0, 0, 0, 1, 0, 2])).toBe('4-1.2');
    expect(printSchedule([0, 0])).toBe('tame');
  });

  test.each(['', '4--1', '4.', 'x!', 'zzzzzz'])('%j is refused', (text) => {
    expect(() => parseSchedule(text)).toThrow(/is no schedule/);
  });

  test('what was recorded replays the same execution', () => {
    const toys = [
      { name: 'a', steps: 3 },
      { name: 'b', steps: 3 },
      { name: 'c', steps: 3 },
    ];
    for (let seed = 0; seed < 50; seed++) {
      const recorder = new Recorder(randomWalk(seed));
      recorder.begin();
      const order = execute(toys, recorder);
      const again = new Recorder(replaySchedule(parseSchedule(printSchedule(recorder.answers))));
      again.begin();
      expect(execute(toys, again)).toBe(order);
      expect(again.fingerprint).toBe(recorder.fingerprint);
      expect(recorder.switches).toBe(preemptionsOf(order, toys));
    }
  });

  test('a schedule that does not fit is refused, unless it is tried for shrinking', () => {
    const run = (lenient: boolean): string =>
      execute(
        [
          { name: 'a', steps: 2 },
          { name: 'b', steps: 1 },
        ],
        replaySchedule([5], { lenient }),
      );
    expect(() => run(false)).toThrow(/the schedule does not fit the program: choice 1 \(run\) has 2 answers, not 6/);
    expect(run(true)).toBe('aab');
  });
});

describe('liveness', () => {
  const stepperOf = (tasks: readonly (readonly [string, (stepper: Stepper) => Sleeps<void>])[]): Stepper => {
    const stepper = new Stepper({ footprint: () => -1 });
    for (const [name, task] of tasks) stepper.spawn(name, task(stepper));
    return stepper;
  };
  function* spin(): Sleeps<void> {
    for (;;) yield SCHEDULE_POINT;
  }

  test('a deadlock names who waits for what', () => {
    const held = { a: false, b: false };
    const taker = (first: 'a' | 'b', second: 'a' | 'b') =>
      function* (): Sleeps<void> {
        yield* waitUntil(`lock ${first}`, () => !held[first]);
        held[first] = true;
        yield SCHEDULE_POINT;
        yield* waitUntil(`lock ${second}`, () => !held[second]);
      };
    const stepper = stepperOf([
      ['A', taker('a', 'b')],
      ['B', taker('b', 'a')],
    ]);
    expect(() => stepper.drive(100)).toThrow('nobody can go on: A waits for lock b; B waits for lock a');
  });

  test('two who give way to each other for ever are a livelock, one who never gets on beside others is starved', () => {
    expect(() =>
      stepperOf([
        ['A', spin],
        ['B', spin],
      ]).drive(100),
    ).toThrow(expect.objectContaining({ kind: 'livelock', message: expect.stringContaining('A: 50 turns') }));
    const done = function* (): Sleeps<void> {};
    expect(() =>
      stepperOf([
        ['A', spin],
        ['B', done],
      ]).drive(100),
    ).toThrow(expect.objectContaining({ kind: 'starvation' }));
  });

  test('whoever waits in a loop is no candidate while others can go on, so that a systematic search ends', () => {
    const strategy = dfs({ reduce: false });
    let executions = 0;
    for (; strategy.begin(); executions++) {
      let open = false;
      const stepper = stepperOf([
        [
          'waits',
          function* () {
            while (!open) yield SCHEDULE_POINT;
          },
        ],
        [
          'opens',
          function* (self) {
            for (let step = 0; step < 3; step++) if (self.preempt()) yield SCHEDULE_POINT;
            open = true;
          },
        ],
      ]);
      stepper.decideBy(strategy);
      stepper.drive(100);
    }
    expect(strategy.complete).toBe(true);
    expect(executions).toBeLessThan(20);
  });
});
