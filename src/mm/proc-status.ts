/**
 * The memory of one process, summed: /proc/PID/status. Linux: fs/proc/task_mmu.c task_mem().
 * Not modelled: high-water marks (VmPeak, VmHWM), stack and code (VmStk, VmExe, VmLib), pinned_vm.
 */
import { PAGE_KIB } from '../abi/address.js';
import type { MmStruct } from './mm-struct.js';
import { VM_LOCKED, VM_SHARED, VM_WRITE } from './vma.js';

/** Rows of /proc/PID/status, in kB. */
export interface ProcessStatus {
  /** All mappings. */
  readonly VmSize: number;
  /** Mappings that are locked. */
  readonly VmLck: number;
  /** `RssAnon + RssFile + RssShmem`: pages on devices count as resident. */
  readonly VmRSS: number;
  readonly RssAnon: number;
  readonly RssFile: number;
  readonly RssShmem: number;
  /** Private writable mappings. */
  readonly VmData: number;
  /** Page tables below the top level. */
  readonly VmPTE: number;
  readonly VmSwap: number;
}

export function processStatus(mm: MmStruct): ProcessStatus {
  let size = 0;
  let data = 0;
  let locked = 0;
  for (const { value: vma } of mm.vmas) {
    const kib = (vma.end - vma.start) / 1024;
    size += kib;
    if ((vma.flags & VM_LOCKED) !== 0) locked += kib;
    if ((vma.flags & (VM_WRITE | VM_SHARED)) === VM_WRITE) data += kib;
  }
  return {
    VmSize: size,
    VmLck: locked,
    VmRSS: (mm.rssAnon + mm.rssFile + mm.rssShmem) * PAGE_KIB,
    RssAnon: mm.rssAnon * PAGE_KIB,
    RssFile: mm.rssFile * PAGE_KIB,
    RssShmem: mm.rssShmem * PAGE_KIB,
    VmData: data,
    VmPTE: (mm.tables - 1) * PAGE_KIB,
    VmSwap: mm.swapents * PAGE_KIB,
  };
}

/** The rows as /proc/PID/status prints them. */
export const processStatusText = (mm: MmStruct): string =>
  Object.entries(processStatus(mm))
    .map(([name, value]) => `${name}:\t${String(value).padStart(8)} kB\n`)
    .join('');
