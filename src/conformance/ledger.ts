/**
 * What of Linux this is, and what it is not: every kernel feature that the code touches, with the test that proves the row.
 * LEDGER.md is this, rendered (`npm run ledger`); a test keeps both equal, and each named test there.
 */
import { DEVICE_ROWS } from './ledger-devices.js';
import { HMM_TESTS } from './ledger-hmm-tests.js';
import { MEMORY_ROWS } from './ledger-memory.js';
import { PAGE_ROWS } from './ledger-pages.js';
import type { LedgerSection, LedgerStatus } from './ledger-row.js';
import { SITE_ROWS } from './ledger-sites.js';

export const LEDGER: readonly LedgerSection[] = [...MEMORY_ROWS, ...PAGE_ROWS, ...DEVICE_ROWS, ...SITE_ROWS];

const cell = (text: string): string => text.replaceAll('|', '\\|');
const line = (...cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;

/** The text of LEDGER.md. */
export function renderLedger(): string {
  const count = new Map<LedgerStatus, number>();
  for (const [, , status] of LEDGER.flatMap(({ rows }) => rows)) count.set(status, (count.get(status) ?? 0) + 1);
  const covered = HMM_TESTS.filter(([, , test]) => test !== null).length;
  return [
    '# Ledger: what of Linux is here',
    '',
    'Made from `src/conformance/ledger.ts` by `npm run ledger`. Do not edit.',
    '',
    `${[...count].map(([status, rows]) => `${rows} ${status}`).join(', ')}.`,
    ...LEDGER.flatMap(({ title, rows }) => [
      '',
      `## ${title}`,
      '',
      line('Linux', 'Status', 'Here', 'Test'),
      line('---', '---', '---', '---'),
      ...rows.map(([feature, does, status, test]) => line(feature, status, does, test ? `\`${test}\`` : '')),
    ]),
    '',
    "## The kernel's hmm-tests",
    '',
    `${covered} of ${HMM_TESTS.length}, each for private and for coherent devices.`,
    '',
    line('Name', 'Here', 'Test'),
    line('---', '---', '---'),
    ...HMM_TESTS.map(([name, what, test]) => line(name, what, test === null ? '' : `\`${test}\``)),
    '',
  ].join('\n');
}
