/**
 * Random programs in which a userfaultfd watches memory, and memory fails, under random schedules: every history must be one that
 * memory can have, every invariant must hold, and nothing may be left. What sleeps until somebody resolves it is not drawn: programs
 * would end in a sleep.
 */
import { describe, expect, test } from 'vitest';
import { createRandom } from '#src/base/random';
import { explore } from '#src/explore/explore';
import { generateProgram } from '#src/workload/program/generate';
import type { Call, Program, UffdFeature } from '#src/workload/program/program';
import { requireProgram } from '#src/workload/program/validate';

const FEATURES: readonly UffdFeature[] = ['async', 'sigbus'];
const UFFD_OPS = [
  'uffd_protect',
  'uffd_protect',
  'uffd_resolve',
  'uffd_unregister',
  'uffd_register',
  'uffd_close',
] as const;

/** A generated program with one or two such calls in each task. */
function watched(seed: number): Program {
  const program = generateProgram(seed);
  const random = createRandom(seed);
  const feature = FEATURES[random.below(FEATURES.length)]!;
  const draw = (): Call => {
    const page = random.below(program.pages);
    const range = { page, last: page + random.below(program.pages - page) };
    if (random.below(3) === 0)
      return { op: 'madvise', ...range, advice: random.below(3) === 0 ? 'soft_offline' : 'hwpoison' };
    const op = UFFD_OPS[random.below(UFFD_OPS.length)]!;
    if (op === 'uffd_close') return { op };
    return op === 'uffd_register' ? { op, ...range, feature } : { op, ...range };
  };
  const tasks = program.tasks.map(({ name, calls }) => {
    const more = [...calls];
    for (let i = 0; i < 2; i++) more.splice(random.below(more.length + 1), 0, draw());
    return { name, calls: more };
  });
  const register: Call = { op: 'uffd_register', page: 0, last: program.pages - 1, feature };
  return requireProgram({ ...program, init: [...program.init, register], tasks });
}

describe.each(['offset', 'legacy'] as const)(
  'random programs with userfaultfd and failing memory (%s)',
  (addressing) => {
    test.each([1, 2, 3, 4])('seeds from %i00 on', (hundred) => {
      for (let seed = hundred * 100; seed < hundred * 100 + 15; seed++) {
        const { failure } = explore(watched(seed), { strategy: 'random', executions: 6, seed, addressing });
        expect(failure === null ? null : `${failure.invariant}: ${failure.message}\n${failure.command}`).toBeNull();
      }
    });
  },
);

test('a store that nobody resolves is a deadlock, and says for what it waits', () => {
  const init: Call[] = [
    { op: 'store', page: 0, value: 1 },
    { op: 'uffd_register', page: 0, last: 0 },
    { op: 'uffd_protect', page: 0, last: 0 },
  ];
  const calls: Call[] = [{ op: 'store', page: 0, value: 2 }];
  const program = requireProgram({
    ...generateProgram(1),
    pages: 1,
    processes: [],
    init,
    tasks: [{ name: 'A', calls }],
  });
  const { failure } = explore(program, { strategy: 'random', executions: 1, shrink: false });
  expect(failure).toMatchObject({
    invariant: 'deadlock',
    message: expect.stringContaining('a userfaultfd, at 0x40000000'),
  });
});
