/** A mapping under stress: where it is, which of its words are used, and what they hold (last-writer.ts). */
import { PAGE_SIZE } from '../abi/address.js';
import type { Mirror, Process, VirtRange } from '../machine/types.js';
import { LastWriters } from './last-writer.js';

/** Bytes of a page whose words are used: its first, its last, and some between. */
const SLOTS = [0, 1028, 2048, 4092] as const;
const SLOTS_OF_PAGE = SLOTS.length;
/** Nobody writes the word. */
export const NO_WRITER = -1;

export type RegionKind = 'anonymous' | 'huge' | 'shared';

interface RegionOptions {
  readonly kind: RegionKind;
  readonly start: number;
  readonly bytes: number;
  /** Pages whose words are used: all of a small region, some of a huge one. */
  readonly pages: readonly number[];
}

export class Region {
  readonly kind: RegionKind;
  readonly bytes: number;
  readonly pages: readonly number[];
  /** Shared by the processes that share the memory; so are the writers. */
  readonly last: LastWriters;
  /** Who writes each word in the episode that runs. */
  readonly writers: Int16Array;
  start: number;

  constructor(options: RegionOptions, of?: { readonly last: LastWriters; readonly writers: Int16Array }) {
    this.kind = options.kind;
    this.start = options.start;
    this.bytes = options.bytes;
    this.pages = options.pages;
    this.last = of?.last ?? new LastWriters(options.pages.length * SLOTS_OF_PAGE);
    this.writers = of?.writers ?? new Int16Array(this.last.words).fill(NO_WRITER);
  }

  get words(): number {
    return this.last.words;
  }

  get range(): VirtRange {
    return { start: this.start, length: this.bytes };
  }

  addressOf(word: number): number {
    const page = this.pages[Math.floor(word / SLOTS_OF_PAGE)]!;
    return this.start + page * PAGE_SIZE + SLOTS[word % SLOTS_OF_PAGE]!;
  }

  /** The words whose pages begin in a range. */
  wordsIn({ start, length }: VirtRange): number[] {
    return this.pages.flatMap((page, index) => {
      const address = this.start + page * PAGE_SIZE;
      if (address < start || address >= start + length) return [];
      return Array.from({ length: SLOTS_OF_PAGE }, (_, slot) => index * SLOTS_OF_PAGE + slot);
    });
  }

  /** What fork makes of it. */
  inherited(): Region {
    return new Region(this, this.kind === 'shared' ? this : { last: this.last.copy(), writers: this.writers.slice() });
  }
}

/** A process under stress. */
export interface Subject {
  readonly process: Process;
  readonly regions: Region[];
  /** Open mirrors, by device. */
  readonly mirrors: Map<number, Mirror>;
}
