/**
 * Programs as data: what tasks do to a small arena of memory, one call after the other, all tasks at once. The text form is in
 * parse.ts and print.ts, the meaning of each call in src/explore/calls.ts.
 *
 * A program is plain data (structured clone, JSON). Everything in it is a small number: page 0 is the first of the arena,
 * device 0 the machine's first.
 */
import type { InjectionId } from '../../base/injection.js';
import type { OpName } from './operations.js';

/** Most of each that a program may have. Small: exploration is for small programs. */
export const PROGRAM_LIMITS = Object.freeze({
  devices: 4,
  pages: 1024,
  tasks: 8,
  calls: 48,
  deviceMemory: 512,
  failNth: 64,
  swap: 256,
});

/** Names of tasks and results. */
export const NAME = /^[A-Za-z]\w{0,15}$/;
export const NAME_RULE = 'a letter and up to 15 more letters, digits or underscores';
/** Largest word. */
export const WORD_MAX = 2 ** 32 - 1;

/** Name of the task whose calls come before all others, one after the other, in the tame order. */
export const INIT = 'init';

export const HUGE_PAGE_MODES = ['always', 'madvise', 'never'] as const;

export const PROTECTIONS = ['none', 'r', 'rw'] as const;
export type Protection = (typeof PROTECTIONS)[number];

export const ADVICE = [
  'dontneed',
  'free',
  'willneed',
  'cold',
  'pageout',
  'collapse',
  'hugepage',
  'nohugepage',
  'hwpoison',
  'soft_offline',
] as const;
export type Advice = (typeof ADVICE)[number];

/**
 * What a userfaultfd does beside the usual: protects places that were never touched; lets a store take its protection away by
 * itself; sends a signal instead of letting it sleep.
 */
export const UFFD_FEATURES = ['unpopulated', 'async', 'sigbus'] as const;
export type UffdFeature = (typeof UFFD_FEATURES)[number];

/**
 * What is mapped, where it is not anonymous memory of the process's own: anonymous memory that children share; the program's file
 * (there is one, of as many pages as the arena, and page p of the arena is page p of the file), shared or private.
 */
export const BACKINGS = ['shared', 'file', 'private-file'] as const;
export type Backing = (typeof BACKINGS)[number];

/** Which arguments a call has is said by its operation (operations.ts). */
export interface Call {
  readonly op: OpName;
  /** First page. */
  readonly page?: number;
  /** Byte in the page: a multiple of 4. */
  readonly offset?: number;
  /** Last page of a range, included. */
  readonly last?: number;
  /** A 32-bit word to store, or to add. */
  readonly value?: number;
  readonly device?: number;
  readonly protection?: Protection;
  readonly backing?: Backing;
  readonly advice?: Advice;
  /** Page to move to. */
  readonly to?: number;
  readonly dontunmap?: true;
  readonly write?: true;
  readonly feature?: UffdFeature;
  /** First task of the process that `fork` makes. */
  readonly child?: string;
  /** Name under which outcomes know the result: the word that was loaded, or an errno, 0 for none. */
  readonly into?: string;
  /** The nth allocation of RAM inside of the call fails. */
  readonly failNth?: number;
}

export interface Task {
  readonly name: string;
  readonly calls: readonly Call[];
}

/** Values of some results. */
export type Outcome = Readonly<Record<string, number | string>>;

/** Points of fault injection (base/injection.ts) that a program may name: those that an explored machine meets. */
const EXPLORED_POINTS = [
  ...(['alloc-page', 'alloc-block', 'alloc-bulk', 'alloc-table', 'swap-full', 'fork-fails'] as const),
  ...(['trylock-lost', 'migration-refused', 'notifier-retry', 'memory-pressure'] as const),
  ...(['device-page', 'device-block', 'device-table', 'eviction-fails', 'copy-error'] as const),
  ...(['copy-late', 'invalidation-late', 'fault-ring-full', 'fault-service-late', 'doorbell-twice'] as const),
] as const satisfies readonly InjectionId[];

/**
 * Sources of choice beside the order of turns, each tame unless it is named: events at a point; `allocation`, any of RAM that
 * fails; `device-order`, the order in which a device serves its rings; `cpus`, a CPU for each task, whose translations may be old
 * until a shootdown is answered.
 */
export const INJECTIONS = ['allocation', 'device-order', 'cpus', ...EXPLORED_POINTS] as const;
export type Injection = (typeof INJECTIONS)[number];

/** Those that may make a call fail that otherwise would not. */
export const FAILING_INJECTIONS: readonly Injection[] = [
  ...(['allocation', 'alloc-page', 'alloc-block', 'alloc-bulk', 'alloc-table', 'swap-full', 'fork-fails'] as const),
  ...(['device-page', 'device-block', 'device-table', 'eviction-fails', 'copy-error'] as const),
];

export interface Program {
  /** Lines of comment at the top, the first one a question. */
  readonly question: readonly string[];
  readonly devices: number;
  /** Pages of the arena, mapped readable and writable at first. */
  readonly pages: number;
  /** Pages of memory that each device has to hand out. */
  readonly deviceMemory: number;
  /** /sys/kernel/mm/transparent_hugepage/enabled */
  readonly hugePages: (typeof HUGE_PAGE_MODES)[number];
  /** Devices whose memory the CPU reaches too. */
  readonly coherent: readonly number[];
  /** Devices that reach each other's private memory. */
  readonly peers: readonly number[];
  /** Pages of swap. */
  readonly swap: number;
  readonly inject: readonly Injection[];
  /** The nth allocation of RAM after `init` fails, whoever makes it; 0: none. */
  readonly failNth: number;
  /** Tasks that live in processes of their own; all the others, but for children, share the first process. */
  readonly processes: readonly (readonly string[])[];
  readonly init: readonly Call[];
  readonly tasks: readonly Task[];
  /** If there are any, what comes out is one of these. */
  readonly allowed: readonly Outcome[];
  /** None of these comes out. */
  readonly forbidden: readonly Outcome[];
}

export const EMPTY_PROGRAM: Program = Object.freeze({
  question: [],
  devices: 1,
  pages: 1,
  deviceMemory: 512,
  hugePages: 'never',
  coherent: [],
  peers: [],
  swap: 0,
  inject: [],
  failNth: 0,
  processes: [],
  init: [],
  tasks: [],
  allowed: [],
  forbidden: [],
});

/** Calls of all tasks, `init` apart. */
export const countCalls = (program: Program): number => program.tasks.reduce((sum, { calls }) => sum + calls.length, 0);
