/** Errors of the public API that say more than a code: what a program wants to know to go on by itself. */
import type { Errno } from '../abi/errno.js';
import type { VirtAddr } from '../base/brand.js';
import { PfnlessError } from '../base/errors.js';

/** The request that a machine could not boot with. */
export interface FailedRequest {
  readonly device: string;
  /** Bytes of device memory that the driver asked for. */
  readonly bytes: number;
  readonly errno: Errno;
}

/** ERR_PFNLESS_BOOT: a driver got no memory. */
export class BootError extends PfnlessError {
  override readonly name = 'BootError';
  readonly failed: FailedRequest;
  /** The physical map as it stood, in /proc/iomem's format. */
  readonly iomem: string;

  constructor(message: string, failed: FailedRequest, iomem: string) {
    super('ERR_PFNLESS_BOOT', message, { errno: failed.errno });
    this.failed = failed;
    this.iomem = iomem;
  }
}

/** ERR_PFNLESS_FAULT: the access would have ended a real process. */
export class FaultError extends PfnlessError {
  override readonly name = 'FaultError';
  readonly signal: 'SIGSEGV' | 'SIGBUS';
  /** First byte that could not be had. */
  readonly address: VirtAddr;
  /** BUS_MCEERR_AR: the memory has failed. Otherwise `null`. */
  readonly siCode: 'BUS_MCEERR_AR' | null;

  constructor(
    message: string,
    at: { signal: 'SIGSEGV' | 'SIGBUS'; address: VirtAddr; errno: Errno; siCode?: 'BUS_MCEERR_AR' | null },
  ) {
    super('ERR_PFNLESS_FAULT', message, { errno: at.errno });
    this.signal = at.signal;
    this.address = at.address;
    this.siCode = at.siCode ?? null;
  }
}
