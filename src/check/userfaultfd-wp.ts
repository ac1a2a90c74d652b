/**
 * Holds: an entry that a userfaultfd protects cannot be written through, and lies where one is registered; so does a marker. What is
 * registered and what names who has registered it are one.
 *
 * Does not see: protection that was lost (nothing in memory says what should be protected). Address spaces that never had a
 * userfaultfd are not looked at. Suspended while anything is in flight.
 */
import type { Checker } from '../machine/state.js';
import { entryHasWp } from '../mm/pte-marker.js';
import { userfaultfdWp as isRegistered } from '../mm/vma.js';
import { cpuEntries, placeText } from './page-tables.js';

export const userfaultfdWp: Checker = {
  invariant: 'userfaultfd-wp',
  statement: 'what a userfaultfd protects is registered with it and cannot be written',
  *look({ kernel }) {
    for (const mm of kernel.mms) {
      for (const { value: vma } of mm.vmas) {
        if (isRegistered(vma) !== (vma.userfaultfd !== null)) {
          const what = vma.userfaultfd === null ? 'registered with nobody' : 'not registered with its userfaultfd';
          yield `${placeText(mm, vma.start)}: a mapping that is ${what}`;
        }
      }
      if (!mm.usesUserfaultfd) continue;
      for (const { address, kind, writable, low, high } of cpuEntries(kernel, mm)) {
        if (!entryHasWp(kernel, low, high)) continue;
        const vma = mm.vmas.find(address);
        if (vma === undefined || !isRegistered(vma))
          yield `${placeText(mm, address)}: an entry (${kind}) is protected by nobody`;
        if (writable || kind === 'device-private-write' || kind === 'migration-write') {
          yield `${placeText(mm, address)}: an entry (${kind}) is protected and writable`;
        }
      }
    }
  },
};
