/** Where the pages of regions are, from the page tables alone: what a device that dies, or memory that fails, takes with it is looked up here. */
import type { VirtAddr } from '../base/brand.js';
import { type CpuEntry, cpuEntryAt } from '../check/page-tables.js';
import type { MachineDevice, MachineState } from '../machine/state.js';
import { mmOfPid } from '../mm/mm-struct.js';
import type { Region, Subject } from './region.js';

/** A word that is used, by whom, and where. */
export interface Place {
  readonly subject: Subject;
  readonly region: Region;
  readonly word: number;
  /** What the page table says of it. */
  readonly entry: CpuEntry;
}

/** Words whose entries are meant. */
export function* wordsWhere(
  { kernel }: MachineState,
  subjects: readonly Subject[],
  isMeant: (entry: CpuEntry) => boolean,
): Generator<Place, void, void> {
  for (const subject of subjects) {
    const mm = mmOfPid(kernel, subject.process.pid);
    if (mm === undefined) continue;
    for (const region of subject.regions) {
      for (let word = 0; word < region.words; word++) {
        const entry = cpuEntryAt(kernel, mm, region.addressOf(word) as VirtAddr);
        if (entry !== null && isMeant(entry)) yield { subject, region, word, entry };
      }
    }
  }
}

/** The words that are in the private memory of devices of which `isMeant` is true: only these are gone with a device. */
export function wordsOn(
  state: MachineState,
  subjects: readonly Subject[],
  isMeant: (device: MachineDevice) => boolean,
): Iterable<Place> {
  const holders = state.devices.flatMap((device) => {
    const inspection = device.spec.type === 'private' && isMeant(device) ? device.driver.inspect?.() : undefined;
    return inspection === undefined ? [] : [inspection];
  });
  if (holders.length === 0) return [];
  const isThere = ({ kind, page }: CpuEntry): boolean =>
    kind.startsWith('device-private') && holders.some((holder) => holder.frameOf(page) !== null);
  return wordsWhere(state, subjects, isThere);
}

/** The words that are lost: with a device that has died, or with memory that has failed. */
export function* lostWords(state: MachineState, subjects: readonly Subject[]): Generator<Place, void, void> {
  yield* wordsOn(state, subjects, ({ link }) => link.lost !== null);
  if (state.kernel.memoryFailures.poisoned > 0) yield* wordsWhere(state, subjects, ({ kind }) => kind === 'hwpoison');
}
