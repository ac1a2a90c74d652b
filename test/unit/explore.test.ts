/** Exploration as a whole: determinism, the history's judgement, planted mistakes that shrink, what is printed. */
import { describe, expect, test, vi } from 'vitest';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import { TaskCpu } from '#src/explore/cpu';
import { Execution } from '#src/explore/execution';
import { explore, exploreAsync, exploreInParts, replay } from '#src/explore/explore';
import { freshState, type HistoryEvent, linearizable } from '#src/explore/history';
import { Laboratory } from '#src/explore/laboratory';
import { Plan } from '#src/explore/plan';
import { parseRepro, printRepro } from '#src/explore/repro';
import { World, worldSpecOf } from '#src/explore/world';
import { pageTestFlag } from '#src/mm/page';
import { dfs } from '#src/sched/explore/dfs';
import { randomWalk } from '#src/sched/explore/random';
import { Recorder } from '#src/sched/explore/replay';
import { generateProgram } from '#src/workload/program/generate';
import { parseProgram } from '#src/workload/program/parse';
import { countCalls, INJECTIONS } from '#src/workload/program/program';

const STORE_AND_MOVE = 'pages 1; init: store 0 1; A: todevice 0 on 0; B: store 0 7; B: load 0 -> r';

describe('how an exploration is called', () => {
  const program = parseProgram(STORE_AND_MOVE);

  test('in parts it comes to the same', () => {
    const options = { strategy: 'random', executions: 600, seed: 3 } as const;
    const parts = exploreInParts(program, options);
    const seen: number[] = [];
    let part = parts.next();
    for (; !part.done; part = parts.next()) seen.push(part.value);
    expect(seen).toEqual(Array.from({ length: 600 }, (_, i) => i + 1));
    expect(part.value).toEqual(explore(program, options));
  });

  test.each([
    [undefined, /options of an exploration must be an object/],
    [{}, /strategy must be one of random, pct, dfs, round-robin, not undefined/],
    [{ executions: 0 }, /executions must be a whole number from 1 to/],
    [{ seed: 2 ** 32 }, /seed must be a whole number from 0 to 4294967295, not 4294967296/],
    [{ strategy: 'pct', depth: 0 }, /depth of pct/],
    [{ strategy: 'dfs', preemptions: 0.5 }, /preemptions/],
    [{ addressing: 'pageless' }, /addressing must be one of legacy, offset/],
    [{ sites: 'rfc' }, /sites of a kernel must be an object, not "rfc"/],
    [{ shrink: 'no' }, /shrink of an exploration must be true or false/],
    [{ execution: 5 }, /have no "execution" \(did you mean "executions"\?\)/],
    [{ twice: 'yes' }, /twice of an exploration must be true or false/],
    [{ onProgress: true }, /onProgress of an exploration must be a function/],
  ])('options %o are refused', (options, message) => {
    const given = options && Object.keys(options).length > 0 ? { strategy: 'random', ...options } : options;
    expect(() => explore(program, given as never)).toThrow(
      expect.objectContaining({ code: 'ERR_PFNLESS_ARGUMENT', message: expect.stringMatching(message) }),
    );
  });

  test('asynchronously it comes to the same, and the event loop goes on', async () => {
    const options = { strategy: 'random', executions: 600, seed: 3 } as const;
    let ticks = 0;
    const ticking = setInterval(() => ticks++, 1);
    const seen: number[] = [];
    // What a call returns is no matter, but for false.
    const result = await exploreAsync(program, { ...options, onProgress: (done) => seen.push(done) });
    clearInterval(ticking);
    expect(result).toEqual(explore(program, options));
    expect(ticks).toBeGreaterThan(0);
    expect(seen.length).toBeGreaterThan(0);
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
    const stopped = await exploreAsync(program, { strategy: 'random', executions: 1e9, onProgress: () => false });
    expect(stopped).toMatchObject({ complete: false, failure: null });
    await expect(exploreAsync(program, { strategy: 'luck' as never })).rejects.toMatchObject({
      code: 'ERR_PFNLESS_ARGUMENT',
    });
  });

  test('onProgress ends it', () => {
    const { executions, complete, failure } = explore(program, { strategy: 'random', onProgress: () => false });
    expect([executions, complete, failure]).toEqual([256, false, null]);
  });

  test.each([
    ['text', STORE_AND_MOVE],
    ['an object', {}],
    ['tasks alone', { tasks: [] }],
    ['nothing', undefined],
  ])('what is no program is refused with a sentence (%s)', (_what, wrong) => {
    expect(() => explore(wrong as never, { strategy: 'random' })).toThrow(
      expect.objectContaining({
        code: 'ERR_PFNLESS_SYNTAX',
        message: expect.stringMatching(/no program.*parseProgram/),
      }),
    );
  });
});

describe('determinism', () => {
  test.each(['offset', 'legacy'] as const)(
    'each schedule of generated programs goes the same way twice (%s)',
    (addressing) => {
      for (let seed = 0; seed < 40; seed++) {
        const options = { strategy: 'random', executions: 8, seed, addressing, twice: true, shrink: false } as const;
        const { failure } = explore(generateProgram(seed), options);
        expect(failure?.invariant, failure?.command).not.toBe('determinism');
      }
    },
  );

  test('an execution is the same on a new machine and on one that has run many others', () => {
    const program = parseProgram(`${STORE_AND_MOVE}; A: fork C; C: fill 0 3 on 0; C: load 0`);
    const used = new Laboratory('offset');
    // Other programs on the same machine, then the same schedules as on a new one.
    for (let seed = 0; seed < 30; seed++) {
      const other = generateProgram(seed, { devices: 1 });
      if (other.devices === 1) used.search(other, randomWalk(seed), 5);
    }
    const fingerprints = (lab: Laboratory): string[] => {
      const seen: string[] = [];
      lab.search(
        program,
        randomWalk(5),
        100,
        ({ fingerprint, results }) => seen.push(`${fingerprint} ${JSON.stringify(results)}`) > 0,
      );
      return seen;
    };
    expect(fingerprints(used)).toEqual(fingerprints(new Laboratory('offset')));
  });

  test('huge pages, released device memory and exits leave the machine as it was', () => {
    const program = parseProgram(`devices 2; pages 1024; hugepages always
      init: store 0 1; init: store 600 1
      A: todevice 0-511 on 0; A: release 0
      B: todevice 512-1023 on 1; B: release 1; B: load 0
      C: munmap 3; C: madvise 512-1023 dontneed`);
    const plan = new Plan(program);
    const world = new World(worldSpecOf(program, 'offset'));
    const strategy = new Recorder(randomWalk(2));
    for (let count = 0; count < 10; count++) {
      strategy.begin();
      expect(new Execution(world, plan).run(strategy).finding).toBeNull();
      // Asserts that free lists and pagemaps are as at the start.
      world.reset(512);
    }
  });
});

describe('the judgement of histories', () => {
  const at = (begin: number, end: number, effect: HistoryEvent['effect'], slot = 0, maybe = false): HistoryEvent => ({
    ...{ slot, effect, maybe, begin, end, text: '' },
  });
  const store = (value: number) => ({ kind: 'store', value }) as const;
  const load = (value: number) => ({ kind: 'load', value }) as const;
  const judge = (...events: readonly HistoryEvent[]): boolean => linearizable(events, freshState(['mapped', 'mapped']));

  test.each([
    ['a load finds the last store', [at(1, 2, store(5)), at(3, 4, load(5))], true],
    ['a load finds an older one', [at(1, 2, store(5)), at(3, 4, store(6)), at(5, 6, load(5))], false],
    ['a racing load finds either', [at(1, 4, store(5)), at(2, 3, load(0)), at(5, 6, load(5))], true],
    ['values do not come back', [at(1, 8, store(5)), at(2, 3, load(5)), at(4, 5, load(0))], false],
    [
      'two racing stores, one order for all',
      [at(1, 4, store(5)), at(1, 4, store(6)), at(5, 6, load(5)), at(7, 8, load(6))],
      false,
    ],
    [
      'additions are not lost',
      [at(1, 4, { kind: 'add', value: 1 }), at(1, 4, { kind: 'add', value: 2 }), at(5, 6, load(3))],
      true,
    ],
    [
      'an addition is lost',
      [at(1, 4, { kind: 'add', value: 1 }), at(1, 4, { kind: 'add', value: 2 }), at(5, 6, load(2))],
      false,
    ],
    ['a store after munmap', [at(1, 2, { kind: 'unmap' }), at(3, 4, store(1))], false],
    ['refused while it is mapped', [at(1, 2, { kind: 'refused', write: false, excused: false })], false],
    [
      'refused while it races munmap',
      [at(1, 4, { kind: 'unmap' }), at(2, 3, { kind: 'refused', write: false, excused: false })],
      true,
    ],
    [
      'read-only refuses stores alone',
      [at(1, 2, { kind: 'protect', access: 1 }), at(3, 4, { kind: 'refused', write: false, excused: false })],
      false,
    ],
    [
      'the word moves',
      [at(1, 2, store(5)), at(3, 4, { kind: 'move', to: 1, leaves: false }), at(5, 6, load(5), 1)],
      true,
    ],
    ['what failed on the way may have happened', [at(1, 2, { kind: 'unmap' }, 0, true), at(3, 4, load(0))], true],
    [
      'freed lazily, it is there or zero',
      [at(1, 2, store(5)), at(3, 4, { kind: 'lazyfree' }), at(5, 6, load(0)), at(7, 8, load(0))],
      true,
    ],
    [
      'freed lazily, it does not come back',
      [at(1, 2, store(5)), at(3, 4, { kind: 'lazyfree' }), at(5, 6, load(0)), at(7, 8, load(5))],
      false,
    ],
  ])('%s', (_, events, right) => {
    expect(judge(...(events as HistoryEvent[]))).toBe(right);
  });
});

describe('search', () => {
  test('a reduced search and a full one find the same outcomes', () => {
    const programs = [
      STORE_AND_MOVE,
      'pages 1; A: store 0 1; B: store 0 2; B: load 0 -> b; C: madvise 0 dontneed',
      'devices 2; pages 1; process B; A: todevice 0 on 0 -> a; B: todevice 0 on 1 -> b',
      'inject cpus; pages 1; init: store 0 1; A: madvise 0 dontneed; A: load 0 -> a; B: store 0 7; B: load 0 -> b',
      'inject trylock-lost; pages 1; init: store 0 1; A: todevice 0 on 0 -> a; B: load 0 -> b',
    ];
    for (const text of programs) {
      const outcomes = [true, false].map((reduce) => {
        const seen = new Set<string>();
        const strategy = dfs({ reduce });
        const found = new Laboratory('offset').search(
          parseProgram(text),
          strategy,
          20_000,
          ({ results }) => seen.add(JSON.stringify(Object.entries(results).sort())).size > 0,
        );
        expect(found).toBeNull();
        expect(strategy.complete).toBe(true);
        return [...seen].sort();
      });
      expect(outcomes[0]).toEqual(outcomes[1]);
    }
  });

  test('processes that share no device need one order', () => {
    const text = 'devices 2; pages 1; process B; A: todevice 0 on 0; B: todevice 0 on 1';
    const { executions, redundant, complete } = explore(parseProgram(text), { strategy: 'dfs' });
    expect(complete).toBe(true);
    expect(executions - redundant).toBeLessThanOrEqual(4);
  });

  test.each(INJECTIONS)('memory is what it was, whatever happens meanwhile: %s', (injection) => {
    const programs = [
      `pages 2; swap 4; init: store 0 1; A: todevice 0-1 on 0; A: fork C; A: fill 0 9 on 0; B: store 1 2; B: load 0; C: load 0`,
      `devices 2; memory 1; pages 2; init: fill 0 1 on 0; A: fill 1 2 on 0; A: madvise 0 pageout; B: add 0 3 on 1; B: load 1`,
    ];
    for (const text of programs) {
      const program = { ...parseProgram(text), inject: [injection] };
      const { failure } = explore(program, { strategy: 'random', executions: 60, shrink: false });
      expect(failure?.command ?? null).toBeNull();
    }
  });

  test('an allocation that fails inside of one call is that call alone', () => {
    const text = 'init: store 0 1; A: fork C -> e fail_nth 2; A: load 0 -> a; B: store 0+8 2; C: load 0';
    const { failure, outcomes } = explore(parseProgram(text), { strategy: 'dfs' });
    expect(failure).toBeNull();
    expect(Object.keys(outcomes)).toEqual(['a=1 e=ENOMEM']);
  });
});

describe('failures', () => {
  /** A word that can only be 0 or 7 is said never to be 7. */
  const planted = parseProgram(`devices 2; pages 4
    init: todevice 0-3 on 1
    A: store 1 3; A: todevice 2 on 0; A: store 2 7; A: tosystem 2 on 0
    B: load 3; B: load 2 -> r; B: munmap 1
    C: fork D; C: madvise 0 dontneed
    D: touch 0 on 1
    forbidden r=7`);

  test('shrink to the fewest calls and context switches, and replay from the printed line', () => {
    const { failure } = explore(planted, { strategy: 'random', executions: 2000 });
    expect(failure).toMatchObject({ invariant: 'outcome', message: 'r=7 is forbidden' });
    // A store and a load, one after the other: no switch is needed.
    expect(countCalls(failure!.program)).toBe(2);
    expect(failure!.program).toMatchObject({ devices: 0, pages: 1, init: [] });
    const repro = parseRepro(failure!.repro);
    expect(printRepro(repro)).toBe(failure!.repro);
    expect(replay(repro)).toMatchObject({ finding: { invariant: 'outcome' }, results: { r: 7 } });
    expect(replay(printRepro(repro))).toEqual(replay(repro));
    expect(failure!.command).toBe(`npx pfnless replay '${failure!.repro}'`);
  });

  test('a story has a column for each thread and a line for each step', () => {
    const { story } = replay(parseRepro(`v1 offset tame devices 1; ${STORE_AND_MOVE}`));
    const [titles] = story.split('\n');
    expect(titles!.split('|').map((title) => title.trim())).toEqual(['init', 'A', 'gpu0', 'B']);
    expect(story).toMatch(/copy fence/);
    expect(story).toMatch(/= 7/);
  });

  test('a lost word is found: the history has no order', () => {
    const program = parseProgram('devices 0; pages 1; A: store 0 5; A: load 0');
    const world = new World(worldSpecOf(program, 'offset'));
    const { kernel } = world.state;
    const strategy = new Recorder(randomWalk(1));
    strategy.begin();
    // A bit flips in every frame that holds the word, whenever a checker of the machine looks away.
    const flip = () => {
      const { halves } = kernel.ram;
      for (let at = 0; at < halves.length; at++) if (halves[at] === 5) halves[at] = 4;
    };
    const stepped = strategy.stepped.bind(strategy);
    strategy.stepped = (thread, footprint) => {
      flip();
      stepped(thread, footprint);
    };
    expect(new Execution(world, new Plan(program)).run(strategy).finding).toMatchObject({ invariant: 'last-writer' });
  });

  test('a CPU that goes on with old translations is found: its store comes after the copy', () => {
    const program = parseProgram('inject cpus; pages 1; init: store 0 1; A: todevice 0 on 0; B: store 0 7; B: load 0');
    const deaf = vi.spyOn(TaskCpu.prototype, 'awaitFlush').mockImplementation(() => {});
    try {
      const { failure } = explore(program, { strategy: 'dfs', preemptions: 2, shrink: false });
      expect(failure?.invariant).toMatch(/cpu-tlb|last-writer|every-byte/);
    } finally {
      deaf.mockRestore();
    }
  });

  test('who needs very many tries is found, although all comes to an end', () => {
    const world = new World(worldSpecOf(planted, 'offset'));
    const strategy = new Recorder(randomWalk(1));
    strategy.begin();
    const stepped = strategy.stepped.bind(strategy);
    strategy.stepped = (thread, footprint) => {
      world.state.kernel.stats.cpuFaults += 100;
      stepped(thread, footprint);
    };
    const { finding } = new Execution(world, new Plan({ ...planted, forbidden: [] })).run(strategy);
    expect(finding).toMatchObject({
      invariant: 'starvation',
      message: expect.stringMatching(/calls for \d+ pages took \d+ CPU faults/),
    });
  });

  test('a frame that is not given back is found', () => {
    const program = parseProgram('devices 0; pages 1; A: store 0 5');
    const world = new World(worldSpecOf(program, 'offset'));
    const strategy = new Recorder(randomWalk(1));
    strategy.begin();
    world.state.kernel.buddy.allocPages(0);
    const { finding } = new Execution(world, new Plan(program)).run(strategy);
    expect(finding?.invariant).toMatch(/page-accounting|nothing-left|assertion/);
  });

  test('the machine has one free block of each order but the largest', () => {
    const { kernel } = new World(worldSpecOf(planted, 'legacy')).state;
    expect(kernel.buddy.stats().every(({ order, freeBlocks }) => order === 9 || freeBlocks === 1)).toBe(true);
    expect(pageTestFlag(kernel.memmap.words, kernel.zeroPage, PAGE_FLAGS.PG_reserved)).toBe(true);
  });
});
