/**
 * Files with contents of their own, read and written through the page cache. Linux: mm/filemap.c generic_file_read_iter(),
 * generic_file_write_iter(); the file system is as small as can be: an unnamed file (O_TMPFILE) whose blocks are kept one by one.
 *
 * The file's lock (`i_rwsem`) is held for writing by whoever changes its size or its contents by a call; reads and faults do
 * without, as in Linux. Not modelled: permissions, O_DIRECT, O_APPEND, holes that differ from zeroes.
 */
import { PAGE_SIZE } from '../abi/address.js';
import type { Errno } from '../abi/errno.js';
import { PAGE_FLAGS } from '../abi/struct-page.js';
import type { Page } from '../base/brand.js';
import { RwSemaphore } from '../sync/rwsem.js';
import { SCHEDULE_POINT, type Sleeps } from '../sync/task.js';
import { lockFilePage } from './alloc.js';
import { filePages, unlockCachedPage } from './filemap.js';
import type { Kernel } from './kernel.js';
import { pageSetFlag, pageTestFlag } from './page.js';
import { checkWritebackError, writeAndWaitRange } from './page-writeback.js';
import { pagecacheIsizeExtended, truncateSetsize } from './truncate.js';
import type { PageCacheOps, VmFile } from './vma.js';

const { PG_dirty, PG_uptodate } = PAGE_FLAGS;

/** The backing object: blocks of a page each, those that were never written are zeroes. */
class BlockStore {
  readonly #blocks = new Map<number, Uint8Array>();

  constructor(bytes: Uint8Array) {
    for (let at = 0; at < bytes.length; at += PAGE_SIZE) {
      this.write(at / PAGE_SIZE, bytes.subarray(at, at + PAGE_SIZE));
    }
  }

  read(index: number, out: Uint8Array): void {
    const block = this.#blocks.get(index);
    if (block === undefined) out.fill(0);
    else out.set(block);
  }

  /** Write a block, which is zeroes behind `bytes`. */
  write(index: number, bytes: Uint8Array): void {
    const block = new Uint8Array(PAGE_SIZE);
    block.set(bytes);
    this.#blocks.set(index, block);
  }

  /** Nothing is left behind `size`. */
  truncate(size: number): void {
    const last = Math.floor(size / PAGE_SIZE);
    this.#blocks.get(last)?.fill(0, size % PAGE_SIZE);
    for (const index of [...this.#blocks.keys()]) if (index * PAGE_SIZE >= size) this.#blocks.delete(index);
  }

  bytes(offset: number, length: number): Uint8Array {
    const out = new Uint8Array(length);
    const block = new Uint8Array(PAGE_SIZE);
    for (const { index, start, count, done } of chunks(offset, length)) {
      this.read(index, block);
      out.set(block.subarray(start, start + count), done);
    }
    return out;
  }
}

/** A file that can be opened, mapped, read and written. */
export class RegularFile implements VmFile {
  readonly id: number;
  readonly name: string;
  /** A disk. */
  readonly device = '08:01';
  readonly pages = new Map<number, Page>();
  size: number;
  users = 1;
  entered = 0;
  readonly cache: PageCacheOps;
  readonly store: BlockStore;
  /** `i_rwsem`. */
  readonly lock: RwSemaphore;

  constructor(id: number, size: number, store: BlockStore) {
    this.id = id;
    this.name = `/tmp/#${id} (deleted)`;
    this.size = size;
    this.store = store;
    this.lock = new RwSemaphore(`lock of file ${id}`, 'file');
    this.cache = {
      readPage: (kernel, page, index) => this.#readPage(kernel, page, index),
      writePage: (kernel, page, index) => this.#writePage(kernel, page, index),
    };
  }

  // The disk takes its time.
  *#readPage(kernel: Kernel, page: Page, index: number): Sleeps<void> {
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
    this.store.read(index, kernel.ram.bytes(kernel.memmap.ramFrame(page)));
  }

  *#writePage(kernel: Kernel, page: Page, index: number): Sleeps<void> {
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
    const length = Math.min(PAGE_SIZE, this.size - index * PAGE_SIZE);
    if (length > 0) this.store.write(index, kernel.ram.bytes(kernel.memmap.ramFrame(page), 0, length));
  }
}

/** A file with these bytes, on disk alone, and zeroes up to `size`. It is open: give it back with `vmFilePut`. */
export const createFile = (kernel: Kernel, bytes: Uint8Array, size: number): RegularFile =>
  kernel.files.add((id) => new RegularFile(id, size, new BlockStore(bytes)));

/** `pread()`: what there is from `offset` on, at most `length` bytes. ENOMEM: nothing could be read, for want of RAM. */
export function* fileRead(
  kernel: Kernel,
  file: RegularFile,
  offset: number,
  length: number,
): Sleeps<Uint8Array | Errno> {
  const { words } = kernel.memmap;
  const out = new Uint8Array(Math.max(0, Math.min(length, file.size - offset)));
  for (const { index, start, count, done } of chunks(offset, out.length)) {
    const cached = file.pages.get(index);
    // A page that is up to date needs no lock: the bytes are copied in one step, like the CPU's loads.
    const locked = cached === undefined || !pageTestFlag(words, cached, PG_uptodate);
    const page = locked ? yield* lockFilePage(kernel, file, index, () => filePages(file)) : cached;
    if (page === 'ENOMEM' && done === 0) return page;
    // The file may have become shorter while we read.
    const left = Math.min(count, file.size - offset - done);
    if (typeof page === 'string' || left <= 0) {
      if (locked && typeof page !== 'string') unlockCachedPage(kernel, page);
      return out.slice(0, done);
    }
    out.set(kernel.ram.bytes(kernel.memmap.ramFrame(page), start, left), done);
    if (locked) unlockCachedPage(kernel, page);
    if (left < count) return out.slice(0, done + left);
    if (kernel.options.preempt()) yield SCHEDULE_POINT;
  }
  return out;
}

/** `pwrite()`: the number of bytes written, less than all when RAM ran out on the way; ENOMEM when none could be. */
export function* fileWrite(
  kernel: Kernel,
  file: RegularFile,
  offset: number,
  bytes: Uint8Array,
): Sleeps<number | Errno> {
  yield* file.lock.downWrite();
  try {
    const old = file.size;
    for (const { index, start, count, done } of chunks(offset, bytes.length)) {
      const page = yield* lockFilePage(kernel, file, index, () => Number.POSITIVE_INFINITY);
      if (typeof page === 'string') return done > 0 ? done : page;
      kernel.ram.bytes(kernel.memmap.ramFrame(page), start, count).set(bytes.subarray(done, done + count));
      pageSetFlag(kernel.memmap.words, page, PG_dirty);
      file.size = Math.max(file.size, offset + done + count);
      unlockCachedPage(kernel, page);
      if (done === 0 && offset > old) yield* pagecacheIsizeExtended(kernel, file, old, offset);
      if (kernel.options.preempt()) yield SCHEDULE_POINT;
    }
    return bytes.length;
  } finally {
    file.lock.upWrite();
  }
}

/** `ftruncate()`. */
export function* fileTruncate(kernel: Kernel, file: RegularFile, size: number): Sleeps<void> {
  yield* file.lock.downWrite();
  try {
    yield* truncateSetsize(kernel, file, size);
    file.store.truncate(size);
  } finally {
    file.lock.upWrite();
  }
}

/** `fsync()`: all that was written, by calls and by mappings, is in the backing object; EIO once, when something of it was lost. */
export function* fileSync(kernel: Kernel, file: RegularFile): Sleeps<0 | 'EIO'> {
  yield* writeAndWaitRange(kernel, file, 0, Number.POSITIVE_INFINITY);
  return checkWritebackError(file);
}

/** Some bytes of one page: `count` from `start` in page `index`, with `done` bytes before them. */
interface Chunk {
  readonly index: number;
  readonly start: number;
  readonly count: number;
  readonly done: number;
}

/** A range of bytes, page by page. */
function* chunks(offset: number, length: number): Generator<Chunk, void, void> {
  for (let done = 0; done < length; ) {
    const start = (offset + done) % PAGE_SIZE;
    const count = Math.min(PAGE_SIZE - start, length - done);
    yield { index: Math.floor((offset + done) / PAGE_SIZE), start, count, done };
    done += count;
  }
}
