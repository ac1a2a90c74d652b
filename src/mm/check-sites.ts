/**
 * Check sites: every place where the kernel must tell device private pages from others, and every bug of the past, declared once.
 *
 * A machine can forget any of them (`--site`), or run the series as it was posted (`--revision`). The place where a site's work is
 * done asks `kernel.sites.<name>`: true says that it is done. That is one load of a constant object and a branch that always goes
 * the same way, which no benchmark sees.
 *
 * What the model cannot express: check-sites/beyond.ts, with the reasons.
 */
import { deepFreeze } from '../base/freeze.js';
import { suggestion } from '../base/nearest.js';
import { argumentError, requireList, requireOneOf, requireOptions } from '../base/require.js';
import type { AddressingName } from './addressing/addressing.js';
import { ENTRY_SITES } from './check-sites/entries.js';
import { HISTORY_SITES } from './check-sites/history.js';
import { LIFETIME_SITES } from './check-sites/lifetime.js';
import { POSTINGS, type Site } from './check-sites/site.js';
import { WALK_SITES } from './check-sites/walks.js';
import { WORD_SITES } from './check-sites/words.js';

const REGISTRY = { ...ENTRY_SITES, ...WALK_SITES, ...WORD_SITES, ...LIFETIME_SITES, ...HISTORY_SITES };

/** A site as the code knows it: `checkPteKind`. Users know it as `check-pte-kind`. */
export type SiteName = keyof typeof REGISTRY;

/** Which sites a kernel remembers. */
export type Sites = Readonly<Record<SiteName, boolean>>;

/**
 * `corrected` is v6 without the weaknesses that nobody has mended yet. It is the default: as posted, v6 warns of each huge page that
 * arrives on a device, and a machine whose kernel log says nothing is what every other check begins with.
 */
export const REVISIONS = Object.freeze([...POSTINGS, 'corrected'] as const);
export type Revision = (typeof REVISIONS)[number];
export const DEFAULT_REVISION: Revision = 'corrected';

/** Which kernel: a posting, and sites that it shall forget. */
export interface SiteChoice {
  /** Default: `corrected`. */
  readonly revision?: Revision;
  /** Ids of sites. */
  readonly forget?: readonly string[];
}

export interface NamedSite extends Site {
  readonly id: string;
  readonly name: SiteName;
}

const idOf = (name: string): string => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** Every site, by family. */
export const CHECK_SITES: readonly NamedSite[] = deepFreeze(
  (Object.entries(REGISTRY) as [SiteName, Site][]).map(([name, site]) => ({ id: idOf(name), name, ...site })),
);

const BY_ID: ReadonlyMap<string, NamedSite> = new Map(CHECK_SITES.map((site) => [site.id, site]));

/** Why a kernel of this addressing cannot forget a site; `null` if it can. */
export function siteProblem(id: string, addressing: AddressingName): string | null {
  const site = BY_ID.get(id);
  if (site !== undefined && addressing === 'legacy' && site.addressing === 'offset') {
    return `"${id}" is about offsets, and means nothing under legacy addressing`;
  }
  if (site !== undefined) return null;
  const hint = suggestion(String(id), [...BY_ID.keys()]);
  // Dozens of names are no help.
  return `there is no "${id}" (${hint.startsWith('known') ? 'see `npx pfnless list`' : hint})`;
}

/** @throws PfnlessError ERR_PFNLESS_ARGUMENT */
export function siteById(id: string, addressing: AddressingName = 'offset'): NamedSite {
  const problem = siteProblem(id, addressing);
  if (problem !== null) throw argumentError(`This is no check site: ${problem}.`);
  return BY_ID.get(id)!;
}

/** @throws PfnlessError ERR_PFNLESS_ARGUMENT when it is none */
export function requireSiteChoice(choice: SiteChoice, addressing: AddressingName): void {
  requireOptions('The sites of a kernel', choice, ['revision', 'forget']);
  const { revision = DEFAULT_REVISION, forget = [] } = choice;
  requireOneOf('The revision', revision, REVISIONS);
  requireList('What a kernel forgets', forget);
  for (const id of forget) siteById(id, addressing);
}

/**
 * What a kernel of a revision does, less what it shall forget.
 * @throws PfnlessError ERR_PFNLESS_ARGUMENT for an id that no site has
 */
export function sitesOf({ revision = DEFAULT_REVISION, forget = [] }: SiteChoice = {}): Sites {
  const forgotten = forget.map((id) => siteById(id).name);
  const remembers = ({ name, missing }: NamedSite): boolean =>
    !forgotten.includes(name) && (revision === 'corrected' || !(missing?.includes(revision) ?? false));
  return Object.freeze(Object.fromEntries(CHECK_SITES.map((site) => [site.name, remembers(site)])) as Sites);
}
