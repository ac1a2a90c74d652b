/** What the CPU of a trace does to pages: it stores, or loads, the first and the last word of each. */
import { PAGE_SIZE } from '../abi/address.js';
import { VM_FAULT_SIGSEGV } from '../abi/errno.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { kmapLocalPage } from '../mm/highmem.js';
import type { Kernel } from '../mm/kernel.js';
import type { MmStruct } from '../mm/mm-struct.js';
import { mappedPage, userPage } from '../mm/uaccess.js';
import type { Sleeps } from '../sync/task.js';
import { type Fields, runsOf } from './compare.js';

const WORDS_PER_PAGE = PAGE_SIZE / 8;
const LAST_WORD = WORDS_PER_PAGE - 1;
const HALF = 2 ** 32;

/** Pages of the arena. */
interface Range {
  readonly pg: number;
  readonly n: number;
}

/** What write `k` stores into a page of the arena. */
export const writtenWord = (k: number, page: number): number => k * 4096 + page;

/** Two stores a page; a page that traps is passed over, as the recorder's signal handler does. `start`: where `pg` is. */
export function* cpuWrite(kernel: Kernel, mm: MmStruct, { pg, n }: Range, start: VirtAddr, k: number): Sleeps<Fields> {
  const res: Outcome[] = [];
  for (let at = 0; at < n; at++) {
    const addr = (start + at * PAGE_SIZE) as VirtAddr;
    let first = mappedPage(kernel, mm, addr, true);
    if (first < 0) first = yield* userPage(kernel, mm, addr, true);
    if (first >= 0) store(kernel, first, 0, writtenWord(k, pg + at));
    let last = first < 0 ? first : mappedPage(kernel, mm, lastWordOf(addr), true);
    if (first >= 0 && last < 0) last = yield* userPage(kernel, mm, lastWordOf(addr), true);
    if (last >= 0) store(kernel, last, LAST_WORD, writtenWord(k, pg + at));
    res.push(outcomeOf(last));
  }
  return { res: runsOf(res) };
}

/** Two loads a page. */
export function* cpuRead(kernel: Kernel, mm: MmStruct, { n }: Range, start: VirtAddr): Sleeps<Fields> {
  const res: Outcome[] = [];
  const words: (number | null)[] = [];
  let torn = 0;
  for (let at = 0; at < n; at++) {
    const addr = (start + at * PAGE_SIZE) as VirtAddr;
    let first = mappedPage(kernel, mm, addr, false);
    if (first < 0) first = yield* userPage(kernel, mm, addr, false);
    const word = first < 0 ? null : load(kernel, first, 0);
    let last = first < 0 ? first : mappedPage(kernel, mm, lastWordOf(addr), false);
    if (first >= 0 && last < 0) last = yield* userPage(kernel, mm, lastWordOf(addr), false);
    if (last >= 0 && load(kernel, last, LAST_WORD) !== word) torn++;
    words.push(last < 0 ? null : word);
    res.push(outcomeOf(last));
  }
  return withTorn({ res: runsOf(res), words }, torn);
}

/** What is in pages that somebody holds, past any page table. */
export function wordsOf(kernel: Kernel, pages: readonly Page[]): Fields {
  const words = pages.map((page) => load(kernel, page, 0));
  const torn = pages.filter((page, at) => load(kernel, page, LAST_WORD) !== words[at]).length;
  return withTorn({ words }, torn);
}

/** The recorder says how many pages were torn only where there were any. */
export function withTorn(fields: Fields, torn: number): Fields {
  if (torn > 0) fields.torn = torn;
  return fields;
}

const lastWordOf = (addr: VirtAddr): VirtAddr => (addr + 8 * LAST_WORD) as VirtAddr;

type Outcome = 'ok' | 'SIGSEGV' | 'SIGBUS';
/** Of an access to a page, or ~VM_FAULT_*. */
function outcomeOf(page: number): Outcome {
  if (page >= 0) return 'ok';
  return (~page & VM_FAULT_SIGSEGV) !== 0 ? 'SIGSEGV' : 'SIGBUS';
}

function load(kernel: Kernel, page: number, word: number): number {
  const at = ramWord(kernel, page, word);
  if (at < 0) return Number(deviceWords(kernel, page)[word]);
  const { halves } = kernel.ram;
  return (halves[at]! >>> 0) + (halves[at + 1]! >>> 0) * HALF;
}

function store(kernel: Kernel, page: number, word: number, value: number): void {
  const at = ramWord(kernel, page, word);
  if (at < 0) {
    deviceWords(kernel, page)[word] = BigInt(value);
    return;
  }
  const { halves } = kernel.ram;
  halves[at] = value;
  halves[at + 1] = Math.floor(value / HALF);
}

/** Where a word is among the halves of RAM, -1 if the page is not there. */
function ramWord({ memmap, ram }: Kernel, page: number, word: number): number {
  const frame = memmap.ramFrame(page as Page);
  return frame < ram.frames ? 2 * (frame * WORDS_PER_PAGE + word) : -1;
}

/** The words of a page of a coherent device. */
function deviceWords(kernel: Kernel, page: number): BigUint64Array {
  const { buffer, byteOffset } = kmapLocalPage(kernel, page as Page);
  return new BigUint64Array(buffer, byteOffset, WORDS_PER_PAGE);
}
