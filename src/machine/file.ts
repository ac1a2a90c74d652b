/** An open file as users hold it: arguments checked, everything else is the kernel's page cache. */
import { PfnlessError } from '../base/errors.js';
import { createFile, fileRead, fileSync, fileTruncate, fileWrite, type RegularFile } from '../mm/file.js';
import { vmFilePut } from '../mm/filemap.js';
import type { VmFile } from '../mm/vma.js';
import type { Sleeps } from '../sync/task.js';
import { requireBytes, requireFileInput, requireFileRange } from './arguments.js';
import { Lifetime } from './lifetime.js';
import type { MachineState } from './state.js';
import type { FileInput, MachineFile } from './types.js';

export interface FileParts {
  readonly machine: MachineState;
  readonly machineLife: Lifetime;
  /** Called when the file is closed. */
  onClosed(file: EmulatedFile): void;
}

export class EmulatedFile implements MachineFile {
  readonly machine: MachineState;
  readonly #file: RegularFile;
  readonly #life: Lifetime;
  readonly #onClosed: (file: EmulatedFile) => void;

  /** @throws PfnlessError ERR_PFNLESS_ARGUMENT */
  constructor({ machine, machineLife, onClosed }: FileParts, input: FileInput) {
    const { bytes, size } = requireFileInput(input);
    this.machine = machine;
    this.#file = createFile(machine.kernel, bytes, size);
    this.#life = new Lifetime(`file ${this.#file.name} is closed`, machineLife);
    this.#onClosed = onClosed;
  }

  get size(): number {
    return this.#file.size;
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return this.#life.call(async () => {
      requireFileRange(offset, length);
      const bytes = await this.#run('read', (file) => fileRead(this.machine.kernel, file, offset, length));
      if (typeof bytes === 'string') throw this.#errnoError(`cannot read ${length} bytes`, bytes);
      return bytes;
    });
  }

  write(offset: number, bytes: Uint8Array): Promise<number> {
    return this.#life.call(async () => {
      requireBytes(bytes);
      requireFileRange(offset, bytes.length);
      const written = await this.#run('write', (file) => fileWrite(this.machine.kernel, file, offset, bytes));
      if (typeof written === 'string') throw this.#errnoError(`cannot write ${bytes.length} bytes`, written);
      return written;
    });
  }

  truncate(size: number): Promise<void> {
    return this.#life.call(async () => {
      requireFileRange(size, 0);
      await this.#run('truncate', (file) => fileTruncate(this.machine.kernel, file, size));
    });
  }

  sync(): Promise<void> {
    return this.#life.call(async () => {
      const errno = await this.#run('sync', (file) => fileSync(this.machine.kernel, file));
      if (errno !== 0) throw this.#errnoError('has lost what was written to it', errno);
    });
  }

  stored(offset: number, length: number): Promise<Uint8Array> {
    return this.#life.call(async () => {
      requireFileRange(offset, length);
      return this.#file.store.bytes(offset, Math.max(0, Math.min(length, this.size - offset)));
    });
  }

  cached(): Promise<readonly number[]> {
    return this.#life.call(async () => [...this.#file.pages.keys()].sort((a, b) => a - b));
  }

  /** For `mmap`. @throws PfnlessError ERR_PFNLESS_DISPOSED */
  vmFile(): VmFile {
    this.#life.assertAlive();
    return this.#file;
  }

  close(): Promise<void> {
    return this.#life.end(async () => {
      await this.#life.idle();
      vmFilePut(this.machine.kernel, this.#file);
      this.#onClosed(this);
    });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #run<T>(what: string, task: (file: RegularFile) => Sleeps<T>): Promise<T> {
    return this.machine.executor.run(`${what} of file ${this.#file.name}`, task(this.#file));
  }

  #errnoError(what: string, errno: string): PfnlessError {
    return new PfnlessError('ERR_PFNLESS_ERRNO', `File ${this.#file.name} ${what}: ${errno}.`, { errno });
  }
}
