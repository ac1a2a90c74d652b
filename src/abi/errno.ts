/** Errno names, and VM_FAULT_* outcomes of a CPU fault. Linux: include/uapi/asm-generic/errno*.h, include/linux/mm_types.h. */

/** 0 is success; everything else is a kernel-like answer. */
export type Errno =
  | 'EPERM'
  | 'ENOENT'
  | 'ESRCH'
  | 'EIO'
  | 'ENXIO'
  | 'EBADF'
  | 'EAGAIN'
  | 'ENOMEM'
  | 'EACCES'
  | 'EFAULT'
  | 'EBUSY'
  | 'ENODEV'
  | 'EINVAL'
  | 'ERANGE'
  | 'EOPNOTSUPP'
  | 'EHWPOISON';

/** Outcome of a function that has nothing else to say: `0` or what went wrong. */
export type Result = 0 | Errno;

/** Wire form of an errno: its Linux number, so that words can carry it between threads. */
export const ERRNO_NUMBER: Readonly<Record<Errno, number>> = Object.freeze({
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  ENODEV: 19,
  EINVAL: 22,
  ERANGE: 34,
  EOPNOTSUPP: 95,
  EHWPOISON: 133,
});

const BY_NUMBER = new Map(Object.entries(ERRNO_NUMBER).map(([name, number]) => [number, name as Errno]));

/** The name of an errno number; `EIO` for a number that pfnless does not use. */
export function errnoName(number: number): Errno {
  return BY_NUMBER.get(number) ?? 'EIO';
}

/** Outcome bits of a fault. Several may be set. */
export const VM_FAULT_OOM = 0x1;
export const VM_FAULT_SIGBUS = 0x2;
export const VM_FAULT_MAJOR = 0x4;
export const VM_FAULT_HWPOISON = 0x10;
export const VM_FAULT_SIGSEGV = 0x40;
export const VM_FAULT_RETRY = 0x400;
/**
 * A userfaultfd wants to hear of the fault. Whoever can give up mmap_lock tells it and sleeps (VM_FAULT_RETRY); to all others it
 * is SIGBUS.
 */
export const VM_FAULT_USERFAULT = VM_FAULT_RETRY | VM_FAULT_SIGBUS;
/** A huge page cannot serve the fault: small pages shall. */
export const VM_FAULT_FALLBACK = 0x800;
export const VM_FAULT_ERROR = VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_HWPOISON;
export type VmFault = number;
