/** The registry of check sites: what it says, how a machine is made to forget, and that each site is asked where its work is done. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { explore, replay } from '#src/explore/explore';
import { parseRepro, printRepro } from '#src/explore/repro';
import { parseMachineSpec } from '#src/machine/spec';
import { CHECK_SITES, type REVISIONS, siteById, sitesOf } from '#src/mm/check-sites';
import { BEYOND_MODEL } from '#src/mm/check-sites/beyond';
import { POSTINGS } from '#src/mm/check-sites/site';
import { parseProgram } from '#src/workload/program/parse';

const SRC = fileURLToPath(new URL('../../src/', import.meta.url));

/** Ids that a revision forgets. */
const missingIn = (revision: (typeof REVISIONS)[number]): string[] => {
  const sites = sitesOf({ revision });
  return CHECK_SITES.filter(({ name }) => !sites[name]).map(({ id }) => id);
};

describe('registry', () => {
  test('each site is asked where its work is done, and nowhere by another name', () => {
    const code = readdirSync(SRC, { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts') && !file.startsWith('mm/check-sites'))
      .map((file) => readFileSync(`${SRC}/${file}`, 'utf8'))
      .join('\n');
    const asked = (name: string): boolean =>
      new RegExp(`[sS]ites(\\[[^\\]]*'|\\.)${name}\\b|\\b${name}\\b.*= .*[sS]ites;`).test(code);
    expect(CHECK_SITES.filter(({ name }) => !asked(name) && !code.includes(`'${name}'`)).map(({ id }) => id)).toEqual(
      [],
    );
  });

  test('ids are unique and readable; each site has its source, and says what it does and what breaks', () => {
    expect(new Set(CHECK_SITES.map(({ id }) => id)).size).toBe(CHECK_SITES.length);
    for (const { id, source, title, does, forgotten } of CHECK_SITES) {
      expect(id).toMatch(/^[a-z]+(-[a-z]+)*$/);
      for (const text of [source, title, does, forgotten]) expect(text.length, id).toBeGreaterThan(1);
    }
  });

  test("every row of the series' list, every bug of the past is a site, or said to be beyond the model", () => {
    const sources = [...CHECK_SITES, ...BEYOND_MODEL].map(({ source }) => source).join('; ');
    const rows = Array.from({ length: 34 }, (_, at) => `#${at + 1}`);
    const posted = Array.from({ length: 15 }, (_, at) => `4\\.2 (#\\d+, )*#${at + 1}`);
    const history = Array.from({ length: 14 }, (_, at) => `H${at + 1}`);
    const review = Array.from({ length: 9 }, (_, at) => `R${at + 1}`);
    const met = [
      'K1',
      'K2',
      'K3',
      'measured 7\\.1',
      'measured 7\\.2',
      'measured 7\\.3',
      '4\\.3 a',
      '4\\.3 b',
      '4\\.3 c',
    ];
    const all = [...rows, ...posted, ...history, ...review, ...met];
    expect(all.filter((wanted) => !new RegExp(`${wanted}(?!\\d)`).test(sources))).toEqual([]);
  });

  test('docs/series.md says what every number in a source means, and has every posting', () => {
    const page = readFileSync(new URL('../../docs/series.md', import.meta.url), 'utf8');
    const named = [...CHECK_SITES, ...BEYOND_MODEL].flatMap(({ source }) => {
      // Numbers of other projects' issues stand in parentheses behind a bug.
      const own = source.replace(/^(H\d+) \(.*\)$/, '$1');
      return own.match(/4\.1 \([^)]+\)|4\.2 #\d+|4\.3 [a-c]|measured 7\.\d|\b[HKR]\d+|#\d+|^canary$/g) ?? [];
    });
    expect(new Set(named).size).toBeGreaterThan(70);
    const meant = (name: string): boolean => page.includes(`\`${name}\``);
    expect([...named, ...POSTINGS].filter((name) => !meant(name))).toEqual([]);
  });
});

describe('revisions', () => {
  test('the corrected series, which is the default, forgets nothing', () => {
    expect(missingIn('corrected')).toEqual([]);
    expect(sitesOf()).toEqual(sitesOf({ revision: 'corrected' }));
  });

  test('v6 has the weaknesses that it was posted with, and no others', () => {
    expect(missingIn('v6').sort()).toEqual([
      'aligned-start',
      'erase-before-free',
      'folio-free-validated',
      'pmd-walk-migration',
      'pmd-walk-number',
      'restore-pmd-private-first',
    ]);
  });

  test('what reviewers found in one posting is mended in the next', () => {
    expect(missingIn('rfc')).toContain('hmm-pmd-kind');
    expect(missingIn('v1')).toEqual(expect.arrayContaining(['migration-read-family', 'coherent-is-pfn', 'numa-node']));
    expect(missingIn('v1')).not.toContain('hmm-pmd-kind');
    expect(missingIn('v2')).toContain('numa-node');
    expect(missingIn('v3')).toContain('unmap-by-kind');
    expect(missingIn('v4')).toContain('entry-to-page');
    expect(missingIn('v5')).toEqual(missingIn('v6'));
  });

  test('a site can be forgotten beside what the revision forgets', () => {
    const sites = sitesOf({ revision: 'v6', forget: ['check-pte-kind'] });
    expect(sites).toMatchObject({ checkPteKind: false, alignedStart: false, checkPmdMigration: true });
  });

  test('an unknown site is refused with what was meant', () => {
    expect(() => siteById('check-pte-kin')).toThrow(/did you mean "check-pte-kind"/);
    expect(() => siteById('x')).toThrow(/npx pfnless list/);
    expect(() => parseMachineSpec({ forget: ['check-pte-kin'] })).toThrow(
      /forget\[0\] must be a check site.*check-pte-kind/,
    );
    expect(() => parseMachineSpec({ revision: 'v7' } as never)).toThrow(/revision must be rfc or v1/);
  });
});

describe('explored', () => {
  const AGAINST_LOAD = parseProgram(
    'pages 1; init: store 0 1; A: todevice 0 on 0; A: tosystem 0 on 0; B: load 0 -> r',
    'test',
  );

  test('a forgotten site is found, and its repro has it with it', () => {
    const options = { strategy: 'random', executions: 50, sites: { forget: ['canary'] } } as const;
    const { failure } = explore(AGAINST_LOAD, options);
    expect(failure?.command).toMatch(/^npx pfnless replay 'v1 offset,-canary /);
    const repro = parseRepro(failure!.repro);
    expect(replay(repro).finding?.invariant).toBe(failure!.invariant);
    // The same schedule on a kernel that does not forget it.
    expect(replay({ ...repro, sites: {} }).finding).toBeNull();
  });

  test('a posting that does not work at all is a finding, and no bug of pfnless', () => {
    const { failure } = explore(AGAINST_LOAD, { strategy: 'random', executions: 1, sites: { revision: 'v4' } });
    expect(failure).not.toBeNull();
    expect(replay(parseRepro(failure!.repro)).finding?.invariant).toBe(failure!.invariant);
  });

  test.each([
    [{}, /^v1 legacy tame /],
    [{ revision: 'v3' }, /^v1 legacy,v3 tame /],
    [{ revision: 'rfc', forget: ['fault-trylock', 'canary'] }, /^v1 legacy,rfc,-fault-trylock,-canary tame /],
  ] as const)('repros say which kernel it was (%o)', (sites, form) => {
    const text = printRepro({ addressing: 'legacy', sites, schedule: [], program: AGAINST_LOAD });
    expect(text).toMatch(form);
    expect(parseRepro(text)).toMatchObject({ addressing: 'legacy', sites });
  });

  test.each([
    ['v1 offset,v7 tame pages 1; A: load 0', /no revision "v7": known are rfc, v1/],
    ['v1 offset,-chek-pte-kind tame pages 1; A: load 0', /did you mean "check-pte-kind"/],
    [
      'v1 legacy,-numa-node tame pages 1; A: load 0',
      /"numa-node" is about offsets, and means nothing under legacy addressing/,
    ],
    ['v1 offsite,v1 tame pages 1; A: load 0', /this is no repro/],
  ])('a repro of a kernel that there is not is refused (%s)', (text, message) => {
    expect(() => parseRepro(text)).toThrow(message);
  });
});
