/** The engine's end of a link whose control calls answer at once (transport/prompt-link.ts): built-in programs only. */
import type { DeviceConfig, DeviceMemories, LaunchReport, LaunchRequest } from '../abi/control.js';
import { assert } from '../base/errors.js';
import { Engine, type EngineOptions } from './engine.js';
import { builtinPrograms } from './programs/index.js';

export class PromptControl {
  readonly #engine: Engine;

  constructor(config: DeviceConfig, memories: DeviceMemories, options: EngineOptions) {
    this.#engine = new Engine(config, memories, options);
  }

  get runnable(): boolean {
    return this.#engine.runnable;
  }

  get nextWork(): Engine['nextWork'] {
    return this.#engine.nextWork;
  }

  step(): boolean {
    return this.#engine.step();
  }

  bindContext(context: number, root: number): void {
    this.#engine.bindContext(context, root);
  }

  unbindContext(context: number): void {
    this.#engine.unbindContext(context);
  }

  launch(request: LaunchRequest, onReport: (report: LaunchReport) => void): void {
    const program = builtinPrograms[request.program];
    assert(program !== undefined, `there is no program '${request.program}'`);
    this.#engine.launch(program, request, onReport);
  }

  /** As after boot. Precondition: no context is bound, nothing is in flight. */
  reset(): void {
    this.#engine.reset();
  }
}
