/** Shared memory of this computer, of which there may be too little: then boot says so. */
import { formatBytes } from '../base/bytes.js';
import { PfnlessError } from '../base/errors.js';

/** @param what for the message, e.g. "the page tables of gpu0". @throws PfnlessError ERR_PFNLESS_BOOT */
export const allocate = (bytes: number, what: string): SharedArrayBuffer =>
  fromHost(what, bytes, () => new SharedArrayBuffer(bytes));

/**
 * What `create` makes of shared memory.
 * @throws PfnlessError ERR_PFNLESS_BOOT when this computer, or its JavaScript engine, has no room
 */
export function fromHost<T>(what: string, bytes: number, create: () => T): T {
  try {
    return create();
  } catch (cause) {
    if (!(cause instanceof RangeError)) throw cause;
    const message = `This computer cannot hold ${what}, ${formatBytes(bytes)} of shared memory: ${cause.message}.`;
    throw new PfnlessError('ERR_PFNLESS_BOOT', message, { cause });
  }
}
