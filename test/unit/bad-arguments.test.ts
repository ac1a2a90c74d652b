/** What callers may hand to the API and should not: each is refused with a sentence, at once, and the machine goes on. */

import * as pfnless from 'pfnless';
import { parseRepro, printRepro } from 'pfnless';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const PAGE = 4096;
const WHOLE = 'pages 4; devices 2; A: store 0 1; B: load 0 -> r';

const refusal = (code: string, message: RegExp) =>
  expect.objectContaining({ name: expect.stringMatching('Error'), code, message: expect.stringMatching(message) });
const ARGUMENT = (message: RegExp) => refusal('ERR_PFNLESS_ARGUMENT', message);
const SYNTAX = (message: RegExp) => refusal('ERR_PFNLESS_SYNTAX', message);

let machine: pfnless.Machine;
let process: pfnless.Process;
let range: pfnless.VirtRange;
let mirror: pfnless.Mirror;

beforeAll(async () => {
  machine = await pfnless.boot({ executor: 'inline', memory: { ram: '64MiB' }, devices: 1 });
  process = await machine.process();
  range = await process.mmap({ length: 16 * PAGE });
  mirror = await process.mirror(0);
});
afterAll(async () => {
  expect(await machine.check()).toEqual([]);
  await machine.dispose();
});

const detached = (): Uint8Array => {
  const bytes = new Uint8Array(8);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
};

describe('a machine', () => {
  type Call = () => Promise<unknown>;
  const HUGE = { start: 0 as pfnless.VirtAddr, length: 2 ** 46 };
  const CALLS: readonly (readonly [string, Call, RegExp])[] = [
    ['pagemap of 64 TiB', () => process.pagemap(HUGE), /pages in one look must be a whole number from 1 to 4194304/],
    ['mincore of 64 TiB', () => process.mincore(HUGE), /in one look/],
    ['readPages of 64 TiB', () => mirror.readPages(HUGE), /in one look/],
    ['peekPages of 64 TiB', () => mirror.peekPages(HUGE), /in one look/],
    ['snapshot of 64 TiB', () => mirror.snapshot(HUGE), /in one look/],
    ['isExclusive of 64 TiB', () => mirror.isExclusive(HUGE), /in one look/],
    ['mlock with null', () => process.mlock(range, null as never), /options of mlock must be an object, not null/],
    ['mlock with a flag', () => process.mlock(range, true as never), /options of mlock must be an object, not true/],
    ['a mirror by policy', () => process.mirror(0, 'mirror' as never), /options of a mirror must be an object/],
    [
      'a misspelt option',
      () => process.mirror(0, { onfault: 'mirror' } as never),
      /no "onfault" \(did you mean "onFault"\?\)\./,
    ],
    ['a short option', () => process.mmap({ length: 1, prot: 'r' } as never), /options of mmap have no "prot"/],
    ['an option of mremap', () => process.mremap(range, { size: 1 } as never), /options of mremap have no "size"/],
    [
      'an option of a pin',
      () => process.pin(range, { writable: true } as never),
      /options of a pin have no "writable"/,
    ],
    [
      'an option of a launch',
      () => mirror.launch('touch', { lanes: 1, arg: {} } as never),
      /launch have no "arg" \(did you mean "args"\?\)\./,
    ],
    ['a field of a file', () => machine.file({ size: 1, name: 'x' } as never), /fields of a new file have no "name"/],
    ['detached bytes', () => process.write(range.start, detached()), /detached/],
    ['detached values', () => process.writeArray('u8', range.start, detached()), /detached/],
    ['a file of detached bytes', () => machine.file(detached()), /detached/],
    [
      'a word too many',
      () => mirror.writePages({ ...range, length: PAGE }, [2n ** 64n]),
      /of 64 bits, not 18446744073709551616n/,
    ],
    ['a negative word', () => mirror.writePages({ ...range, length: PAGE }, [-1n]), /of 64 bits, not -1n/],
    ['a device by object', () => process.mirror({} as never), /by its number or its name, not by an object/],
  ];
  test.each(CALLS)('%s', async (_what, call, message) => {
    let pending: Promise<unknown> | undefined;
    expect(() => (pending = call())).not.toThrow();
    await expect(pending).rejects.toEqual(ARGUMENT(message));
  });

  test('a range is read once: who called may change it at once', async () => {
    const page = { start: range.start, length: PAGE };
    const looks = [process.pagemap(page), process.mincore(page), mirror.snapshot(page)] as const;
    page.length = -5;
    expect((await Promise.all(looks)).map(({ length }) => length)).toEqual([1, 1, 1]);
  });

  test.each(['inline', 'threads'] as const)(
    'an asynchronous program is refused, and harms nobody (%s)',
    async (executor) => {
      await using other = await pfnless.boot({ executor, memory: { ram: '64MiB' }, devices: 1 });
      const owner = await other.process();
      const { start } = await owner.mmap({ length: PAGE });
      const gpu = await owner.mirror(0);
      const bodies = ['c.storeI32(a.t, 7)', 'throw new Error("late")', 'await null; c.storeI32(a.t, 9)'];
      for (const body of bodies) {
        const program = `data:text/javascript,export default async (c, a) => { ${body} }`;
        await expect(gpu.launch(program, { lanes: 2, args: { t: start } })).rejects.toEqual(
          refusal('ERR_PFNLESS_PROGRAM', /is asynchronous: a compute program is a plain function/),
        );
      }
      await gpu.launch('touch', { lanes: 1, args: { target: start, count: 1, stride: 4 } });
      expect(await other.check()).toEqual([]);
    },
  );

  test.each([
    ['a generator', 'function* (c, a) { c.storeI32(a.t, 7) }'],
    ['a function of a function', '(c, a) => () => c.storeI32(a.t, 7)'],
  ])('%s is no program: it would never begin', async (_what, body) => {
    const launched = mirror.launch(`data:text/javascript,export default ${body}`, {
      lanes: 1,
      args: { t: range.start },
    });
    await expect(launched).rejects.toEqual(
      refusal('ERR_PFNLESS_PROGRAM', /returns something that would have to be called/),
    );
  });

  test('an option of resolve', async () => {
    await using userfaultfd = await process.userfaultfd();
    await expect(userfaultfd.resolve(range, { awake: true } as never)).rejects.toEqual(
      ARGUMENT(/options of resolve have no "awake"/),
    );
    await expect(userfaultfd.resolve(range, null as never)).rejects.toEqual(
      ARGUMENT(/options of resolve must be an object/),
    );
  });

  test('what comes with the package cannot be changed', () => {
    expect(() => Object.assign(pfnless.workloads[0]!.sizes, { max: 0 })).toThrow(TypeError);
    expect(() => Object.assign(pfnless.MACHINE_PRESETS.laptop.spec, { seed: 'boo' })).toThrow(TypeError);
    expect(() => (pfnless.REVISIONS as unknown as string[]).push('v9')).toThrow(TypeError);
    expect(() => Object.assign(pfnless.CHECK_SITES[0]!, { id: 'other' })).toThrow(TypeError);
  });

  test.each([
    [{ seed: 5n }, /seed must be a whole number from 0 to 4294967295, not 5n/],
    [{ seed: Number.NaN }, /not NaN/],
    [{ memory: { ram: 2n ** 30n } }, /memory\.ram must be a size.*not 1073741824n/],
  ])('spec %o', (spec, message) => {
    expect(() => pfnless.parseMachineSpec(spec as never)).toThrow(refusal('ERR_PFNLESS_SPEC', message));
  });
});

describe('a workload', () => {
  const good = pfnless.workloads[0]!;
  const now = () => 0;
  const run = (workload: unknown, options: object) =>
    pfnless.runWorkload(machine, workload as pfnless.Workload, { devices: 1, seed: 1, now, ...options });
  const verdict = { verified: true, checked: 1, expectFaults: 0, expectMigrations: 0 };
  test.each([
    ['a name', 'vector-add', {}, /workload must be an object, not "vector-add"/],
    ['no clock', good, { now: 12 }, /now of a run must be a function, not 12/],
    ['a seed in words', good, { seed: 'x' }, /seed must be a whole number/],
    ['no sizes', { ...good, sizes: {} }, {}, /smallest size of vector-add must be a whole number/],
    ['a clock of words', good, { now: () => 'noon' }, /now of a run must return milliseconds, not "noon"/],
    ['an option', good, { device: 1 }, /options of a run have no "device"/],
    ['no run', { ...good, run: undefined }, {}, /run of vector-add must be a function/],
    [
      'a footprint of NaN',
      { ...good, footprint: () => Number.NaN },
      {},
      /footprint of vector-add must be a whole number.*NaN/,
    ],
  ])('%s is refused before anything runs', async (_what, workload, options, message) => {
    const before = (await machine.stats()).freeRamPages;
    await expect(run(workload, options)).rejects.toEqual(ARGUMENT(message));
    expect((await machine.stats()).freeRamPages).toBe(before);
  });

  test.each([
    ['throws', () => Promise.reject(new RangeError('mine')), { error: expect.objectContaining({ message: 'mine' }) }],
    ['has no verdict', () => Promise.resolve(undefined), { result: /verdict of a workload must be an object/ }],
    ['has half a verdict', () => Promise.resolve({ ...verdict, verified: 'no' }), { result: /verified of a verdict/ }],
  ])('one that %s leaves no process behind', async (_what, body, expected) => {
    const before = (await machine.stats()).freeRamPages;
    const ended = run({ ...good, run: body }, {});
    if ('error' in expected) await expect(ended).rejects.toEqual(expected.error);
    else expect(await ended).toMatchObject({ ok: false, error: expect.stringMatching(expected.result) });
    expect((await machine.stats()).freeRamPages).toBe(before);
  });
});

describe('a program', () => {
  const built = (write: (builder: pfnless.ProgramBuilder) => unknown) => () => {
    const builder = pfnless.program().pages(4).devices(2);
    write(builder);
    return builder.task('B', (b) => b.load(0)).build();
  };
  test.each([
    [
      'a negative word',
      built((p) => p.task('A', (a) => a.store(0, -1))),
      /tasks\[0\]\.calls\[0\]\.value must be a whole number from 0 to 4294967295, not -1/,
    ],
    [
      'an odd byte',
      built((p) => p.task('A', (a) => a.load([0, 2]))),
      /offset must be a multiple of 4 from 0 to 4092, not 2/,
    ],
    ['no page', built((p) => p.task('A', (a) => a.load(undefined as never))), /load: it needs page/],
    [
      'a page by object',
      built((p) => p.task('A', (a) => a.load({} as never))),
      /page must be a whole number from 0 to 1023, not an object/,
    ],
    [
      'a page by bigint',
      built((p) => p.task('A', (a) => a.munmap(5n as never))),
      /page must be a whole number from 0 to 1023, not 5n/,
    ],
    ['a process of nobody', built((p) => p.process()), /processes\[0\] must have a task/],
    ['an outcome of nothing', built((p) => p.allowed({})), /allowed\[0\] must have a result/],
    ['a reversed range', built((p) => p.task('A', (a) => a.munmap([2, 1]))), /ends before it begins: 2-1/],
    [
      'a device below 0',
      built((p) => p.task('A', (a) => a.toDevice([0, 1], -1))),
      /device must be a whole number from 0 to 3, not -1/,
    ],
    [
      'an advice by number',
      built((p) => p.task('A', (a) => a.madvise(0, 5 as never))),
      /advice must be dontneed, .*not 5/,
    ],
    [
      'a loud protection',
      built((p) => p.task('A', (a) => a.mprotect(0, 'RW' as never))),
      /protection must be none, r, rw, not "RW"/,
    ],
    ['no injection', built((p) => p.inject('nope' as never)), /inject\[0\] must be/],
    ['pages of NaN', built((p) => p.pages(Number.NaN)), /pages must be a whole number from 1 to 1024, not NaN/],
    ['a hundred devices', built((p) => p.devices(100)), /devices must be a whole number from 0 to 4, not 100/],
    [
      'a name of two',
      built((p) => p.task('A;B', (a) => a.load(0))),
      /name must be a letter and up to 15 more letters, digits or underscores, not "A;B"/,
    ],
    ['a question of two lines', built((p) => p.question('a\nB: munmap 0')), /question\[0\] must be one line/],
    ['no outcome', built((p) => p.allowed(null as never)), /allowed\[0\] must be results/],
    [
      'a task of nothing',
      () => pfnless.explore({ tasks: [null], init: [], processes: [] } as never, { strategy: 'random' }),
      /program: /,
    ],
    [
      'an unknown operation',
      () =>
        pfnless.explore({ ...pfnless.parseProgram(WHOLE), init: [{ op: 'nope' }] } as never, { strategy: 'random' }),
      /init\[0\]\.op must be load, /,
    ],
    [
      'a field of another',
      () => pfnless.printProgram({ ...pfnless.parseProgram(WHOLE), init: [{ op: 'put', page: 1 }] }),
      /put: it has no page/,
    ],
    ['text to print', () => pfnless.printProgram('A: load 0' as never), /no program/],
    ['text to minimise', () => pfnless.minimizeProgram('A: load 0' as never, () => true), /no program/],
    [
      'a property twice',
      () => pfnless.parseProgram('devices 1\ndevices 2\nA: load 0'),
      /2:1: devices is given already/,
    ],
    ['a value twice', () => pfnless.parseProgram('A: load 0 -> r\nallowed r=1 r=2'), /r has a value already/],
    ['a result of the prototype', () => pfnless.parseProgram('A: load 0 -> __proto__'), /no name of a result/],
  ])('%s', (_what, call, message) => {
    expect(call).toThrow(SYNTAX(message));
  });

  test.each([
    ['no text', () => pfnless.parseProgram(undefined as never), /text of a program must be a string, not undefined/],
    ['a result of no call', built((p) => p.task('A', (a) => a.into('r'))), /no call yet that into could be for/],
    ['a task of nothing', built((p) => p.task('A', undefined as never)), /must be a function, not undefined/],
    [
      'nothing to ask',
      () => pfnless.minimizeProgram(pfnless.parseProgram(WHOLE), undefined as never),
      /must be a function/,
    ],
    [
      'half a budget',
      () => pfnless.minimizeProgram(pfnless.parseProgram(WHOLE), () => true, 0.5),
      /budget must be a whole number/,
    ],
    [
      'an answer that is none',
      () => pfnless.minimizeProgram(pfnless.parseProgram(WHOLE), (async () => false) as never),
      /program still fails must be true or false, not a Promise/,
    ],
    [
      'a site that is none',
      () => pfnless.replay({ ...parseRepro(`v1 offset tame ${WHOLE}`), sites: { forget: ['bogus'] } }),
      /no check site: there is no "bogus"/,
    ],
    [
      'a field of a machine',
      () => pfnless.replay({ ...parseRepro(`v1 offset tame ${WHOLE}`), sites: { addressing: 'legacy' } as never }),
      /sites of a kernel have no "addressing"/,
    ],
    [
      'no revision',
      () => pfnless.replay({ ...parseRepro(`v1 offset tame ${WHOLE}`), sites: { revision: 'v77' as never } }),
      /revision must be one of rfc, /,
    ],
    ['a repro of nothing', () => parseRepro(5 as never), /repro must be a string, not 5/],
    ['a replay of a number', () => pfnless.replay(5 as never), /must be an object/],
    ['a replay of nothing', () => pfnless.replay({} as never), /addressing must be one of legacy, offset/],
    [
      'half a choice',
      () => pfnless.replay({ ...parseRepro(`v1 offset tame ${WHOLE}`), schedule: [1.5] }),
      /answer of the schedule must be a whole number/,
    ],
    ['a print of nothing', () => printRepro({} as never), /addressing/],
  ])('%s is no argument', (_what, call, message) => {
    expect(call).toThrow(ARGUMENT(message));
  });

  test('a schedule that goes on when all is over does not fit', () => {
    expect(() => pfnless.replay(parseRepro('v1 offset zz A: load 0'))).toThrow(
      SYNTAX(/does not fit the program: it answers 1296 choices, and there were \d+/),
    );
  });

  test('a kernel has one revision', () => {
    expect(() => parseRepro(`v1 offset,v1,v3 tame ${WHOLE}`)).toThrow(SYNTAX(/one revision, not v1 and v3/));
  });

  test('a task without calls is no failure', () => {
    const { failure, executions } = pfnless.explore(pfnless.parseProgram('A:'), { strategy: 'random', executions: 3 });
    expect([failure, executions]).toEqual([null, 3]);
  });
});
