/** What `Process.mmap` may be given to map: open files of the machine, and the files of its devices. */
import { PfnlessError } from '../base/errors.js';
import { argumentError } from '../base/require.js';
import { vmFileGet, vmFilePut } from '../mm/filemap.js';
import type { Kernel } from '../mm/kernel.js';
import type { VmFile } from '../mm/vma.js';
import type { Sleeps } from '../sync/task.js';
import { EmulatedFile } from './file.js';
import { DeviceMirror } from './mirror.js';
import type { MachineState } from './state.js';

/**
 * The file that an argument stands for.
 * @throws PfnlessError ERR_PFNLESS_ARGUMENT; ERR_PFNLESS_DISPOSED when it is closed; ERR_PFNLESS_ERRNO (ENODEV)
 */
export function requireMappable(mapped: unknown, machine: MachineState): VmFile {
  if (!(mapped instanceof EmulatedFile || mapped instanceof DeviceMirror)) {
    throw argumentError('The file of a mapping must be what machine.file() or process.mirror() has returned.');
  }
  if (mapped.machine !== machine) throw argumentError('The file of a mapping belongs to another machine.');
  const file = mapped.vmFile();
  if (file !== null) return file;
  throw new PfnlessError('ERR_PFNLESS_ERRNO', 'The driver of this device has nothing to map: ENODEV.', {
    errno: 'ENODEV',
  });
}

/** A task that holds a file from now on, since it may be closed before the task has its turn. */
export function holding<T>(kernel: Kernel, file: VmFile | null, task: Sleeps<T>): Sleeps<T> {
  vmFileGet(file);
  return thenPut(kernel, file, task);
}

function* thenPut<T>(kernel: Kernel, file: VmFile | null, task: Sleeps<T>): Sleeps<T> {
  try {
    return yield* task;
  } finally {
    vmFilePut(kernel, file);
  }
}
