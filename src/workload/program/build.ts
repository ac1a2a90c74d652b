/**
 * Programs from code: `program().pages(2).task('A', (a) => a.store(0, 7).load(0, 'r')).allowed({ r: 7 }).build()`.
 */
import { argumentError, requireFunction } from '../../base/require.js';
import {
  type Advice,
  type Backing,
  type Call,
  EMPTY_PROGRAM,
  type Injection,
  type Outcome,
  type Program,
  type Protection,
  type UffdFeature,
} from './program.js';
import { requireProgram } from './validate.js';

/** Page, or page and byte. */
export type Where = number | readonly [page: number, offset: number];
/** Page, or first and last page. */
export type Pages = number | readonly [first: number, last: number];

/**
 * Calls of one task, in order. Every method adds the operation of its name, as test/litmus/README.md explains it, and returns the
 * builder. `device` is an index, `into` names the result.
 */
export class TaskBuilder {
  readonly calls: Call[] = [];

  load(where: Where, into?: string): this {
    return this.#add({ op: 'load', ...place(where), ...result(into) });
  }
  store(where: Where, value: number): this {
    return this.#add({ op: 'store', ...place(where), value });
  }
  read(where: Where, device: number, into?: string): this {
    return this.#add({ op: 'read', ...place(where), device, ...result(into) });
  }
  write(where: Where, value: number, device: number): this {
    return this.#add({ op: 'write', ...place(where), value, device });
  }
  touch(where: Where, device: number): this {
    return this.#add({ op: 'touch', ...place(where), device });
  }
  fill(where: Where, value: number, device: number): this {
    return this.#add({ op: 'fill', ...place(where), value, device });
  }
  add(where: Where, value: number, device: number): this {
    return this.#add({ op: 'add', ...place(where), value, device });
  }
  toDevice(pages: Pages, device: number): this {
    return this.#add({ op: 'todevice', ...span(pages), device });
  }
  toSystem(pages: Pages, device: number): this {
    return this.#add({ op: 'tosystem', ...span(pages), device });
  }
  exclusive(pages: Pages, device: number): this {
    return this.#add({ op: 'exclusive', ...span(pages), device });
  }
  open(device: number): this {
    return this.#add({ op: 'open', device });
  }
  close(device: number): this {
    return this.#add({ op: 'close', device });
  }
  release(device: number): this {
    return this.#add({ op: 'release', device });
  }
  failAlloc(device: number): this {
    return this.#add({ op: 'fail_alloc', device });
  }
  mmap(pages: Pages, options: { readonly protection?: Protection; readonly backing?: Backing } = {}): this {
    return this.#add({ op: 'mmap', ...span(pages), ...options });
  }
  munmap(pages: Pages): this {
    return this.#add({ op: 'munmap', ...span(pages) });
  }
  mprotect(pages: Pages, protection: Protection): this {
    return this.#add({ op: 'mprotect', ...span(pages), protection });
  }
  mremap(pages: Pages, to: number, options: { readonly dontunmap?: true } = {}): this {
    return this.#add({ op: 'mremap', ...span(pages), to, ...options });
  }
  madvise(pages: Pages, advice: Advice): this {
    return this.#add({ op: 'madvise', ...span(pages), advice });
  }
  mlock(pages: Pages): this {
    return this.#add({ op: 'mlock', ...span(pages) });
  }
  munlock(pages: Pages): this {
    return this.#add({ op: 'munlock', ...span(pages) });
  }
  clearRefs(): this {
    return this.#add({ op: 'clear_refs' });
  }
  softDirty(where: Where, into?: string): this {
    return this.#add({ op: 'soft_dirty', ...place(where), ...result(into) });
  }
  pin(pages: Pages, options: { readonly write?: true } = {}): this {
    return this.#add({ op: 'pin', ...span(pages), ...options });
  }
  unpin(): this {
    return this.#add({ op: 'unpin' });
  }
  get(pages: Pages, options: { readonly write?: true } = {}): this {
    return this.#add({ op: 'get', ...span(pages), ...options });
  }
  put(): this {
    return this.#add({ op: 'put' });
  }
  uffdRegister(pages: Pages, feature?: UffdFeature): this {
    return this.#add({ op: 'uffd_register', ...span(pages), ...(feature === undefined ? {} : { feature }) });
  }
  uffdUnregister(pages: Pages): this {
    return this.#add({ op: 'uffd_unregister', ...span(pages) });
  }
  uffdProtect(pages: Pages): this {
    return this.#add({ op: 'uffd_protect', ...span(pages) });
  }
  uffdResolve(pages: Pages): this {
    return this.#add({ op: 'uffd_resolve', ...span(pages) });
  }
  uffdClose(): this {
    return this.#add({ op: 'uffd_close' });
  }
  fork(child: string): this {
    return this.#add({ op: 'fork', child });
  }
  exit(): this {
    return this.#add({ op: 'exit' });
  }

  /** Name the result of the call before. */
  into(name: string): this {
    return this.#change({ into: name });
  }
  /** The nth allocation of RAM inside of the call before fails. */
  failNth(n: number): this {
    return this.#change({ failNth: n });
  }

  #add(call: Call): this {
    this.calls.push(call);
    return this;
  }

  #change(fields: Partial<Call>): this {
    const last = this.calls.pop();
    if (last === undefined) throw argumentError(`There is no call yet that ${Object.keys(fields)[0]} could be for.`);
    this.calls.push({ ...last, ...fields });
    return this;
  }
}

/** A whole program; every method but `build` returns the builder. */
export class ProgramBuilder {
  #program: Program = EMPTY_PROGRAM;

  question(...lines: readonly string[]): this {
    return this.#set({ question: lines });
  }
  devices(devices: number): this {
    return this.#set({ devices });
  }
  pages(pages: number): this {
    return this.#set({ pages });
  }
  /** Pages of each device. */
  memory(deviceMemory: number): this {
    return this.#set({ deviceMemory });
  }
  hugePages(hugePages: Program['hugePages']): this {
    return this.#set({ hugePages });
  }
  /** These devices' memory the CPU reaches too. */
  coherent(...coherent: readonly number[]): this {
    return this.#set({ coherent });
  }
  /** These devices reach each other's private memory. */
  peers(...peers: readonly number[]): this {
    return this.#set({ peers });
  }
  /** Pages of swap. */
  swap(swap: number): this {
    return this.#set({ swap });
  }
  inject(...inject: readonly Injection[]): this {
    return this.#set({ inject });
  }
  failNth(failNth: number): this {
    return this.#set({ failNth });
  }
  /** These tasks are in a process of their own. */
  process(...tasks: readonly string[]): this {
    return this.#set({ processes: [...this.#program.processes, tasks] });
  }
  init(write: (task: TaskBuilder) => unknown): this {
    return this.#set({ init: [...this.#program.init, ...callsOf(write)] });
  }
  task(name: string, write: (task: TaskBuilder) => unknown): this {
    return this.#set({ tasks: [...this.#program.tasks, { name, calls: callsOf(write) }] });
  }
  allowed(outcome: Outcome): this {
    return this.#set({ allowed: [...this.#program.allowed, outcome] });
  }
  forbidden(outcome: Outcome): this {
    return this.#set({ forbidden: [...this.#program.forbidden, outcome] });
  }

  /** @throws PfnlessError ERR_PFNLESS_SYNTAX where parts do not fit together */
  build(): Program {
    return requireProgram(this.#program);
  }

  #set(fields: Partial<Program>): this {
    this.#program = { ...this.#program, ...fields };
    return this;
  }
}

/** The start of a program: `program().devices(1).pages(2).task('A', (task) => task.store(0, 1)).build()`. */
export const program = (): ProgramBuilder => new ProgramBuilder();

function callsOf(write: (task: TaskBuilder) => unknown): Call[] {
  requireFunction('What writes the calls of a task', write);
  const task = new TaskBuilder();
  write(task);
  return task.calls;
}

function place(where: Where): Pick<Call, 'page' | 'offset'> {
  const [page, offset = 0] = Array.isArray(where) ? (where as readonly number[]) : [where as number];
  return offset === 0 ? { page } : { page, offset };
}

function span(pages: Pages): { readonly page: number; readonly last: number } {
  const [page, last] = Array.isArray(pages) ? (pages as readonly number[]) : [pages as number, pages as number];
  return { page, last };
}

const result = (into: string | undefined): Pick<Call, 'into'> => (into === undefined ? {} : { into });
