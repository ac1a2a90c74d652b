/**
 * The control plane's end on the device's side: boots the engine, loads programs, turns launches into promises. The worker's
 * door exposes it by comlink, the inline link calls it directly. Wrong launches are reports with a failure, never rejections,
 * since an error's code does not survive the way between threads.
 */
import {
  type DeviceConfig,
  type DeviceControl,
  type DeviceMemories,
  type DeviceStats,
  LANES_MAX,
  type LaunchReport,
  type LaunchRequest,
  NO_LANE,
} from '../abi/control.js';
import { assert } from '../base/errors.js';
import { Engine, type EngineOptions } from './engine.js';
import type { ComputeProgram } from './program.js';
import { builtinPrograms } from './programs/index.js';

const URL_PATTERN = /^(file|data|blob|https?):/;

export class EngineControl implements DeviceControl {
  readonly #options: EngineOptions;
  #engine: Engine | undefined;
  #loading = 0;
  #reports = 0;

  constructor(options: EngineOptions = {}) {
    this.#options = options;
  }

  /** `Engine.runnable`; false before boot. */
  get runnable(): boolean {
    return this.#engine?.runnable ?? false;
  }

  /** `Engine.step`; false before boot. */
  step(): boolean {
    return this.#engine?.step() ?? false;
  }

  /** Is a program's module being loaded? The event loop is needed for it. */
  get loading(): boolean {
    return this.#loading > 0;
  }

  /** Launches that have been reported; the promise of each settles in the microtask after. */
  get reports(): number {
    return this.#reports;
  }

  async boot(config: DeviceConfig, memories: DeviceMemories): Promise<void> {
    assert(this.#engine === undefined, `${config.name} is booted already`);
    this.#engine = new Engine(config, memories, this.#options);
  }

  async bindContext(context: number, root: number): Promise<void> {
    this.#booted().bindContext(context, root);
  }

  async unbindContext(context: number): Promise<void> {
    this.#booted().unbindContext(context);
  }

  /** A launch of a built-in program is queued before this returns, so that an inline run depends on nothing else. */
  async launch(request: LaunchRequest): Promise<LaunchReport> {
    const wrong = wrongRequest(request);
    if (wrong !== undefined) return refusal(wrong);
    const builtin = Object.hasOwn(builtinPrograms, request.program) ? builtinPrograms[request.program] : undefined;
    const program = builtin ?? (await this.#load(request.program));
    if (typeof program === 'string') return refusal(program);
    return new Promise((resolve) => {
      this.#booted().launch(program, request, (report) => {
        this.#reports++;
        resolve(report);
      });
    });
  }

  async stats(): Promise<DeviceStats> {
    return this.#booted().stats();
  }

  async reset(): Promise<void> {
    this.#booted().abort();
  }

  async #load(name: string): Promise<ComputeProgram | string> {
    this.#loading++;
    try {
      return await loadProgram(name);
    } finally {
      this.#loading--;
    }
  }

  #booted(): Engine {
    assert(this.#engine !== undefined, 'the device was used before it was booted');
    return this.#engine;
  }
}

/** What is wrong with a request, if anything. */
function wrongRequest({ lanes, groupSize }: LaunchRequest): string | undefined {
  if (!Number.isInteger(lanes) || lanes < 1 || lanes > LANES_MAX) return `lanes is ${lanes}: give 1..${LANES_MAX}`;
  if (!Number.isInteger(groupSize) || groupSize < 1) return `groupSize is ${groupSize}: give 1 or more`;
  return undefined;
}

/** The program of a module, or a sentence that says why there is none. */
async function loadProgram(name: string): Promise<ComputeProgram | string> {
  if (!URL_PATTERN.test(name)) {
    const known = Object.keys(builtinPrograms).join(', ');
    return `there is no program '${name}': give the URL of a module, or one of ${known}`;
  }
  try {
    const module = (await import(name)) as { readonly default?: unknown };
    if (typeof module.default === 'function') return module.default as ComputeProgram;
    return `the default export of ${name} is no function: export default (ctx, args) => { ... }`;
  } catch (error) {
    return `the module ${name} cannot be loaded: ${error instanceof Error ? error.message : String(error)}`;
  }
}

const refusal = (message: string): LaunchReport => ({
  lanes: 0,
  faults: 0,
  parked: 0,
  operations: 0,
  failure: { kind: 'program', errno: 0, address: 0, lane: NO_LANE, message },
});
