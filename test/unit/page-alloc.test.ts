import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { STRUCT_PAGE } from '#src/abi/struct-page';
import { NULL_PAGE, type Page, type Pfn } from '#src/base/brand';
import { InvariantViolation } from '#src/base/errors';
import { Memmap } from '#src/mm/memmap';
import { PageAllocator } from '#src/mm/page-alloc';
import { pageRefAdd, pageRefCount } from '#src/sync/page-ref';

const PAGES = 2048;
const MAX_ORDER = 9;

interface Setup {
  memmap: Memmap;
  buddy: PageAllocator;
  /** One byte stands for a frame. */
  frames: Uint8Array;
}

function setup({ pages = PAGES, firstPfn = 0, checked = true } = {}): Setup {
  const memmap = new Memmap(65536, 40);
  memmap.populateVmemmap(0 as Pfn, 65536);
  const frames = new Uint8Array(memmap.words.length / 16);
  const buddy = new PageAllocator(memmap, {
    checked,
    poison: (page) => {
      frames[page] = 0xaa;
    },
    verify: (page) => frames[page] === 0xaa,
  });
  buddy.addRange(firstPfn as Pfn, pages);
  return { memmap, buddy, frames };
}

const field = ({ memmap }: Setup, page: number, name: keyof typeof STRUCT_PAGE.word): number =>
  memmap.words[page * 16 + STRUCT_PAGE.word[name]];

function free({ memmap, buddy }: Setup, page: Page, order: number): void {
  pageRefAdd(memmap.words, page, -1);
  buddy.freePages(page, order);
}

const blocksOf = (buddy: PageAllocator): number[] => buddy.stats().map(({ freeBlocks }) => freeBlocks);

describe('PageAllocator', () => {
  it('starts with blocks of the highest order', () => {
    const { buddy } = setup();
    expect(buddy.freePagesCount).toBe(PAGES);
    expect(blocksOf(buddy)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, PAGES / 512]);
  });

  it('takes any range, across sections too', () => {
    const { buddy, memmap } = setup({ firstPfn: 32768 - 517, pages: 1000 });
    expect(buddy.freePagesCount).toBe(1000);
    const seen = new Set<number>();
    for (let page = buddy.allocPages(0); page !== NULL_PAGE; page = buddy.allocPages(0))
      seen.add(memmap.pageToPfn(page));
    expect([...seen].sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => 32768 - 517 + i));
  });

  it('hands out pages as a new owner expects them, and NULL when there are none', () => {
    const machine = setup({ pages: 512 });
    const page = machine.buddy.allocPages(3);
    expect(page % 8).toBe(0);
    expect(pageRefCount(machine.memmap.words, page)).toBe(1);
    for (let i = 0; i < 8; i++) {
      expect(field(machine, page + i, 'mapcount')).toBe(-1);
      expect(field(machine, page + i, 'entireMapcount')).toBe(-1);
      expect(field(machine, page + i, 'flags')).toBe(0);
    }
    expect(pageRefCount(machine.memmap.words, (page + 1) as Page)).toBe(0);
    expect(machine.buddy.allocPages(9)).toBe(NULL_PAGE);
    expect(machine.buddy.allocPages(8)).not.toBe(NULL_PAGE);
  });

  it('conserves pages, never gives one twice, and merges everything back', () => {
    const action = fc.record({ free: fc.boolean(), order: fc.integer({ min: 0, max: MAX_ORDER }), pick: fc.nat() });
    fc.assert(
      fc.property(fc.array(action, { maxLength: 120 }), fc.boolean(), (actions, checked) => {
        const machine = setup({ checked });
        const { buddy } = machine;
        const owned = new Uint8Array(machine.frames.length);
        const held: { page: Page; order: number }[] = [];
        let used = 0;
        const release = (at: number): void => {
          const [{ page, order }] = held.splice(at, 1);
          owned.fill(0, page, page + 2 ** order);
          used -= 2 ** order;
          free(machine, page, order);
        };
        for (const { free: isFree, order, pick } of actions) {
          if (isFree && held.length > 0) release(pick % held.length);
          else {
            const page = buddy.allocPages(order);
            if (page === NULL_PAGE) continue;
            expect(page % 2 ** order).toBe(0);
            expect(owned.subarray(page, page + 2 ** order).every((taken) => taken === 0)).toBe(true);
            owned.fill(1, page, page + 2 ** order);
            held.push({ page, order });
            used += 2 ** order;
          }
          expect(buddy.freePagesCount).toBe(PAGES - used);
        }
        while (held.length > 0) release(0);
        expect(blocksOf(buddy)).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, PAGES / 512]);
      }),
      { numRuns: 60 },
    );
  });

  it('bulk: pages come in ascending runs, and the rest of a block goes back', () => {
    const machine = setup();
    const out: Page[] = [];
    expect(machine.buddy.allocBulk(700, out)).toBe(700);
    expect(out.slice(1).filter((page, i) => page !== out[i] + 1).length).toBeLessThanOrEqual(1);
    expect(out.every((page) => pageRefCount(machine.memmap.words, page) === 1)).toBe(true);
    expect(machine.buddy.freePagesCount).toBe(PAGES - 700);
    const rest = new Float64Array(2000);
    expect(machine.buddy.allocBulk(2000, rest)).toBe(PAGES - 700);
    expect(new Set([...out, ...rest.subarray(0, PAGES - 700)]).size).toBe(PAGES);
    for (const page of out) free(machine, page, 0);
    for (const page of rest.subarray(0, PAGES - 700)) free(machine, page as Page, 0);
    expect(blocksOf(machine.buddy)[9]).toBe(PAGES / 512);
  });

  it('bulk: takes what is left of a fragmented memory', () => {
    const machine = setup({ pages: 512 });
    const all: Page[] = [];
    machine.buddy.allocBulk(512, all);
    for (let i = 0; i < 512; i += 2) free(machine, all[i], 0);
    const out: Page[] = [];
    expect(machine.buddy.allocBulk(1000, out)).toBe(256);
    expect(out).toHaveLength(256);
  });

  it('checked runs refuse pages in the wrong state', () => {
    const machine = setup();
    const { buddy, memmap } = machine;
    const page = buddy.allocPages(0);
    expect(() => buddy.freePages(page, 0)).toThrow('freed with 1 references');
    pageRefAdd(memmap.words, page, -1);
    memmap.words[page * 16 + STRUCT_PAGE.word.mapcount] = 0;
    expect(() => buddy.freePages(page, 0)).toThrow('freed while mapped');
    memmap.words[page * 16 + STRUCT_PAGE.word.mapcount] = -1;
    memmap.words[page * 16 + STRUCT_PAGE.word.flags] = 1;
    expect(() => buddy.freePages(page, 0)).toThrow('freed with flags 0x1');
    memmap.words[page * 16 + STRUCT_PAGE.word.flags] = 0;
    buddy.freePages(page, 0);
    expect(() => buddy.freePages(page, 0)).toThrow('freed twice');
    expect(() => buddy.freePages((page + 1) as Page, 1)).toThrow('not aligned');
  });

  it('checked runs find a frame that was written, and a page that was held, while it was free', () => {
    const machine = setup();
    const page = machine.buddy.allocPages(0);
    free(machine, page, 0);
    machine.frames[page] = 0xab;
    expect(() => machine.buddy.allocPages(0)).toThrow(InvariantViolation);
    const other = setup();
    const held = other.buddy.allocPages(0);
    free(other, held, 0);
    pageRefAdd(other.memmap.words, held, 1);
    expect(() => other.buddy.allocPages(0)).toThrow(`page ${held} (pfn 0x0): got a reference while it was free`);
  });
});
