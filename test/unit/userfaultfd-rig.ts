/** A process with memory that a userfaultfd watches, for tests. */
import { expect } from 'vitest';
import type { VirtAddr } from '#src/base/brand';
import { userfaultfdWp as checker } from '#src/check/userfaultfd-wp';
import type { MachineState } from '#src/machine/state';
import { type Advice, doMadvise } from '#src/mm/madvise';
import type { MmStruct } from '#src/mm/mm-struct';
import { doMmap } from '#src/mm/mmap';
import { pagemapWord } from '#src/mm/proc-pagemap';
import { copyToUser } from '#src/mm/uaccess';
import { createUserfaultfd, userfaultfdProtect, userfaultfdRegister, userfaultfdResolve } from '#src/mm/userfaultfd';
import type { Userfaultfd, UserfaultfdFeatures } from '#src/mm/userfaultfd-context';
import type { Sleeps } from '#src/sync/task';
import { type Bench, PAGE, run, runUntilBlocked } from './mm-fixture';

export const PLACE = 0x10_0000_0000;
export const ELSEWHERE = 0x20_0000_0000 as VirtAddr;

/** A process with so many pages that were written (page i holds i + 1), registered. */
export class Watched {
  readonly bench: Bench;
  readonly mm: MmStruct;
  readonly at: VirtAddr;
  readonly pages: number;
  readonly uffd: Userfaultfd;

  constructor(bench: Bench, pages: number, features: UserfaultfdFeatures = {}, at?: VirtAddr, mm = bench.mm()) {
    this.bench = bench;
    this.mm = mm;
    this.pages = pages;
    this.at = at ?? bench.mmap(mm, pages, 'rw', PLACE);
    for (let i = 0; i < (at === undefined ? pages : 0); i++) bench.store(mm, this.at + i * PAGE, i + 1);
    this.uffd = createUserfaultfd(mm, features);
    expect(run(userfaultfdRegister(bench.kernel, this.uffd, this.at, pages * PAGE))).toBe(0);
  }

  protect(page = 0, pages = this.pages) {
    return run(userfaultfdProtect(this.bench.kernel, this.uffd, this.addr(page), pages * PAGE));
  }

  resolve(page = 0, pages = this.pages, wake = true) {
    return run(userfaultfdResolve(this.bench.kernel, this.uffd, this.addr(page), pages * PAGE, { wake }));
  }

  addr(page: number): VirtAddr {
    return (this.at + page * PAGE) as VirtAddr;
  }

  storing(page: number, byte: number): Sleeps<unknown> {
    return copyToUser(this.bench.kernel, this.mm, this.addr(page), Uint8Array.of(byte));
  }

  /** Stores and expects to sleep; the task that does. */
  sleeps(page: number, byte = 99): Sleeps<unknown> {
    const task = this.storing(page, byte);
    expect(runUntilBlocked(task)).toContain('userfaultfd');
    return task;
  }

  /** pagemap's bit 57 of each page. */
  protectedPages(mm = this.mm, at: number = this.at): number[] {
    return bits(this.bench, mm, at, this.pages);
  }

  check(): void {
    expect([...checker.look({ kernel: this.bench.kernel } as MachineState)]).toEqual([]);
  }
}

export const bits = (bench: Bench, mm: MmStruct, at: number, pages: number): number[] =>
  Array.from({ length: pages }, (_, i) =>
    Number((pagemapWord(bench.kernel, mm, (at + i * PAGE) as VirtAddr) >> 57n) & 1n),
  );
export const advise = (bench: Bench, mm: MmStruct, at: number, pages: number, advice: Advice) =>
  run(doMadvise(bench.kernel, mm, at as VirtAddr, pages * PAGE, advice));
export const shared = (bench: Bench, mm: MmStruct, pages: number): VirtAddr =>
  run(
    doMmap(bench.kernel, mm, {
      length: pages * PAGE,
      prot: 'rw',
      fixed: true,
      addr: PLACE as VirtAddr,
      kind: 'shared',
    }),
  ) as VirtAddr;
