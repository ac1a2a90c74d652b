/** Where the pages of regions are, from the page tables alone: what a device that dies takes with it is looked up here. */
import { cpuEntryAt } from '../check/page-tables.js';
import type { MachineDevice, MachineState } from '../machine/state.js';
import type { Region, Subject } from './region.js';

/** A word that is used, by whom, and where. */
export interface Place {
  readonly subject: Subject;
  readonly region: Region;
  readonly word: number;
}

/** The words that are in the private memory of devices of which `isMeant` is true: only these are gone with a device. */
export function* wordsOn(
  { kernel, devices }: MachineState,
  subjects: readonly Subject[],
  isMeant: (device: MachineDevice) => boolean,
): Generator<Place, void, void> {
  const holders = devices.flatMap((device) => {
    const inspection = device.spec.type === 'private' && isMeant(device) ? device.driver.inspect?.() : undefined;
    return inspection === undefined ? [] : [inspection];
  });
  if (holders.length === 0) return;
  for (const subject of subjects) {
    const mm = [...kernel.mms].find(({ pid }) => pid === subject.process.pid);
    if (mm === undefined) continue;
    for (const region of subject.regions) {
      for (let word = 0; word < region.words; word++) {
        const entry = cpuEntryAt(kernel, mm, region.addressOf(word));
        if (entry === null || !entry.kind.startsWith('device-private')) continue;
        if (holders.some((holder) => holder.frameOf(entry.page) !== null)) yield { subject, region, word };
      }
    }
  }
}
