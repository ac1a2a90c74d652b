/**
 * A device's page tables: four levels of 512 two-word entries in shared memory (abi/device-pte.ts).
 *
 * `DevicePageTables` is the driver's side, on the kernel's thread, the only writer; `walk` is the MMU's side, on the device's.
 * A table that becomes empty is unlinked at once but a walker may still stand in it: it is put aside as *retired* and used
 * again only after the driver has seen an invalidation obeyed (`retired` before it is sent, `reclaim` when it is done).
 * Linux: the same reason as tlb_remove_table(). Large entries are not modelled: every leaf is 4 KiB.
 */
import { PAGE_SHIFT, PAGE_SIZE, PGDIR_SIZE, PMD_SHIFT, PMD_SIZE, PTRS_PER_TABLE, PUD_SIZE } from '../abi/address.js';
import {
  DEVICE_PTE_PARKED,
  DEVICE_PTE_VALID,
  DEVICE_TABLE_WORDS,
  devicePteMemory,
  type MemoryId,
} from '../abi/device-pte.js';
import { assert } from '../base/errors.js';
import { load32, store32 } from '../sync/word.js';

/** Level of a root table; level 0 holds the leaves. */
const ROOT_LEVEL = 3;
/** Bytes that one entry of each level covers. */
const SPAN = [PAGE_SIZE, PMD_SIZE, PUD_SIZE, PGDIR_SIZE] as const;

/** Index into the table of `level` for an address, times two: an entry is two words. */
const entryOffset = (addr: number, level: number): number =>
  (Math.floor(addr / SPAN[level]!) & (PTRS_PER_TABLE - 1)) * 2;

/**
 * Walk to the leaf entry of an address (below 2^47). Loads flags, then frame, of each level.
 * @returns the entry's word index, or 0 where an upper table is absent; the entry itself may be invalid
 */
export function walk(words: Int32Array, root: number, addr: number): number {
  const high = Math.floor(addr / PUD_SIZE);
  const low = addr - high * PUD_SIZE;
  let at = root + (high >>> 9) * 2;
  if ((load32(words, at) & DEVICE_PTE_VALID) === 0) return 0;
  at = load32(words, at + 1) + (high & 511) * 2;
  if ((load32(words, at) & DEVICE_PTE_VALID) === 0) return 0;
  at = load32(words, at + 1) + (low >>> PMD_SHIFT) * 2;
  if ((load32(words, at) & DEVICE_PTE_VALID) === 0) return 0;
  return load32(words, at + 1) + ((low >>> PAGE_SHIFT) & 511) * 2;
}

/** No memory has this number. */
const NO_MEMORY: MemoryId = -1;

export class DevicePageTables {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;
  /** Valid entries of each table, by table number. */
  readonly #live: Uint16Array;
  /** Word indices of tables that are free and all zero. */
  readonly #free: number[] = [];
  /** Word indices of unlinked tables, oldest first. */
  readonly #aside: number[] = [];
  #reclaimed = 0;
  #parked = 0;
  /** First word that no table has used yet. Table 0 is never handed out, so 0 is never a table. */
  #unused = DEVICE_TABLE_WORDS;

  /** @param buffer zeroed; each 4 KiB of it is a table */
  constructor(buffer: SharedArrayBuffer) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
    this.#live = new Uint16Array(Math.floor(this.#words.length / DEVICE_TABLE_WORDS));
  }

  /** Word index of a new, empty root table; `undefined` when the buffer is full. */
  createContext(): number | undefined {
    const root = this.#allocate();
    return root === 0 ? undefined : root;
  }

  /**
   * Free every table of a context.
   * Precondition: the device has unbound the context, so that nobody walks it.
   */
  destroyContext(root: number): void {
    this.#freeTree(root, ROOT_LEVEL);
  }

  /** Map one page. @returns false when there is no memory for a table */
  map(root: number, addr: number, frame: number, pteWord: number): boolean {
    return this.mapRange(root, addr, 1, frame, pteWord);
  }

  /**
   * Map `pages` pages from `addr` (page-aligned) to consecutive frames, or change the flags of entries that name them.
   * @returns false when there is no memory for a table; pages before that one are mapped then
   * @throws InvariantViolation when a valid entry names another frame: unmap and invalidate first
   */
  mapRange(root: number, addr: number, pages: number, frame: number, pteWord: number): boolean {
    const words = this.#words;
    const word = pteWord | DEVICE_PTE_VALID;
    for (let page = 0; page < pages; ) {
      const leaf = this.#leafTable(root, addr + page * PAGE_SIZE);
      if (leaf === 0) return false;
      let index = Math.floor(addr / PAGE_SIZE + page) & (PTRS_PER_TABLE - 1);
      const run = Math.min(pages - page, PTRS_PER_TABLE - index);
      let added = 0;
      for (const end = index + run; index < end; index++, page++) {
        const at = leaf + index * 2;
        const old = words[at]!;
        if ((old & DEVICE_PTE_VALID) === 0) {
          if (old === 0) added++;
          else this.#parked--;
          words[at + 1] = frame + page;
        } else if (words[at + 1]! >>> 0 !== frame + page || devicePteMemory(old) !== devicePteMemory(word)) {
          this.#refuse(addr + page * PAGE_SIZE, at, frame + page, word);
        }
        store32(words, at, word);
      }
      this.#live[leaf / DEVICE_TABLE_WORDS]! += added;
    }
    return true;
  }

  /**
   * Clear the entries of [start, end), parked ones too, skipping what has no table.
   * @returns how many valid ones were cleared
   */
  unmapRange(root: number, start: number, end: number): number {
    return this.#clear(root, ROOT_LEVEL, 0, start, end, false);
  }

  /** Clear the parked entries of [start, end), and leave the valid ones. */
  dropParked(root: number, start: number, end: number): void {
    this.#clear(root, ROOT_LEVEL, 0, start, end, true);
  }

  /**
   * Park the valid entries of [start, end): the device may not use them, but they are not forgotten.
   * @param keep entries of this memory stay valid
   * @returns how many were parked
   */
  park(root: number, start: number, end: number, keep: MemoryId = NO_MEMORY): number {
    return this.#park(root, ROOT_LEVEL, 0, start, end, keep);
  }

  /** Entries that are parked, of all contexts. */
  get parked(): number {
    return this.#parked;
  }

  /** Flag word of an address's parked entry, 0 for none. */
  readParked(root: number, addr: number): number {
    const at = this.#entry(root, addr);
    const word = at === 0 ? 0 : this.#words[at]!;
    return (word & DEVICE_PTE_PARKED) === 0 ? 0 : word;
  }

  /** A parked entry is valid again: its page did not move. */
  unpark(root: number, addr: number): void {
    const at = this.#entry(root, addr);
    store32(this.#words, at, (this.#words[at]! & ~DEVICE_PTE_PARKED) | DEVICE_PTE_VALID);
    this.#parked--;
  }

  /** Flag word of an address's entry, 0 for none. */
  read(root: number, addr: number): number {
    const at = this.#entry(root, addr);
    const word = at === 0 ? 0 : this.#words[at]!;
    return (word & DEVICE_PTE_VALID) === 0 ? 0 : word;
  }

  /** Frame of an entry. Precondition: `read` or `readParked` gave a word. */
  frameOf(root: number, addr: number): number {
    return this.#words[this.#entry(root, addr) + 1]! >>> 0;
  }

  /** Is there a valid entry for every page of [start, end), whose flag word has `value` in the bits of `mask`? */
  everyEntry(root: number, start: number, end: number, mask: number, value: number): boolean {
    const words = this.#words;
    const wanted = value | DEVICE_PTE_VALID;
    for (let addr = start; addr < end; ) {
      let at = this.#entry(root, addr);
      if (at === 0) return false;
      const stop = Math.min(end, (Math.floor(addr / PMD_SIZE) + 1) * PMD_SIZE);
      for (; addr < stop; addr += PAGE_SIZE, at += 2) {
        if ((words[at]! & (mask | DEVICE_PTE_VALID)) !== wanted) return false;
      }
    }
    return true;
  }

  /** Tables retired so far: the mark to remember before an invalidation is sent, for `reclaim`. */
  get retired(): number {
    return this.#reclaimed + this.#aside.length;
  }

  /** An invalidation that was sent when `retired` was `mark` has been obeyed: use the tables retired until then again. */
  reclaim(mark: number): void {
    const count = mark - this.#reclaimed;
    if (count <= 0) return;
    this.#free.push(...this.#aside.splice(0, count));
    this.#reclaimed = mark;
  }

  /** As it was made, so that tables are taken in the same order again. Precondition: no context is left, nobody walks. */
  reset(): void {
    this.#free.length = 0;
    this.#aside.length = 0;
    this.#reclaimed = 0;
    this.#unused = DEVICE_TABLE_WORDS;
    assert(this.#parked === 0 && this.#words[DEVICE_TABLE_WORDS] === 0, 'a device page table is left');
  }

  /** Tables that could be allocated now. */
  get freeTables(): number {
    return this.#free.length + this.#live.length - this.#unused / DEVICE_TABLE_WORDS;
  }

  #allocate(): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#unused + DEVICE_TABLE_WORDS > this.#words.length) return 0;
    this.#unused += DEVICE_TABLE_WORDS;
    return this.#unused - DEVICE_TABLE_WORDS;
  }

  /** What `walk` finds: whoever writes the tables needs no atomics to read them. */
  #entry(root: number, addr: number): number {
    const words = this.#words;
    let table = root;
    for (let level = ROOT_LEVEL; level > 0; level--) {
      const at = table + entryOffset(addr, level);
      if ((words[at]! & DEVICE_PTE_VALID) === 0) return 0;
      table = words[at + 1]!;
    }
    return table + entryOffset(addr, 0);
  }

  /** The leaf table of an address, made if need be; 0 when there is no memory for it. */
  #leafTable(root: number, addr: number): number {
    const words = this.#words;
    let table = root;
    for (let level = ROOT_LEVEL; level > 0; level--) {
      const at = table + entryOffset(addr, level);
      if ((words[at]! & DEVICE_PTE_VALID) === 0) {
        const child = this.#allocate();
        if (child === 0) return 0;
        store32(words, at + 1, child);
        store32(words, at, DEVICE_PTE_VALID);
        this.#live[table / DEVICE_TABLE_WORDS]!++;
      }
      table = words[at + 1]!;
    }
    return table;
  }

  #clear(table: number, level: number, tableStart: number, start: number, end: number, parkedOnly: boolean): number {
    const words = this.#words;
    const span = SPAN[level]!;
    const first = Math.max(0, Math.floor((start - tableStart) / span));
    const last = Math.min(PTRS_PER_TABLE, Math.ceil((end - tableStart) / span));
    let cleared = 0;
    let emptied = 0;
    for (let index = first; index < last; index++) {
      const at = table + index * 2;
      if (words[at]! === 0) continue;
      if (level > 0) {
        const child = words[at + 1]!;
        cleared += this.#clear(child, level - 1, tableStart + index * span, start, end, parkedOnly);
        if (this.#live[child / DEVICE_TABLE_WORDS] !== 0) continue;
        this.#aside.push(child);
      } else if ((words[at]! & DEVICE_PTE_VALID) !== 0) {
        if (parkedOnly) continue;
        cleared++;
      } else {
        this.#parked--;
      }
      // No device looks at what is parked.
      if ((words[at]! & DEVICE_PTE_VALID) === 0) words[at] = 0;
      else store32(words, at, 0);
      emptied++;
    }
    this.#live[table / DEVICE_TABLE_WORDS]! -= emptied;
    return cleared;
  }

  #park(table: number, level: number, tableStart: number, start: number, end: number, keep: MemoryId): number {
    const words = this.#words;
    const span = SPAN[level]!;
    const first = Math.max(0, Math.floor((start - tableStart) / span));
    const last = Math.min(PTRS_PER_TABLE, Math.ceil((end - tableStart) / span));
    let parked = 0;
    for (let index = first; index < last; index++) {
      const at = table + index * 2;
      const word = words[at]!;
      if ((word & DEVICE_PTE_VALID) === 0) continue;
      if (level > 0) {
        parked += this.#park(words[at + 1]!, level - 1, tableStart + index * span, start, end, keep);
      } else if (devicePteMemory(word) !== keep) {
        store32(words, at, (word & ~DEVICE_PTE_VALID) | DEVICE_PTE_PARKED);
        this.#parked++;
        parked++;
      }
    }
    return parked;
  }

  #freeTree(table: number, level: number): void {
    const words = this.#words;
    for (let at = table; at < table + DEVICE_TABLE_WORDS; at += 2) {
      if (level === 0) {
        if ((words[at]! & DEVICE_PTE_PARKED) !== 0) this.#parked--;
      } else if ((words[at]! & DEVICE_PTE_VALID) !== 0) {
        this.#freeTree(words[at + 1]!, level - 1);
      }
    }
    words.fill(0, table, table + DEVICE_TABLE_WORDS);
    this.#live[table / DEVICE_TABLE_WORDS] = 0;
    this.#free.push(table);
  }

  #refuse(addr: number, at: number, frame: number, word: number): never {
    const old = `memory ${devicePteMemory(this.#words[at]!)} frame ${this.#words[at + 1]! >>> 0}`;
    const now = `memory ${devicePteMemory(word)} frame ${frame}`;
    assert(false, `device page table: 0x${addr.toString(16)} maps ${old}, and was mapped to ${now} without an unmap`);
  }
}
