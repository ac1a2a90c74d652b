/** Kernels that have forgotten something (mm/check-sites.ts), as those who run them speak of it. */
import { DEFAULT_REVISION, type SiteChoice } from '../mm/check-sites.js';

/** Does the kernel do less than the one that forgets nothing? */
export const isForgetful = ({ revision, forget = [] }: SiteChoice): boolean =>
  forget.length > 0 || (revision ?? DEFAULT_REVISION) !== DEFAULT_REVISION;

/** What it forgets, behind what else is said of a machine: ` · revision v3 · forgets collect-kind`, or nothing. */
export function forgettingText({ revision = DEFAULT_REVISION, forget = [] }: SiteChoice): string {
  const posting = revision === DEFAULT_REVISION ? '' : ` · revision ${revision}`;
  return forget.length === 0 ? posting : `${posting} · forgets ${forget.join(', ')}`;
}
