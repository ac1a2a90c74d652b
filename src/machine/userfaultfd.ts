/** A userfaultfd as users hold it: what `Process.userfaultfd` returns. */
import type { Result } from '../abi/errno.js';
import { PfnlessError } from '../base/errors.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import {
  createUserfaultfd,
  releaseUserfaultfd,
  userfaultfdProtect,
  userfaultfdRegister,
  userfaultfdResolve,
  userfaultfdUnregister,
  userfaultfdWake,
} from '../mm/userfaultfd.js';
import type { Userfaultfd as Context, UserfaultMessage } from '../mm/userfaultfd-context.js';
import type { Sleeps } from '../sync/task.js';
import { type PageRange, requirePageRange, requireResolveOptions, requireUserfaultfdOptions } from './arguments.js';
import { Lifetime } from './lifetime.js';
import type { MachineState } from './state.js';
import type { Userfaultfd, UserfaultfdOptions, VirtRange } from './types.js';

export interface UserfaultfdParts {
  readonly machine: MachineState;
  readonly mm: MmStruct;
  /** Life of the process. */
  readonly process: Lifetime;
  /** Called when it is closed. */
  onClosed(userfaultfd: EmulatedUserfaultfd): void;
}

export class EmulatedUserfaultfd implements Userfaultfd {
  readonly #parts: UserfaultfdParts;
  readonly #context: Context;
  readonly #life: Lifetime;

  /** @throws PfnlessError ERR_PFNLESS_ARGUMENT */
  constructor(parts: UserfaultfdParts, options: UserfaultfdOptions) {
    requireUserfaultfdOptions(options);
    this.#parts = parts;
    this.#context = createUserfaultfd(parts.mm, options);
    this.#life = new Lifetime(`this userfaultfd of process ${parts.mm.pid} is closed`, parts.process);
  }

  get waiting(): number {
    return this.#context.waiting;
  }

  register(range: VirtRange): Promise<void> {
    return this.#change('register', range, (kernel, { start, length }) =>
      userfaultfdRegister(kernel, this.#context, start, length),
    );
  }

  unregister(range: VirtRange): Promise<void> {
    return this.#change('unregister', range, (kernel, { start, length }) =>
      userfaultfdUnregister(kernel, this.#context, start, length),
    );
  }

  protect(range: VirtRange): Promise<void> {
    return this.#change('protect', range, (kernel, { start, length }) =>
      userfaultfdProtect(kernel, this.#context, start, length),
    );
  }

  resolve(range: VirtRange, options: { readonly wake?: boolean } = {}): Promise<void> {
    return this.#change('resolve', range, (kernel, { start, length }) =>
      userfaultfdResolve(kernel, this.#context, start, length, requireResolveOptions(options)),
    );
  }

  wake(range: VirtRange): Promise<void> {
    return this.#change('wake', range, (_kernel, { start, length }) => userfaultfdWake(this.#context, start, length));
  }

  read(): Promise<readonly UserfaultMessage[]> {
    return this.#life.call(async () => this.#context.read());
  }

  close(): Promise<void> {
    return this.#life.end(async () => {
      const { machine, mm, onClosed } = this.#parts;
      await machine.executor.run(
        `close of a userfaultfd of process ${mm.pid}`,
        releaseUserfaultfd(machine.kernel, this.#context),
      );
      onClosed(this);
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #change(what: string, range: VirtRange, task: (kernel: Kernel, at: PageRange) => Sleeps<Result>): Promise<void> {
    return this.#life.call(async () => {
      const at = requirePageRange(range);
      const { machine, mm } = this.#parts;
      const errno = await machine.executor.run(`${what} of process ${mm.pid}`, task(machine.kernel, at));
      if (errno === 0) return;
      const message = `The userfaultfd of process ${mm.pid} cannot ${what} ${at.length} bytes: ${errno}.`;
      throw new PfnlessError('ERR_PFNLESS_ERRNO', message, { errno });
    });
  }
}
