/** Rows of the ledger: check sites and bugs of the past (src/mm/check-sites.ts), and those that the model cannot express. */

import { BEYOND_MODEL } from '../mm/check-sites/beyond.js';
import { CHECK_SITES } from '../mm/check-sites.js';
import type { LedgerRow, LedgerSection } from './ledger-row.js';

const TEST = 'test/unit/mutants.test.ts';

export const SITE_ROWS: readonly LedgerSection[] = [
  {
    title: 'Check sites: what a kernel can be made to forget',
    rows: CHECK_SITES.map(({ id, title, source, does, unreached }): LedgerRow => {
      const text = `\`--site ${id}\`: ${does}`;
      return [
        `${title} (${source})`,
        unreached === undefined ? text : `${text}. No run can tell: ${unreached}`,
        'emulated',
        TEST,
      ];
    }),
  },
  {
    title: 'Bugs of the series that the model cannot express',
    rows: BEYOND_MODEL.map(({ title, source, why }): LedgerRow => [`${title} (${source})`, why, 'ignored']),
  },
];
