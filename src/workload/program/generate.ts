/**
 * Random programs from a seed, by swarm testing: each program enables a random subset of the operations, so that some programs
 * are dense in what others never do (Groce and others, ISSTA 2012).
 */
import { createRandom, type Random } from '../../base/random.js';
import { argumentsOf, OP_NAMES, type OpName } from './operations.js';
import { type Advice, type Call, EMPTY_PROGRAM, type Program, type Protection } from './program.js';
import { requireProgram } from './validate.js';

export interface GenerateOptions {
  /** Most tasks, 1..4. Default 3. */
  readonly tasks?: number;
  /** Most calls of a task. Default 4. */
  readonly calls?: number;
  /** Most pages. Default 3. */
  readonly pages?: number;
  /** Most devices, 1..4. Default 2. */
  readonly devices?: number;
}

/** What needs care to be placed right is not drawn like the others: a store that nobody resolves sleeps for ever. */
const NEVER_DRAWN: readonly OpName[] = [
  'exit',
  'fork',
  'uffd_register',
  'uffd_unregister',
  'uffd_protect',
  'uffd_resolve',
  'uffd_close',
];
/** Always enabled: a program that looks at nothing finds nothing. */
const ALWAYS: readonly OpName[] = ['load', 'store'];
const PROTECTIONS: readonly Protection[] = ['none', 'r', 'rw', 'rw'];
const ADVICE: readonly Advice[] = ['dontneed', 'free'];
const OFFSETS = [0, 8, 4092];
const NAMES = ['A', 'B', 'C', 'D'];

/** A pure function of seed and options. */
export function generateProgram(seed: number, options: GenerateOptions = {}): Program {
  const random = createRandom(seed);
  const { tasks = 3, calls = 4, pages = 3, devices = 2 } = options;
  const shape = { pages: 1 + random.below(pages), devices: 1 + random.below(devices) };
  const enabled = withoutEndlessAtomics(
    OP_NAMES.filter(
      (op) => ALWAYS.includes(op) || (!NEVER_DRAWN.includes(op) && random.below(2) === 1 && fits(op, shape.pages)),
    ),
  );
  let stored = 0;
  const draw = (): Call => drawCall(random, pick(random, enabled), shape, () => ++stored);
  const many = (most: number): Call[] => Array.from({ length: 1 + random.below(most) }, draw);
  const init = many(2);
  const drawn = NAMES.slice(0, Math.max(1, Math.min(tasks, 2 + random.below(tasks)))).map((name) => ({
    name,
    calls: many(calls),
  }));
  const child = drawn.length > 1 && random.below(4) === 0 ? drawn.at(-1)!.name : null;
  if (child !== null) drawn[0]!.calls.splice(random.below(drawn[0]!.calls.length + 1), 0, { op: 'fork', child });
  const apart = child === null && drawn.length > 1 && random.below(6) === 0;
  return requireProgram({
    ...EMPTY_PROGRAM,
    question: [`generated from seed ${seed}`],
    ...shape,
    processes: apart ? [[drawn.at(-1)!.name]] : [],
    init,
    tasks: drawn,
  });
}

const fits = (op: OpName, pages: number): boolean => op !== 'mremap' || pages > 1;

/** Atomics need pages of the device's own: on a page that is pinned for ever a device tries for ever. */
const withoutEndlessAtomics = (enabled: readonly OpName[]): readonly OpName[] =>
  enabled.includes('add') ? enabled.filter((op) => op !== 'pin') : enabled;

const pick = <T>(random: Random, from: readonly T[]): T => from[random.below(from.length)]!;

function drawCall(
  random: Random,
  op: OpName,
  { pages, devices }: { readonly pages: number; readonly devices: number },
  nextValue: () => number,
): Call {
  const page = random.below(pages);
  const last = page + random.below(pages - page);
  const drawArgument = (kind: string): Partial<Call> => {
    switch (kind) {
      case 'where': {
        const offset = pick(random, OFFSETS);
        return offset === 0 ? { page } : { page, offset };
      }
      case 'range':
        return op === 'mremap' ? { page, last: page } : { page, last };
      case 'value':
        return { value: nextValue() };
      case 'on':
      case 'device':
        return { device: random.below(devices) };
      case 'protection':
        return { protection: pick(random, PROTECTIONS) };
      case 'advice':
        return { advice: pick(random, ADVICE) };
      case 'to':
        return { to: (page + 1 + random.below(pages - 1)) % pages };
      case 'write?':
        return random.below(2) === 1 ? { write: true } : {};
      case 'dontunmap?':
        return random.below(3) === 0 ? { dontunmap: true } : {};
      default:
        return {};
    }
  };
  return Object.assign({ op }, ...argumentsOf(op).map(drawArgument));
}
