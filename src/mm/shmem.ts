/**
 * Shared anonymous memory: a file without a name, whose page cache is all there is of it. Linux: mm/shmem.c shmem_zero_setup().
 *
 * It never grows. Reclaim sends its pages to swap (shmem-swap.ts). Huge pages come about by MADV_COLLAPSE only (collapse-file.ts):
 * shmem_enabled is "never". Not modelled: memory policy, tmpfs.
 */
import type { Kernel } from './kernel.js';
import { shmemSwapIn } from './shmem-swap.js';
import type { PageCacheOps, VmFile } from './vma.js';

const SHMEM_CACHE: PageCacheOps = {
  // biome-ignore lint/correctness/useYield: nothing is read from anywhere
  *readPage(kernel, page) {
    kernel.ram.zeroFrame(kernel.memmap.ramFrame(page));
  },
  writePage: null,
  swapIn: shmemSwapIn,
};

/** `shmem_file()` */
export const isShmem = (file: VmFile): boolean => file.cache === SHMEM_CACHE;

/** `shmem_zero_setup()`: an object of `size` bytes of zeroes, with one user. On the kernel's internal mount, device 00:01. */
export const shmemZeroSetup = (kernel: Kernel, size: number): VmFile =>
  kernel.files.add((id) => ({
    id,
    name: '/dev/zero (deleted)',
    device: '00:01',
    pages: new Map(),
    swapped: { entries: new Map(), huge: new Set() },
    size,
    users: 1,
    entered: 0,
    cache: SHMEM_CACHE,
  }));
