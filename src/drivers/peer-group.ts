/**
 * Devices that reach each other's private memory. Linux: struct drm_pagemap_owner.
 *
 * The group is the owner of all their pagemaps. So `hmm_range_fault` reports a peer's page as it reports an own one, and a
 * migration to one of them collects the pages of the others: its copy engine fetches them without a stop in RAM. A device
 * that shares with nobody is a group of its own.
 */
import type { MemoryId } from '../abi/device-pte.js';
import type { Page } from '../base/brand.js';
import type { MmStruct } from '../mm/mm-struct.js';
import type { Dmirror } from './dmirror.js';
import type { MigrationContext } from './migration-targets.js';

/** Where a page's bytes are: a memory, and the frame there. */
export interface Place {
  readonly memory: MemoryId;
  readonly frame: number;
}

export class PeerGroup {
  readonly #members: MigrationContext[] = [];

  join(member: MigrationContext): void {
    this.#members.push(member);
  }

  /** Has a member's page more than one way to go, and its mirror more than one device to come from? */
  get shared(): boolean {
    return this.#members.length > 1;
  }

  /** Members that are lost. */
  get lost(): number {
    return this.#members.reduce((lost, { queue }) => lost + (queue.lost ? 1 : 0), 0);
  }

  /** Does the page belong to a member? */
  owns(page: Page): boolean {
    return this.#members.some(({ memory }) => memory.owns(page));
  }

  /** Where a member's page is; `null` for a page of somebody else, and of a member that is lost. */
  placeOf(page: Page): Place | null {
    for (const { memory, memoryId, queue } of this.#members) {
      if (memory.owns(page)) return queue.lost ? null : { memory: memoryId, frame: memory.frameOf(page) };
    }
    return null;
  }

  /** The mirrors that members have of an address space. */
  mirrorsOf(mm: MmStruct): readonly Dmirror[] {
    const [only] = this.#members;
    return this.shared ? this.#members.flatMap((member) => member.mirrorsOf(mm)) : only!.mirrorsOf(mm);
  }
}
