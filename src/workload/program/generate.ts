/**
 * Random programs from a seed, by swarm testing: each program enables a random subset of the operations, so that some programs
 * are dense in what others never do (Groce and others, ISSTA 2012).
 */
import { HPAGE_PMD_NR } from '../../abi/address.js';
import { createRandom, type Random } from '../../base/random.js';
import { requireOneOf, requireOptions, requireSeed, requireWhole } from '../../base/require.js';
import { argumentsOf, OP_NAMES, type OpName } from './operations.js';
import {
  type Advice,
  BACKINGS,
  type Call,
  EMPTY_PROGRAM,
  INJECTIONS,
  type Injection,
  PROGRAM_LIMITS,
  type Program,
  type Protection,
} from './program.js';
import { requireProgram } from './validate.js';

export interface GenerateOptions {
  /** Most tasks, 1..4. Default 3. */
  readonly tasks?: number;
  /** Most calls of a task: all tasks together may have 45. Default 4. */
  readonly calls?: number;
  /** Most pages. Default 3. */
  readonly pages?: number;
  /** Most devices, 1..4. Default 2. */
  readonly devices?: number;
  /** Huge pages: never, always, or (the default) in one program of eight. They take their time. */
  readonly huge?: 'never' | 'always' | 'sometimes';
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
const SWAP_ADVICE: readonly Advice[] = ['dontneed', 'free', 'pageout', 'pageout', 'willneed', 'cold'];
const HUGE_ADVICE: readonly Advice[] = ['dontneed', 'collapse'];
const HUGE_CORNERS = [0, 1, 255, 256, 511];
const HUGE_RANGES = [
  [0, 511],
  [0, 511],
  [0, 255],
  [256, 511],
  [1, 510],
] as const;
const SWAP_PAGES = 4;
const OFFSETS = [0, 8, 4092];
/** Calls that are in no task's count: of `init`, and a fork. */
const CALLS_BESIDE = 3;
const NAMES = ['A', 'B', 'C', 'D'];

/** The machine and the arena of a program. */
interface Shape {
  readonly pages: number;
  readonly devices: number;
  readonly hugePages: Program['hugePages'];
  readonly coherent: readonly number[];
  readonly peers: readonly number[];
  readonly swap: number;
}

/** @throws PfnlessError ERR_PFNLESS_ARGUMENT */
export function requireGenerateOptions(options: GenerateOptions): void {
  requireOptions('The options of a generated program', options, ['tasks', 'calls', 'pages', 'devices', 'huge']);
  const { tasks = 3, calls = 4, pages = 3, devices = 2, huge = 'sometimes' } = options;
  requireWhole('The number of tasks', tasks, 1, NAMES.length);
  requireWhole('The number of calls of a task', calls, 1, Math.floor((PROGRAM_LIMITS.calls - CALLS_BESIDE) / tasks));
  requireWhole('The number of pages', pages, 1, PROGRAM_LIMITS.pages);
  requireWhole('The number of devices', devices, 1, PROGRAM_LIMITS.devices);
  requireOneOf('huge', huge, ['never', 'always', 'sometimes']);
}

/** A pure function of seed and options. @throws PfnlessError ERR_PFNLESS_ARGUMENT */
export function generateProgram(seed: number, options: GenerateOptions = {}): Program {
  requireSeed(seed);
  requireGenerateOptions(options);
  const random = createRandom(seed);
  const { tasks = 3, calls = 4 } = options;
  const shape = drawShape(random, options);
  const enabled = OP_NAMES.filter(
    (op) => ALWAYS.includes(op) || (!NEVER_DRAWN.includes(op) && random.below(2) === 1 && fits(op, shape)),
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
    inject: drawInjections(random),
  });
}

/** In one program of three something happens beside what is called, in some of them two things. */
function drawInjections(random: Random): Injection[] {
  if (random.below(3) !== 0) return [];
  const drawn = [pick(random, INJECTIONS)];
  if (random.below(3) === 0) drawn.push(pick(random, INJECTIONS));
  return [...new Set(drawn)];
}

function drawShape(random: Random, { pages = 3, devices = 2, huge = 'sometimes' }: GenerateOptions): Shape {
  const isHuge = huge === 'always' || (huge === 'sometimes' && random.below(8) === 0);
  const count = 1 + random.below(devices);
  const all = Array.from({ length: count }, (_, device) => device);
  const coherent = random.below(6) === 0 ? [random.below(count)] : [];
  const priv = all.filter((device) => !coherent.includes(device));
  return {
    devices: count,
    pages: isHuge ? HPAGE_PMD_NR : 1 + random.below(pages),
    hugePages: isHuge ? 'always' : 'never',
    coherent,
    peers: priv.length > 1 && random.below(4) === 0 ? priv : [],
    swap: random.below(4) === 0 ? SWAP_PAGES : 0,
  };
}

/** Pages have to move somewhere; a huge page cannot be locked or swapped in no time. */
const fits = (op: OpName, { pages }: Shape): boolean =>
  op === 'mremap' ? pages > 1 && pages < HPAGE_PMD_NR : op !== 'mlock' || pages < HPAGE_PMD_NR;

const pick = <T>(random: Random, from: readonly T[]): T => from[random.below(from.length)]!;

function drawCall(random: Random, op: OpName, shape: Shape, nextValue: () => number): Call {
  const { pages, devices } = shape;
  const isHuge = pages === HPAGE_PMD_NR;
  const page = isHuge ? pick(random, HUGE_CORNERS) : random.below(pages);
  const drawRange = (): Partial<Call> => {
    if (op === 'mremap') return { page, last: page };
    if (!isHuge) return { page, last: page + random.below(pages - page) };
    const [first, last] = random.below(2) === 0 ? [page, page] : pick(random, HUGE_RANGES);
    return { page: first, last };
  };
  const drawArgument = (kind: string): Partial<Call> => {
    switch (kind) {
      case 'where': {
        const offset = pick(random, OFFSETS);
        return offset === 0 ? { page } : { page, offset };
      }
      case 'range':
        return drawRange();
      case 'value':
        return { value: nextValue() };
      case 'on':
      case 'device':
        return { device: random.below(devices) };
      case 'protection':
        return { protection: pick(random, PROTECTIONS) };
      case 'backing?':
        return random.below(3) === 0 ? { backing: pick(random, BACKINGS) } : {};
      case 'advice':
        return { advice: pick(random, isHuge ? HUGE_ADVICE : shape.swap > 0 ? SWAP_ADVICE : ADVICE) };
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
