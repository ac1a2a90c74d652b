/** Files for tests of mm: made, mapped, and looked at by the checkers that need nothing but a kernel. */
import { expect } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { framesConserved } from '#src/check/frames-conserved';
import { pageAccounting } from '#src/check/page-accounting';
import { pageCache } from '#src/check/page-cache';
import { rmap } from '#src/check/rmap';
import type { MachineState } from '#src/machine/state';
import { createFile, type RegularFile } from '#src/mm/file';
import { vmFilePut } from '#src/mm/filemap';
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
    ...checker.look({ kernel } as unknown as MachineState),
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
