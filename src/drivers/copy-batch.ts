/**
 * The copies of one migration: gathered page by page, sent as runs of neighbours. Nothing moves before the queue sends them.
 * Each migration has a batch of its own, so migrations that overlap in time do not mix.
 */
import type { MemoryId } from '../abi/device-pte.js';
import { COPY_ZERO, packMemories } from '../abi/packet.js';
import type { Page } from '../base/brand.js';

/** One run, as the copy packet has it (packet.ts). */
export interface CopyRun {
  readonly memories: number;
  readonly sourceFrame: number;
  readonly targetFrame: number;
  readonly sourcePage: Page;
  readonly targetPage: Page;
  pages: number;
  /** Its fence; 0 until it is sent. */
  sequence: number;
}

export class CopyBatch {
  readonly runs: CopyRun[] = [];
  #last: CopyRun | null = null;

  /** Copy pages between memories; struct pages are named so that the copy engine can hold them. */
  copy(
    sourceMemory: MemoryId,
    sourceFrame: number,
    sourcePage: Page,
    targetMemory: MemoryId,
    targetFrame: number,
    targetPage: Page,
    pages = 1,
  ): void {
    const memories = packMemories(sourceMemory, targetMemory);
    const last = this.#last;
    if (
      last !== null &&
      last.memories === memories &&
      last.sourceFrame + last.pages === sourceFrame &&
      last.targetFrame + last.pages === targetFrame &&
      last.sourcePage + last.pages === sourcePage &&
      last.targetPage + last.pages === targetPage
    ) {
      last.pages += pages;
      return;
    }
    this.#last = { memories, sourceFrame, targetFrame, sourcePage, targetPage, pages, sequence: 0 };
    this.runs.push(this.#last);
  }

  /** Fill pages with zeroes. */
  zero(memory: MemoryId, frame: number, page: Page, pages = 1): void {
    const memories = packMemories(0, memory) | COPY_ZERO;
    const last = this.#last;
    if (
      last !== null &&
      last.memories === memories &&
      last.targetFrame + last.pages === frame &&
      last.targetPage + last.pages === page
    ) {
      last.pages += pages;
      return;
    }
    this.#last = {
      memories,
      sourceFrame: 0,
      targetFrame: frame,
      sourcePage: 0 as Page,
      targetPage: page,
      pages,
      sequence: 0,
    };
    this.runs.push(this.#last);
  }
}
