/**
 * The protection of a userfaultfd in single entries, and the markers that keep it where nothing is mapped. Linux:
 * include/linux/userfaultfd_k.h, leafops.h, mm_inline.h pte_install_uffd_wp_if_needed().
 */
import {
  halvesNumber,
  highType,
  LOW_SWP_UFFD_WP,
  LOW_UFFD_WP,
  leafHigh,
  leafLow,
  lowPresent,
} from '../abi/pte-halves.js';
import { PTE_MARKER_UFFD_WP } from '../abi/softleaf.js';
import { setPteHalves } from '../sync/word.js';
import type { Kernel } from './kernel.js';
import { userfaultfdWp, type VmArea, vmaIsAnonymous } from './vma.js';

/** `userfaultfd_wp_use_markers()`: can a place be protected where nothing is mapped? */
export const usesWpMarkers = (vma: VmArea): boolean =>
  userfaultfdWp(vma) && (!vmaIsAnonymous(vma) || vma.userfaultfd!.features.wpUnpopulated);

/** `make_pte_marker(PTE_MARKER_UFFD_WP)`. Precondition: page table lock held, nothing stands at `at`. */
export function setWpMarker(kernel: Kernel, at: number): void {
  const type = Number(kernel.addressing.swapTypes.typeOf.marker);
  const low = leafLow(PTE_MARKER_UFFD_WP, 0);
  setPteHalves(kernel.ram.words, at, low, leafHigh(type, PTE_MARKER_UFFD_WP, 0));
}

/** `softleaf_is_uffd_wp_marker()`, of an entry that is neither none nor present. */
export const isWpMarker = (kernel: Kernel, low: number, high: number): boolean =>
  kernel.addressing.swapTypes.kindOf[highType(high)] === 'marker' &&
  (halvesNumber(low, high) & PTE_MARKER_UFFD_WP) !== 0;

/** Does an entry have the protection, in whatever form (`pte_uffd_wp()`, `pte_swp_uffd_wp_any()`)? */
export function entryHasWp(kernel: Kernel, low: number, high: number): boolean {
  if ((low | high) === 0) return false;
  if (lowPresent(low)) return (low & LOW_UFFD_WP) !== 0;
  return (low & LOW_SWP_UFFD_WP) !== 0 || isWpMarker(kernel, low, high);
}

/** Does the protection of a place outlive what is mapped there? So it does of files, whose pages come back. */
export const keepsWpMarkers = (vma: VmArea): boolean => userfaultfdWp(vma) && !vmaIsAnonymous(vma);

/**
 * `pte_install_uffd_wp_if_needed()`: an entry (given by its halves) was cleared; its protection stays. Returns whether it had any.
 * Precondition: page table lock held; the VMA keeps markers.
 */
export function installWpMarker(kernel: Kernel, at: number, low: number, high: number): boolean {
  const had = entryHasWp(kernel, low, high);
  if (had) setWpMarker(kernel, at);
  return had;
}
