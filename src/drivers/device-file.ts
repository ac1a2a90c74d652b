/**
 * The device's file as a process maps it: fresh pages of zeroes, put there by the driver. Linux: dmirror_fops_mmap() in
 * lib/test_hmm.c, which exists to show that hmm_range_fault() can handle VM_MIXEDMAP.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { Result } from '../abi/errno.js';
import { NULL_PAGE, type VirtAddr } from '../base/brand.js';
import { vmInsertPage } from '../mm/insert-page.js';
import type { Kernel } from '../mm/kernel.js';
import { allocZeroedPage } from '../mm/memory.js';
import { putPage } from '../mm/put-page.js';
import type { VmArea, VmFile } from '../mm/vma.js';

/** One file a device; the driver is its first user. */
export const createDeviceFile = (kernel: Kernel, name: string): VmFile =>
  kernel.files.add((id) => ({
    id,
    name: `/dev/${name}`,
    // devtmpfs
    device: '00:05',
    pages: new Map(),
    size: 0,
    users: 1,
    entered: 0,
    cache: null,
    mmap: populate,
  }));

/** ENOMEM leaves what was mapped so far to the caller, who unmaps it. */
function populate(kernel: Kernel, vma: VmArea): Result {
  for (let addr: number = vma.start; addr < vma.end; addr += PAGE_SIZE) {
    const page = allocZeroedPage(kernel);
    if (page === NULL_PAGE) return 'ENOMEM';
    const errno = vmInsertPage(kernel, vma, addr as VirtAddr, page);
    putPage(kernel, page);
    if (errno !== 0) return errno;
  }
  return 0;
}
