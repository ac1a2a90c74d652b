/**
 * Branded numbers: a number has one kind (ARCHITECTURE decision 8).
 *
 * Pages, addresses and words are plain JavaScript numbers at run time; the brand exists only for the type checker, so that
 * an offset in the device private address space cannot be handed to code which wants a PFN.
 */
declare const brand: unique symbol;
export type Brand<T, Name extends string> = T & { readonly [brand]: Name };

/** Page frame number: a physical address divided by the page size. */
export type Pfn = Brand<number, 'Pfn'>;
/** Page-granular index in the device private address space. Offset 0 is a valid page. */
export type DevicePrivateOffset = Brand<number, 'DevicePrivateOffset'>;
/** Virtual address of a process, in bytes. */
export type VirtAddr = Brand<number, 'VirtAddr'>;
/** Physical address, in bytes. */
export type PhysAddr = Brand<number, 'PhysAddr'>;
/** Frame of a memory (RAM or a device's memory), counted in pages from the start of the memory's buffer. */
export type FrameIndex = Brand<number, 'FrameIndex'>;
/** `struct page *`: the number of a 64-byte slot in the memmap arena. 0 is never a page (it plays NULL). */
export type Page = Brand<number, 'Page'>;
/** A `MIGRATE_PFN_*` word (46 significant bits, so a plain number holds it). */
export type Mpfn = Brand<number, 'Mpfn'>;
/** A page table entry as it stands in memory. */
export type Pte = Brand<bigint, 'Pte'>;
/** A non-present page table entry with a meaning (`softleaf_t`). */
export type SoftLeaf = Brand<bigint, 'SoftLeaf'>;

export const NULL_PAGE = 0 as Page;
