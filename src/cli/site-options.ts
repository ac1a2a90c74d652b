/** The flags that make a kernel forget: one check site (`--site`), or what a posting of the series forgot (`--revision`). */
import { type Command, Option } from 'commander';
import { DEFAULT_REVISION, REVISIONS, type Revision, type SiteChoice } from '../mm/check-sites.js';

export interface SiteFlags {
  readonly revision?: Revision;
  readonly site?: readonly string[];
}

/** Add `--site` and `--revision`. */
export function addSiteOptions(command: Command): Command {
  const collect = (id: string, before: readonly string[] = []): readonly string[] => [...before, id];
  return command
    .option('--site <id>', 'a check site that the kernel forgets (see list), repeatable', collect)
    .addOption(
      new Option('--revision <name>', `posting of the series, with its bugs (default: ${DEFAULT_REVISION})`).choices(
        REVISIONS,
      ),
    );
}

/** What the flags choose; only what was given. */
export const sitesFromFlags = ({ revision, site }: SiteFlags): SiteChoice => ({
  ...(revision && { revision }),
  ...(site && { forget: site }),
});
