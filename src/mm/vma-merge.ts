/** Borders of VMAs: splitting, and merging of neighbours that differ in nothing. Linux: mm/vma.c. */
import type { VirtAddr } from '../base/brand.js';
import type { Sleeps } from '../sync/task.js';
import { vmFileGet, vmFilePut } from './filemap.js';
import { hugeFits } from './huge-memory.js';
import { isHugeAligned, splitHugePmd } from './huge-pmd.js';
import type { Kernel } from './kernel.js';
import type { MmStruct } from './mm-struct.js';
import { findPmd, NO_TABLE } from './pgtable.js';
import { anonVmaClone, anonVmaUnlink, anonVmaUpdate } from './rmap.js';
import { linearPageIndex, VM_SOFTDIRTY, VM_SPECIAL, VmArea } from './vma.js';

/** `__split_vma()`: make `addr` a border, however many mappings there are. */
export function* splitVma(kernel: Kernel, mm: MmStruct, addr: number): Sleeps<void> {
  const vma = mm.vmas.find(addr);
  if (vma === undefined || vma.start === addr) return;
  // vma_adjust_trans_huge(): no huge page crosses a border.
  if (!isHugeAligned(addr) && hugeFits(vma, addr) && findPmd(kernel, mm, addr) !== NO_TABLE) {
    yield* splitHugePmd(kernel, vma, addr);
  }
  const pgoff = linearPageIndex(vma, addr);
  const upper = new VmArea(mm, addr as VirtAddr, vma.end, vma.flags, pgoff, vma.file);
  upper.userfaultfd = vma.userfaultfd;
  vmFileGet(vma.file);
  setVmaEnd(vma, addr);
  mm.vmas.insert(upper.start, upper.end, upper);
  anonVmaClone(upper, vma);
}

/** Move the upper border. Precondition: nothing else is mapped up to there. */
export function setVmaEnd(vma: VmArea, end: number): void {
  const { vmas } = vma.mm;
  vmas.remove(vma.start);
  vma.end = end as VirtAddr;
  vmas.insert(vma.start, vma.end, vma);
  anonVmaUpdate(vma);
  if (vma.file !== null) vma.fileEntry = ++vma.file.entered;
}

/**
 * `vma_modify_flags()`, `vma_modify_flags_uffd()`: give [start, end) of a VMA other flags (and another userfaultfd); what lies beside it
 * becomes a VMA of its own, or one with it where nothing distinguishes the two any more. ENOMEM: there would be too many.
 */
export function* modifyVmaFlags(
  kernel: Kernel,
  vma: VmArea,
  start: number,
  end: number,
  flags: number,
  userfaultfd = vma.userfaultfd,
): Sleeps<VmArea | 'ENOMEM'> {
  const { mm } = vma;
  const splits = (vma.start < start ? 1 : 0) + (end < vma.end ? 1 : 0);
  const room = kernel.maxMapCount - mm.vmas.size;
  if (splits > 0 && room < splits && !joinsNeighbour(vma, start, end, { flags, userfaultfd })) {
    // split_vma(): the first of two splits is not undone.
    if (room === 1) yield* splitVma(kernel, mm, start);
    return 'ENOMEM';
  }
  yield* splitVma(kernel, mm, start);
  yield* splitVma(kernel, mm, end);
  const middle = mm.vmas.find(start)!;
  middle.flags = flags;
  middle.userfaultfd = userfaultfd;
  return mergeVma(kernel, middle);
}

/**
 * `vma_merge_{new,existing,copied}_range()`: make one of the VMA and the neighbours that continue it. Returns what it became.
 * @param other a VMA with which it does not become one
 */
export function mergeVma(kernel: Kernel, vma: VmArea, other?: VmArea): VmArea {
  if ((vma.flags & VM_SPECIAL) !== 0) return vma;
  const { vmas } = vma.mm;
  const prev = vmas.previous(vma.start)?.value;
  const next = vmas.find(vma.end);
  const left = prev !== undefined && prev !== other && continues(prev, vma);
  let right = next !== undefined && next !== other && continues(vma, next);
  // Each may agree with the VMA in the middle and yet not with the other.
  if (left && right && prev.anonVma !== null && next!.anonVma !== null) right = prev.anonVma === next!.anonVma;
  if (right) absorb(kernel, vma, next!);
  if (!left) return vma;
  absorb(kernel, prev, vma);
  return prev;
}

type VmaKind = Pick<VmArea, 'flags' | 'userfaultfd'>;

/** `vma_merge_existing_range()`: does [start, end) of a VMA, once it is of that kind, belong to the VMA in front of it or behind? */
function joinsNeighbour(vma: VmArea, start: number, end: number, asked: VmaKind): boolean {
  if ((asked.flags & VM_SPECIAL) !== 0) return false;
  const { vmas } = vma.mm;
  const prev = start === vma.start ? vmas.previous(start)?.value : undefined;
  const next = end === vma.end ? vmas.find(end) : undefined;
  const joins = (lower: VmArea, upper: VmArea, other: VmArea): boolean => alike(other, asked) && adjoins(lower, upper);
  return (prev !== undefined && joins(prev, vma, prev)) || (next !== undefined && joins(vma, next, next));
}

const alike = (a: VmaKind, b: VmaKind): boolean =>
  ((a.flags ^ b.flags) & ~VM_SOFTDIRTY) === 0 && a.userfaultfd === b.userfaultfd;

const adjoins = (lower: VmArea, upper: VmArea): boolean =>
  lower.end === upper.start &&
  lower.file === upper.file &&
  upper.pgoff === linearPageIndex(lower, upper.start) &&
  anonVmasAgree(lower, upper);

/** `can_vma_merge_{before,after}()`. */
const continues = (lower: VmArea, upper: VmArea): boolean => alike(lower, upper) && adjoins(lower, upper);

/** `is_mergeable_anon_vma()`: the same, or one has none and the other did not inherit its own by fork. */
function anonVmasAgree(a: VmArea, b: VmArea): boolean {
  if (a.anonVma === b.anonVma) return true;
  if (a.anonVma !== null && b.anonVma !== null) return false;
  return (a.anonVma === null ? b : a).anonChain.length === 1;
}

/** `lower` takes in its upper neighbour. */
function absorb(kernel: Kernel, lower: VmArea, upper: VmArea): void {
  lower.mm.vmas.remove(upper.start);
  lower.flags |= upper.flags & VM_SOFTDIRTY;
  setVmaEnd(lower, upper.end);
  if (lower.anonVma === null) anonVmaClone(lower, upper);
  anonVmaUnlink(kernel, upper);
  vmFilePut(kernel, upper.file);
}
