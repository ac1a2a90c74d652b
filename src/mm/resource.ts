/**
 * Who holds which physical range: the iomem resource tree. Linux: kernel/resource.c (insert_resource, __request_region,
 * get_free_mem_region), fs side of /proc/iomem.
 *
 * The rule by which device memory finds its place was read from Linux 7.2 and checked on recorded machines
 * (`pfnless layouts`). Not modelled: resource flags other than BUSY, descriptors, the resource lock (one thread).
 */
import { SECTION_SIZE } from '../abi/address.js';
import type { Errno } from '../abi/errno.js';
import type { PhysAddr } from '../base/brand.js';
import { assert } from '../base/errors.js';
import { RangeTree } from '../base/range-tree.js';

/** Levels that /proc/iomem indents (MAX_IORES_LEVEL). */
const MAX_INDENT = 8;

/** What to put into the tree: bytes `start` to `end`, both included, as Linux has it. */
export interface ResourceSpec {
  readonly start: number;
  readonly end: number;
  readonly name: string;
  /** Nothing may be requested inside (IORESOURCE_BUSY). Default: not busy. */
  readonly busy?: boolean;
}

/** A node of the tree. */
export interface Resource extends ResourceSpec {
  readonly start: PhysAddr;
  readonly end: PhysAddr;
  readonly busy: boolean;
}

/** One line of /proc/iomem. */
export interface ResourceEntry {
  readonly start: number;
  /** Included. */
  readonly end: number;
  readonly name: string;
  readonly depth: number;
}

/** How far physical addresses reach. */
export interface PhysicalLimits {
  /** Address bits that the CPU has: the iomem root ends at 2^physBits - 1. */
  readonly physBits: number;
  /** Address bits that the direct map can name: 52 with five-level paging, 46 without. */
  readonly maxPhysmemBits: number;
  /** The iomem root's end (included) where it is known by itself. */
  readonly rootEnd?: number;
  /** The direct map's end (included) where it is known by itself. */
  readonly directMapEnd?: number;
  /** Bytes of a memory section. Default 128 MiB (x86-64). */
  readonly sectionSize?: number;
}

class Node implements Resource {
  readonly start: PhysAddr;
  readonly end: PhysAddr;
  readonly name: string;
  readonly busy: boolean;
  parent: Node | null = null;
  readonly children = new RangeTree<Node>();

  constructor({ start, end, name, busy = false }: ResourceSpec) {
    this.start = start as PhysAddr;
    this.end = end as PhysAddr;
    this.name = name;
    this.busy = busy;
  }

  covers(other: ResourceSpec): boolean {
    return this.start <= other.start && other.end <= this.end;
  }

  adopt(child: Node): void {
    const added = this.children.insert(child.start, child.end + 1, child);
    assert(added, () => `${child.name} overlaps another resource in ${this.name}`);
    child.parent = this;
  }

  /** First child that overlaps `range`. */
  conflict(range: ResourceSpec): Node | null {
    const next = this.children.firstEndingAfter(range.start);
    return next !== undefined && next.start <= range.end ? next.value : null;
  }
}

export class ResourceTree {
  readonly #root: Node;
  /** Last address that device memory may have. */
  readonly #limit: number;
  readonly #sectionSize: number;

  constructor(limits: PhysicalLimits) {
    const {
      rootEnd = 2 ** limits.physBits - 1,
      directMapEnd = 2 ** limits.maxPhysmemBits - 1,
      sectionSize = SECTION_SIZE,
    } = limits;
    assert(rootEnd > 0 && rootEnd < 2 ** 53, () => `iomem root cannot end at ${rootEnd}`);
    this.#root = new Node({ start: 0, end: rootEnd, name: 'PCI mem' });
    this.#limit = Math.min(rootEnd, directMapEnd);
    this.#sectionSize = sectionSize;
  }

  /**
   * `insert_resource()`: goes into the innermost resource that covers it, and becomes the parent of those that it covers.
   * @returns EBUSY when it overlaps another one partly, or leaves the root
   */
  insert(range: ResourceSpec): Resource | Errno {
    const node = new Node(range);
    let parent = this.#root;
    if (range.start > range.end || !parent.covers(range)) return 'EBUSY';
    let conflict = parent.conflict(range);
    while (conflict?.covers(range) && !node.covers(conflict)) {
      parent = conflict;
      conflict = parent.conflict(range);
    }
    const covered: Node[] = [];
    for (const { start, value } of parent.children.from(range.start)) {
      if (start > range.end) break;
      if (!node.covers(value)) return 'EBUSY';
      covered.push(value);
    }
    for (const child of covered) {
      parent.children.remove(child.start);
      node.adopt(child);
    }
    parent.adopt(node);
    return node;
  }

  /** `request_mem_region()`: claim a range for a driver. @returns EBUSY when a byte of it is claimed already */
  requestMemRegion({ start, end, name }: ResourceSpec): Resource | Errno {
    const node = new Node({ start, end, name, busy: true });
    let parent = this.#root;
    while (start <= end && parent.covers(node)) {
      const conflict = parent.conflict(node);
      if (conflict === null) {
        parent.adopt(node);
        return node;
      }
      if (conflict.busy) break;
      parent = conflict;
    }
    return 'EBUSY';
  }

  /**
   * `request_free_mem_region()`: claim room for device memory, as high as possible.
   *
   * The size is rounded up to sections. The first candidate ends with the last usable address, each next one is a section
   * lower, and the lowest must lie above the first section by at least a byte. Whatever stands directly below the root is in
   * the way, busy or not; nobody looks for holes inside it. Where Linux steps section by section, this jumps below the
   * conflicting resource: every candidate in between would hit it too.
   *
   * @param size bytes; a `bigint` for sizes near 2^64, which are refused like all that do not fit
   * @returns ERANGE when there is no room
   */
  requestFreeMemRegion(size: number | bigint, name: string): Resource | Errno {
    const sectionSize = this.#sectionSize;
    const bytes = Math.ceil(Number(size) / sectionSize) * sectionSize;
    if (bytes <= 0) return 'ERANGE';

    let start = this.#limit + 1 - bytes;
    while (start > sectionSize) {
      const next = this.#root.children.firstEndingAfter(start);
      if (next === undefined || next.start >= start + bytes) {
        const node = new Node({ start, end: start + bytes - 1, name, busy: true });
        this.#root.adopt(node);
        return node;
      }
      start -= Math.ceil((start + bytes - next.start) / sectionSize) * sectionSize;
    }
    return 'ERANGE';
  }

  /** `release_resource()`: give the range back, with all that was inserted below it. Precondition: it is in this tree. */
  releaseMemRegion(resource: Resource): void {
    const node = resource as Node;
    const removed = node.parent?.children.remove(node.start);
    assert(removed === node, () => `${resource.name} at 0x${resource.start.toString(16)} is not in the tree`);
    node.parent = null;
  }

  /** The tree in the order of /proc/iomem. */
  entries(): ResourceEntry[] {
    const entries: ResourceEntry[] = [];
    const visit = (parent: Node, depth: number): void => {
      for (const { value } of parent.children) {
        entries.push({ start: value.start, end: value.end, name: value.name, depth });
        visit(value, depth + 1);
      }
    };
    visit(this.#root, 0);
    return entries;
  }

  /** The text of /proc/iomem. */
  print(): string {
    return formatResources(this.entries(), this.#root.end);
  }
}

/** Lines as /proc/iomem prints them. `rootEnd` decides how many digits an address has at least. */
export function formatResources(entries: Iterable<ResourceEntry>, rootEnd: number): string {
  const digits = rootEnd < 0x10000 ? 4 : 8;
  const hex = (address: number): string => address.toString(16).padStart(digits, '0');
  let text = '';
  for (const { start, end, name, depth } of entries) {
    text += `${'  '.repeat(Math.min(depth, MAX_INDENT))}${hex(start)}-${hex(end)} : ${name}\n`;
  }
  return text;
}
