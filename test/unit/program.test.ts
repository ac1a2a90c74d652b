/** Programs as data: the text form both ways, its errors, the builder, the generator, the minimiser. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PfnlessError } from '#src/base/errors';
import { program } from '#src/workload/program/build';
import { generateProgram } from '#src/workload/program/generate';
import { minimizeProgram, simplifications } from '#src/workload/program/minimize';
import { OP_NAMES, OPERATIONS } from '#src/workload/program/operations';
import { parseProgram } from '#src/workload/program/parse';
import { printProgram, printProgramOnOneLine } from '#src/workload/program/print';
import { countCalls, type Program } from '#src/workload/program/program';
import { ProgramSyntaxError } from '#src/workload/program/syntax-error';

const FULL = `# Everything at once?
#
# A second paragraph.
devices 4
pages 4
memory 3
hugepages always
coherent 2
peers 0 1
swap 8
fail_nth 5
inject allocation notifier-retry
process D
init: store 0+8 4294967295
init: todevice 0-3 on 1
A: load 0 -> r
A: read 1+4 on 0 -> x
A: write 1 2 on 0
A: touch 0 on 0
A: fill 0 1 on 1
A: add 0 1 on 1 fail_nth 2
A: tosystem 0-1 on 0
A: exclusive 2 on 0
A: close 0
A: open 0
A: release 1
A: fail_alloc 1
A: uffd_register 0-1 async
A: uffd_protect 0
A: uffd_resolve 0-1
A: uffd_unregister 0
A: uffd_close
A: fork C
B: mmap 0-1 r
B: munmap 2
B: mprotect 0-3 none -> e
B: mremap 0-1 to 2 dontunmap
B: madvise 0 dontneed
B: pin 0 write
B: unpin
B: get 1
B: put
B: mmap 3 rw private-file
B: mmap 2 shared
B: mlock 0-1
B: munlock 0
B: clear_refs
B: soft_dirty 0+4 -> d
D: exit
C: store 3 7
allowed r=1 e=0
allowed r=2
forbidden x=EFAULT
`;

describe('text form', () => {
  test('every operation and property prints as it was written', () => {
    const parsed = parseProgram(FULL);
    expect(printProgram(parsed)).toBe(FULL);
    const used = new Set([...parsed.init, ...parsed.tasks.flatMap(({ calls }) => calls)].map(({ op }) => op));
    expect([...used].sort()).toEqual([...OP_NAMES].sort());
  });

  test('what is printed parses to the same data, on many lines and on one', () => {
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const generated = generateProgram(seed, { tasks: 4, pages: 4 });
        expect(parseProgram(printProgram(generated))).toEqual(generated);
        expect(parseProgram(printProgramOnOneLine(generated))).toEqual({ ...generated, question: [] });
      }),
    );
  });

  test.each([
    ['A: lod 0', 1, 4, 'there is no operation "lod" (did you mean "load"?)'],
    ['A: store 0', 1, 11, 'a word is missing'],
    ['pages 2\nA: store 0+3 1', 2, 10, 'the byte in the page must be a multiple of 4, not 3'],
    ['A: load 0 1', 1, 11, 'there is no room for "1"'],
    ['A: load 0; B: load x', 1, 20, 'a page must be a whole number from 0 to 1023, not "x"'],
    ['A: todevice 0 0', 1, 15, 'here comes "on", and the device'],
    ['A: todevice 3-1 on 0', 1, 13, 'the last page must be a whole number from 3 to 1023, not "1"'],
    ['store 0 1', 1, 1, 'there is no property "store" (put a task before it, as in "A: store")'],
    ['A store 0 1', 1, 1, 'there is no property "A" (write "A: store 0 1")'],
    ['pages 1; Bob  load 0   -> r', 1, 10, 'there is no property "Bob" (write "Bob: load 0 -> r")'],
    ['pags 1', 1, 1, 'there is no property "pags" (did you mean "pages"?)'],
    ['devices 9', 1, 9, 'the number of devices must be a whole number from 0 to 4, not "9"'],
    ['A: load 0 -> r\nallowed r', 2, 9, '"r" is no result: write name=value, as in r=7 or e=EFAULT'],
    ['A: mprotect 0 x', 1, 15, 'the protection must be none, r, rw, not "x"'],
    ['3: load 0', 1, 1, '"3" is no name of a task: use a letter and up to 15 more letters, digits or underscores'],
  ])('%j is refused at its place', (text, line, column, message) => {
    const error = catches(() => parseProgram(text, 'file'));
    expect(error).toBeInstanceOf(ProgramSyntaxError);
    expect(error.message).toBe(`file:${line}:${column}: ${message}.`);
    expect(error).toMatchObject({ code: 'ERR_PFNLESS_SYNTAX', line, column });
  });

  test.each([
    ['A: load 1', 1, 4, 'A: load: there is no page 1: the arena has 1 page'],
    ['pages 2\n\nA: load 0\nA: read 0 on 1', 4, 4, 'A: read: there is no device 1: the program has 1 device'],
    ['devices 2\ninit: open 2\nA: load 0', 2, 7, 'init: open: there is no device 2: the program has 2 devices'],
    ['pages 4; A: mremap 0-1 to 1', 1, 13, 'A: mremap: the old place and the new one overlap'],
    ['coherent 3\nA: load 0', 1, 1, 'coherent: there is no device 3: the program has 1 device'],
    ['devices 2; peers 1 0 1; A: load 0', 1, 12, 'peers: device 1 is named twice'],
    ['coherent 0\npeers 0\nA: load 0', 2, 1, 'device 0 is coherent: peers are devices with private memory'],
    ['A: load 0\nallowed r=1', 2, 1, 'no call has the result "r"'],
    ['A: load 0 -> r\nB: load 0 -> r', 2, 4, 'two calls have the result "r"'],
    ['A: load 0\nA: fork B', 2, 4, 'there is no task "B"'],
    ['A: load 0\nprocess A C', 2, 1, 'there is no task "C"'],
    ['A: load 0\nprocess A\nprocess A', 3, 1, 'task "A" is in two processes'],
    ['A: fork B\nB: fork A', 2, 4, 'task "A" forks itself'],
    ['B: load 0\nA: exit', 2, 4, 'A: exit is for a task that is alone in its process'],
    ['A: exit\nA: load 0', 2, 4, 'A: nothing comes after exit'],
    ['init: fork A; A: load 0', 1, 7, 'init can neither fork nor exit, and has no results'],
    ['A: load 0\ninit: load 0 -> r', 2, 7, 'init can neither fork nor exit, and has no results'],
    [Array.from('ABCDEFGHI', (name) => `${name}:`).join('\n'), 9, 1, 'it has 9 tasks, 8 are allowed'],
  ])('%j does not fit together, and says where', (text, line, column, message) => {
    const error = catches(() => parseProgram(text, 'file'));
    expect(error).toBeInstanceOf(ProgramSyntaxError);
    expect(error).toMatchObject({ name: 'ProgramSyntaxError', code: 'ERR_PFNLESS_SYNTAX', line, column });
    expect(error.message).toBe(`file:${line}:${column}: ${message}.`);
  });

  test('what is wrong with the whole of a program has no place', () => {
    const error = catches(() => parseProgram('pages 1', 'file'));
    expect(error).not.toBeInstanceOf(ProgramSyntaxError);
    expect(error.message).toBe('file: it has no task: write a line such as "A: store 0 1".');
    const many = 'A: load 0\n'.repeat(49);
    expect(catches(() => parseProgram(many)).message).toBe('program: it has 49 calls, 48 are allowed.');
  });

  test('what was never text names its task, and has no place', () => {
    const [name, calls] = ['A', [{ op: 'load', page: 0 }]] as const;
    const made = parseProgram('A: load 0');
    const refused = (tasks: Program['tasks']): string => catches(() => printProgram({ ...made, tasks })).message;
    expect(refused([{ name, calls: [{ op: 'load', page: 5 }] }])).toBe(
      'program: A: load: there is no page 5: the arena has 1 page.',
    );
    expect(refused(Array(2).fill({ name, calls }))).toBe('program: two tasks have the name "A".');
    expect(refused([{ name: 'init', calls }])).toBe('program: "init" is no task: its calls come before all others.');
  });

  test('words may be hexadecimal, and what comes first may stand anywhere', () => {
    const text = 'A: store 0 0x10\nA: add 0 0xFFFFFFFF on 0\nA: load 0 -> r\ninit: store 0 7\nallowed r=0xf';
    const parsed = parseProgram(text);
    expect(parsed.tasks[0]!.calls.map(({ value }) => value)).toEqual([16, 2 ** 32 - 1, undefined]);
    expect(parsed.init).toEqual([{ op: 'store', page: 0, value: 7 }]);
    expect(parsed.allowed).toEqual([{ r: 15 }]);
    expect(printProgram(parsed)).toContain('init: store 0 7\nA: store 0 16\n');
    const wide = catches(() => parseProgram('A: store 0 0x100000000'));
    expect(wide.message).toContain('a word must be a whole number from 0 to 4294967295, not "0x100000000"');
  });
});

describe('builder', () => {
  test('builds what the text says', () => {
    const built = program()
      .question('Is it the same?')
      .devices(2)
      .pages(3)
      .init((init) => init.store([0, 4], 1))
      .task('A', (a) =>
        a
          .toDevice([0, 2], 1)
          .uffdRegister(0, 'async')
          .uffdProtect([0, 1])
          .uffdResolve(0)
          .uffdUnregister(0)
          .uffdClose()
          .fork('C')
          .load(0, 'r')
          .store(1, 2)
          .failNth(3),
      )
      .task('C', (c) => c.mprotect(0, 'r').into('e'))
      .allowed({ r: 0, e: 0 })
      .build();
    const text = `# Is it the same?
devices 2; pages 3
init: store 0+4 1
A: todevice 0-2 on 1; A: uffd_register 0 async; A: uffd_protect 0-1; A: uffd_resolve 0
A: uffd_unregister 0; A: uffd_close; A: fork C; A: load 0 -> r; A: store 1 2 fail_nth 3
C: mprotect 0 r -> e
allowed r=0 e=0`;
    expect(built).toEqual(parseProgram(text));
  });

  test('refuses what the parser refuses', () => {
    expect(catches(() => program().build())).toBeInstanceOf(PfnlessError);
  });
});

describe('generator', () => {
  test('is a pure function of its seed, and uses every operation but exit and userfaultfds over a few hundred seeds', () => {
    const used = new Set<string>();
    for (let seed = 0; seed < 300; seed++) {
      const generated = generateProgram(seed);
      expect(generateProgram(seed)).toEqual(generated);
      for (const { calls } of generated.tasks) for (const { op } of calls) used.add(op);
    }
    expect(OP_NAMES.filter((op) => !used.has(op) && !op.startsWith('uffd_'))).toEqual(['exit']);
  });

  test('swarms: programs differ in which operations they use at all', () => {
    const kinds = Array.from({ length: 50 }, (_, seed) => {
      const { tasks } = generateProgram(seed, { calls: 8 });
      return [...new Set(tasks.flatMap(({ calls }) => calls.map(({ op }) => op)))].sort().join();
    });
    expect(new Set(kinds).size).toBeGreaterThan(40);
  });

  test.each([
    { tasks: 4, calls: 11 },
    { tasks: 1, calls: 45 },
    { pages: 1024, devices: 4 },
  ])('as many as a program may have: %o', (most) => {
    for (let seed = 0; seed < 300; seed++) expect(generateProgram(seed, most).tasks.length).toBeGreaterThan(0);
  });

  test.each([
    [{ seed: 1 }, {}, /seed must be a whole number from 0 to 4294967295, not an object/],
    [-1, {}, /seed .* not -1/],
    [1, null, /options of a generated program must be an object, not null/],
    [1, { tasks: 5 }, /tasks must be a whole number from 1 to 4, not 5/],
    [1, { tasks: 4, calls: 12 }, /calls of a task must be a whole number from 1 to 11, not 12/],
    [1, { pages: 0 }, /pages/],
    [1, { devices: 1.5 }, /devices/],
    [1, { huge: true }, /huge must be one of never, always, sometimes, not true/],
  ])('%o and %o make no program', (seed, options, message) => {
    expect(() => generateProgram(seed as never, options as never)).toThrow(
      expect.objectContaining({ code: 'ERR_PFNLESS_ARGUMENT', message: expect.stringMatching(message) }),
    );
  });
});

test('the page about litmus programs has every operation, in the form in which it is written, and its example parses', () => {
  const page = readFileSync(new URL('../litmus/README.md', import.meta.url), 'utf8');
  const rows = [...page.matchAll(/^\| `(\w+)([^`]*)` \| (.*) \|$/gm)];
  const written = new Map(rows.map(([, name, form, says]) => [name, { words: form!.trim(), says }]));
  for (const op of OP_NAMES) {
    const { args, summary } = OPERATIONS[op];
    const row = written.get(op);
    expect(row?.says, op).toBe(summary);
    // `mremap PAGE[-LAST] to PAGE [dontunmap]`: an argument a word, but for "on" and "to".
    expect(row!.words.split(' ').filter((word) => !['', 'on', 'to'].includes(word)).length, op).toBe(args.length);
  }
  const [, example] = /```\n([\s\S]*?)```/.exec(page)!;
  expect(parseProgram(example!).tasks.map(({ name }) => name)).toEqual(['A', 'B']);
});

describe('minimiser', () => {
  test('finds the three calls, the two tasks and the one page that a planted failure needs', () => {
    const calls = (candidate: Program, task: number) => candidate.tasks[task]?.calls.map(({ op }) => op) ?? [];
    const fails = (candidate: Program): boolean =>
      candidate.tasks.some((_, at) => calls(candidate, at).join().includes('store,load')) &&
      candidate.tasks.some(({ calls: each }) => each.length === 1 && each[0]!.op === 'munmap');
    const large = parseProgram(`
      devices 3; pages 8
      init: store 5 1; init: todevice 0-7 on 2
      A: todevice 3 on 1; A: store 6+8 1; A: load 4 -> r; A: tosystem 6 on 1
      B: munmap 2-6
      C: fork D; C: load 1
      D: store 7 1`);
    const smallest = minimizeProgram(large, fails);
    expect(fails(smallest)).toBe(true);
    expect(countCalls(smallest)).toBe(3);
    expect(smallest).toMatchObject({ devices: 0, pages: 1, init: [] });
    // Minimal: no single step makes it smaller and keeps the failure.
    expect([...simplifications(smallest)].filter((simpler) => fails(simpler) && simpler !== smallest)).toEqual([]);
  });

  test('asks no more often than it may', () => {
    let asked = 0;
    minimizeProgram(generateProgram(3), () => ++asked > 0, 5);
    expect(asked).toBe(5);
  });
});

function catches(call: () => unknown): Error {
  try {
    call();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}
