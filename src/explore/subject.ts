/** A process of a running program, as its tasks see it: the address space, the open mirrors, what is pinned. */
import { PAGE_SIZE } from '../abi/address.js';
import type { Page, VirtAddr } from '../base/brand.js';
import { OpenMirror } from '../machine/open-mirror.js';
import type { MachineState } from '../machine/state.js';
import { putUserPages, unpinUserPages } from '../mm/gup.js';
import { exitMm, type MmStruct } from '../mm/mm-struct.js';
import { createUserfaultfd, releaseUserfaultfd } from '../mm/userfaultfd.js';
import type { Userfaultfd } from '../mm/userfaultfd-context.js';
import type { VmFile } from '../mm/vma.js';
import type { Sleeps } from '../sync/task.js';
import type { UffdFeature } from '../workload/program/program.js';

/** The arena: where a huge page could begin. */
const ARENA = 2 ** 30;

export const addressOf = (page: number): VirtAddr => (ARENA + page * PAGE_SIZE) as VirtAddr;

export class Subject {
  /** Number of the process in the program. */
  readonly index: number;
  readonly family: number;
  readonly mm: MmStruct;
  /** The program's file, if it has one. */
  readonly file: VmFile | null;
  readonly #machine: MachineState;
  readonly #mirrors: (OpenMirror | null)[] = [];
  readonly #held: { readonly task: string; readonly pinned: boolean; readonly pages: readonly Page[] }[] = [];
  #userfaultfd: Userfaultfd | null = null;
  gone = false;

  constructor(machine: MachineState, index: number, family: number, mm: MmStruct, file: VmFile | null) {
    this.#machine = machine;
    this.index = index;
    this.family = family;
    this.mm = mm;
    this.file = file;
  }

  *open(device: number): Sleeps<void> {
    if (this.#mirrors[device] != null) return;
    const opened = yield* this.#machine.devices[device]!.driver.open(this.mm, { onFault: 'migrate' });
    const other = this.#mirrors[device];
    // Two tasks may have opened it at a time: one is enough.
    if (other != null) yield* new OpenMirror(opened).put();
    else this.#mirrors[device] = new OpenMirror(opened);
  }

  /** The mirror on a device, held until `put`; `null` when none is open. */
  getMirror(device: number): OpenMirror | null {
    return this.#mirrors[device]?.get() ?? null;
  }

  /** False when none is open. */
  *close(device: number): Sleeps<boolean> {
    const open = this.#mirrors[device] ?? null;
    if (open === null) return false;
    this.#mirrors[device] = null;
    yield* open.put();
    return true;
  }

  /** `null` while none is open. */
  get userfaultfd(): Userfaultfd | null {
    return this.#userfaultfd;
  }

  /** The one that is open, or a new one with a feature. */
  openUserfaultfd(feature?: UffdFeature): Userfaultfd {
    const features = {
      wpUnpopulated: feature === 'unpopulated',
      wpAsync: feature === 'async',
      sigbus: feature === 'sigbus',
    };
    this.#userfaultfd ??= createUserfaultfd(this.mm, features);
    return this.#userfaultfd;
  }

  *closeUserfaultfd(): Sleeps<void> {
    const open = this.#userfaultfd;
    this.#userfaultfd = null;
    if (open !== null) yield* releaseUserfaultfd(this.#machine.kernel, open);
  }

  hold(task: string, pinned: boolean, pages: readonly Page[]): void {
    this.#held.push({ task, pinned, pages });
  }

  /** Let go what is held of one kind, by one task or (without one) by all. */
  letGo(pinned: boolean, task?: string): void {
    for (let at = this.#held.length - 1; at >= 0; at--) {
      const held = this.#held[at]!;
      if (held.pinned !== pinned || (task !== undefined && held.task !== task)) continue;
      this.#held.splice(at, 1);
      if (held.pinned) unpinUserPages(this.#machine.kernel, held.pages);
      else putUserPages(this.#machine.kernel, held.pages);
    }
  }

  *exit(): Sleeps<void> {
    this.gone = true;
    yield* this.closeUserfaultfd();
    yield* exitMm(this.#machine.kernel, this.mm);
    this.letGo(true);
    this.letGo(false);
    for (let device = 0; device < this.#mirrors.length; device++) yield* this.close(device);
  }
}
