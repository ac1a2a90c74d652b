/** The file of a trace: on disk and in the page cache at first, each page with a number of its own in its first and last word. */
import { PAGE_SIZE } from '../abi/address.js';
import { assert } from '../base/errors.js';
import { createFile, fileRead, fileSync, fileTruncate, fileWrite, type RegularFile } from '../mm/file.js';
import { vmFilePut } from '../mm/filemap.js';
import type { Kernel } from '../mm/kernel.js';
import type { Sleeps } from '../sync/task.js';
import type { Fields } from './compare.js';

const WORDS_PER_PAGE = PAGE_SIZE / 8;
/** What page `n` has before anybody writes to it is this and `n`: no write of a trace stores so much. */
const FIRST_WORD = 2 ** 32;

export class TraceFile {
  readonly #kernel: Kernel;
  readonly #file: RegularFile;

  private constructor(kernel: Kernel) {
    this.#kernel = kernel;
    this.#file = createFile(kernel, new Uint8Array(0), 0);
  }

  /** A file of so many pages, as the recorder makes it: by writing to it. */
  static *make(kernel: Kernel, pages: number): Sleeps<TraceFile> {
    const file = new TraceFile(kernel);
    const { errno } = yield* file.write(0, pages, FIRST_WORD);
    assert(errno === '0', () => `a file of ${pages} pages: ${errno}`);
    yield* fileSync(kernel, file.#file);
    return file;
  }

  /** What to map from page `pgoff` on. */
  mapped(pgoff: number): { readonly file: RegularFile; readonly pgoff: number } {
    return { file: this.#file, pgoff };
  }

  /** First words of whole pages, up to the end of the file. */
  *read(page: number, pages: number): Sleeps<Fields> {
    const bytes = yield* fileRead(this.#kernel, this.#file, page * PAGE_SIZE, pages * PAGE_SIZE);
    if (typeof bytes === 'string') return { errno: bytes };
    const read = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
    const words = Array.from({ length: bytes.length / PAGE_SIZE }, (_, at) => Number(read[at * WORDS_PER_PAGE]));
    return { errno: '0', words };
  }

  /** Fill whole pages with zeroes but for their first and last word, which are `base` and the page. */
  *write(page: number, pages: number, base: number): Sleeps<{ readonly errno: string }> {
    const words = new BigUint64Array(pages * WORDS_PER_PAGE);
    for (let at = 0; at < pages; at++) {
      const first = at * WORDS_PER_PAGE;
      words[first] = words[first + WORDS_PER_PAGE - 1] = BigInt(base + page + at);
    }
    const written = yield* fileWrite(this.#kernel, this.#file, page * PAGE_SIZE, new Uint8Array(words.buffer));
    return { errno: typeof written === 'string' ? written : '0' };
  }

  *truncate(pages: number): Sleeps<Fields> {
    yield* fileTruncate(this.#kernel, this.#file, pages * PAGE_SIZE);
    return { errno: '0' };
  }

  *sync(): Sleeps<Fields> {
    const errno = yield* fileSync(this.#kernel, this.#file);
    return { errno: errno === 0 ? '0' : errno };
  }

  close(): void {
    vmFilePut(this.#kernel, this.#file);
  }
}
