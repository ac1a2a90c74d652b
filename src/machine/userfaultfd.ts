/** A userfaultfd as users hold it: what `Process.userfaultfd` returns. */
import type { Result } from '../abi/errno.js';
import { PfnlessError } from '../base/errors.js';
import { requireBoolean } from '../base/require.js';
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
import { requirePageRange, requireUserfaultfdOptions } from './arguments.js';
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
    return this.#change('register', range, (kernel) =>
      userfaultfdRegister(kernel, this.#context, range.start, range.length),
    );
  }

  unregister(range: VirtRange): Promise<void> {
    return this.#change('unregister', range, (kernel) =>
      userfaultfdUnregister(kernel, this.#context, range.start, range.length),
    );
  }

  protect(range: VirtRange): Promise<void> {
    return this.#change('protect', range, (kernel) =>
      userfaultfdProtect(kernel, this.#context, range.start, range.length),
    );
  }

  resolve(range: VirtRange, { wake = true }: { readonly wake?: boolean } = {}): Promise<void> {
    return this.#change('resolve', range, (kernel) => {
      requireBoolean('wake of resolve', wake);
      return userfaultfdResolve(kernel, this.#context, range.start, range.length, { wake });
    });
  }

  wake(range: VirtRange): Promise<void> {
    return this.#change('wake', range, () => userfaultfdWake(this.#context, range.start, range.length));
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

  #change(what: string, range: VirtRange, task: (kernel: MachineState['kernel']) => Sleeps<Result>): Promise<void> {
    return this.#life.call(async () => {
      requirePageRange(range);
      const { machine, mm } = this.#parts;
      const errno = await machine.executor.run(`${what} of process ${mm.pid}`, task(machine.kernel));
      if (errno === 0) return;
      const message = `The userfaultfd of process ${mm.pid} cannot ${what} ${range.length} bytes: ${errno}.`;
      throw new PfnlessError('ERR_PFNLESS_ERRNO', message, { errno });
    });
  }
}
