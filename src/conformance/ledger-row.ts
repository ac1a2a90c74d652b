/** Rows of the ledger. */

/**
 * `emulated`: as Linux does it, as far as anybody can see. `simplified`: the outcome is Linux's, but the way to it is not, or
 * only the part that is named is here. `ignored`: no trace of it, and nothing that is modelled would come out otherwise.
 * `refused`: an error says so. `missing`: Linux has it, programs would notice, and it is not here.
 */
export type LedgerStatus = 'emulated' | 'simplified' | 'ignored' | 'refused' | 'missing';

/** Linux's name, what is done here, and the test that proves it: only what does nothing needs no proof. */
export type LedgerRow =
  | readonly [feature: string, does: string, status: 'emulated' | 'simplified' | 'refused', test: string]
  | readonly [feature: string, does: string, status: 'ignored' | 'missing'];

export interface LedgerSection {
  readonly title: string;
  readonly rows: readonly LedgerRow[];
}
