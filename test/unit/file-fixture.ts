/** Files for tests of mm: made, mapped, and looked at by the checkers that need nothing but a kernel. */
import { expect } from 'vitest';
import { PTE_ACCESSED, PTE_MKDIRTY, PTE_PRESENT, PTE_USER, PTE_WRITE } from '#src/abi/pte';
import { PAGE_FLAGS } from '#src/abi/struct-page';
import type { Page, VirtAddr } from '#src/base/brand';
import { framesConserved } from '#src/check/frames-conserved';
import { pageAccounting } from '#src/check/page-accounting';
import { pageCache } from '#src/check/page-cache';
import { rmap } from '#src/check/rmap';
import type { MachineState } from '#src/machine/state';
import { createFile, fileRead, fileWrite, type RegularFile } from '#src/mm/file';
import { vmFilePut } from '#src/mm/filemap';
import { forkMm } from '#src/mm/fork';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap, type Protection } from '#src/mm/mmap';
import type { VmFile } from '#src/mm/vma';
import { type AddressingName, type Bench, PAGE, run, withKernel } from './mm-fixture';

/** Pages of bytes, page `i` full of `first + i`. */
export function filledPages(pages: number, first = 1): Uint8Array {
  const bytes = new Uint8Array(pages * PAGE);
  for (let i = 0; i < pages; i++) bytes.fill(first + i, i * PAGE, (i + 1) * PAGE);
  return bytes;
}

export interface MapOptions {
  readonly shared?: boolean;
  readonly prot?: Protection;
  readonly pgoff?: number;
  readonly addr?: number;
}

export function mapFile(bench: Bench, mm: MmStruct, file: VmFile, pages: number, options: MapOptions = {}): VirtAddr {
  const { shared = true, prot = 'rw', pgoff = 0, addr } = options;
  const start = run(
    doMmap(bench.kernel, mm, {
      length: pages * PAGE,
      prot,
      kind: shared ? 'shared' : 'private',
      file: { file, pgoff },
      fixed: addr !== undefined,
      ...(addr === undefined ? {} : { addr: addr as VirtAddr }),
    }),
  );
  if (typeof start === 'string') throw new Error(start);
  return start;
}

/** What the checkers find that look at page tables and struct pages. */
export const violations = ({ kernel }: Bench): string[] =>
  [framesConserved, pageAccounting, pageCache, rmap].flatMap((checker) => [
    ...checker.look({ kernel, heldPages: new Map() } as unknown as MachineState),
  ]);

/** A kernel with one open file; at the end the checkers look, the file is closed, and nothing may be left. */
export function withFile(
  addressing: AddressingName,
  contents: Uint8Array | number,
  body: (bench: Bench, file: RegularFile) => void,
): void {
  withKernel(addressing, (bench) => {
    const bytes = typeof contents === 'number' ? new Uint8Array(0) : contents;
    const file = createFile(bench.kernel, bytes, typeof contents === 'number' ? contents : bytes.length);
    body(bench, file);
    expect(violations(bench)).toEqual([]);
    vmFilePut(bench.kernel, file);
  });
}

/** Flags of an entry that maps a page for reading, and of one through which it was written. */
export const READ = PTE_PRESENT | PTE_USER | PTE_ACCESSED;
export const DIRTY = READ | PTE_WRITE | PTE_MKDIRTY;
export const { PG_dirty } = PAGE_FLAGS;

export const flagsAt = (bench: Bench, mm: MmStruct, addr: number): bigint => bench.pte(mm, addr) & 0xfffn;
export const isDirty = (bench: Bench, page: Page): boolean => (bench.field(page, 'flags') & PG_dirty) !== 0;
export const rss = ({ rssAnon, rssFile, rssShmem }: MmStruct): number[] => [rssAnon, rssFile, rssShmem];
export const at = (start: number, page: number): VirtAddr => (start + page * PAGE) as VirtAddr;
export const stored = (file: RegularFile, page: number): number => file.store.bytes(page * PAGE, 1)[0]!;

export function pread(bench: Bench, file: RegularFile, offset: number, length: number): number[] {
  const bytes = run(fileRead(bench.kernel, file, offset, length));
  if (typeof bytes === 'string') throw new Error(bytes);
  return [...bytes];
}

export const pwrite = (bench: Bench, file: RegularFile, offset: number, ...bytes: number[]): unknown =>
  run(fileWrite(bench.kernel, file, offset, Uint8Array.from(bytes)));

export function fork(bench: Bench, parent: MmStruct): MmStruct {
  const child = run(forkMm(bench.kernel, parent, 77));
  if (child === undefined) throw new Error('no memory');
  return child;
}
