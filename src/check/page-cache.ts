/**
 * Holds: each page of a page cache says so itself, at its page offset, has been read in, and lies inside the file; each page that
 * says so is in that cache. Of files that are written back: what a mapping could write, or has written, is known to be dirty;
 * nothing behind the end is mapped, no private copy either. A file has at least one user for each mapping.
 *
 * Does not see: contents (the disk's and the cache's differ while a page is dirty); who holds a file open. Suspended while
 * anything is in flight.
 */
import { PAGE_FLAGS } from '../abi/struct-page.js';
import { NULL_PAGE, type Page } from '../base/brand.js';
import type { Checker } from '../machine/state.js';
import { filePages } from '../mm/filemap.js';
import type { Kernel } from '../mm/kernel.js';
import { pageFileId, pageIndex, pageTestFlag } from '../mm/page.js';
import { linearPageIndex, tracksWrites, type VmFile } from '../mm/vma.js';
import { folioHead } from '../sync/page-ref.js';
import { type CpuEntry, cpuEntries, placeText } from './page-tables.js';
import { ramPages, ramUse } from './ram.js';

const { PG_dirty, PG_uptodate } = PAGE_FLAGS;

function* cacheOf(kernel: Kernel, file: VmFile): Generator<string, void, void> {
  const { words, floats } = kernel.memmap;
  for (const [index, page] of file.pages) {
    const name = `file ${file.id}, page offset ${index}`;
    if (pageFileId(words, page) !== file.id || pageIndex(words, floats, page) !== index) {
      yield `${name}: page ${page} says that it is at ${pageIndex(words, floats, page)} of file ${pageFileId(words, page)}`;
    }
    if (!pageTestFlag(words, page, PG_uptodate)) yield `${name}: page ${page} has not been read in`;
    // A huge page of shared memory may reach behind the end, as in Linux.
    const first = index - (page - folioHead(words, page));
    if (first >= filePages(file)) yield `${name} is in the cache, but the file has ${filePages(file)} pages`;
  }
}

function* entryOf(kernel: Kernel, { mm, address, kind, page, writable }: CpuEntry): Generator<string, void, void> {
  const vma = mm.vmas.find(address);
  const file = vma?.file;
  // The marker of a userfaultfd maps nothing, and stands wherever its mapping reaches.
  if (vma === undefined || file == null || !tracksWrites(file) || kind === 'marker') return;
  const { words } = kernel.memmap;
  const place = placeText(mm, address);
  if (linearPageIndex(vma, address) >= filePages(file)) yield `${place}: mapped behind the end of file ${file.id}`;
  const isFiles = kind === 'present' && page !== NULL_PAGE && pageFileId(words, page) !== 0;
  if (isFiles && writable && !pageTestFlag(words, page, PG_dirty)) {
    yield `${place}: page ${page} of file ${file.id} can be written here, but counts as clean`;
  }
}

/** A page that says that it is in a page cache. */
function* pageOf(kernel: Kernel, page: Page): Generator<string, void, void> {
  const { words, floats } = kernel.memmap;
  const id = pageFileId(words, page);
  if (id === 0 || kernel.files.get(id)?.pages.get(pageIndex(words, floats, page)) === page) return;
  yield `RAM page ${page} says that it is at ${pageIndex(words, floats, page)} of file ${id}, which knows nothing of it`;
}

export const pageCache: Checker = {
  invariant: 'page-cache',
  statement:
    'page caches and their pages agree, no page that can be written counts as clean, nothing behind the end is mapped',
  *look({ kernel }, shared) {
    const mappings = new Map<VmFile, number>();
    for (const mm of kernel.mms) {
      for (const { value } of mm.vmas) {
        if (value.file !== null) mappings.set(value.file, (mappings.get(value.file) ?? 0) + 1);
      }
      for (const entry of cpuEntries(kernel, mm, shared)) yield* entryOf(kernel, entry);
    }
    for (const file of kernel.files) {
      yield* cacheOf(kernel, file);
      const mapped = mappings.get(file) ?? 0;
      if (mapped > file.users) yield `file ${file.id}: ${mapped} mappings, but ${file.users} users`;
    }
    for (const page of ramPages(kernel)) if (ramUse(kernel, page) === 'used') yield* pageOf(kernel, page);
  },
};
