/**
 * Architecture as a test: floors, cycles, banned calls, headers, file sizes, dead files, documents that name files.
 * Each rule is a function over a set of files, so each is also tried on a small set that breaks it.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Exceptions, each with its reason. An entry that is no longer needed fails the test. */
const DEBT: readonly { readonly rule: string; readonly file: string; readonly reason: string }[] = [];

/** Path (from the repository's root) to text. */
type Files = ReadonlyMap<string, string>;

interface Finding {
  readonly rule: string;
  readonly file: string;
  readonly what: string;
}

type Rule = (files: Files) => Finding[];

/** ARCHITECTURE, floors. Knowledge points down. */
const FLOORS: Readonly<Record<string, number>> = {
  base: 0,
  abi: 1,
  sync: 3,
  cpu: 3,
  mm: 4,
  device: 4,
  transport: 4,
  sched: 4,
  drivers: 5,
  machine: 6,
  workload: 7,
  check: 7,
  campaign: 8,
  conformance: 8,
  report: 8,
  bench: 8,
  stress: 8,
  explore: 8,
  catalogue: 9,
  cli: 9,
  index: 10,
  'fast-check': 10,
  workers: 10,
};

/** The folders of floor 4: they never import each other, but for types that cross as ops (ARCHITECTURE, floors). */
const SEPARATE_FLOOR = 4;

/** The room a file is in: its folder below `src`, `index` or `workers`. */
function roomOf(file: string): string {
  const parts = file.split('/');
  if (parts[0] !== 'src') return parts[0]!;
  return parts.length === 2 ? parts[1]!.replace(/\.ts$/, '') : parts[1]!;
}

interface Import {
  readonly target: string;
  readonly typeOnly: boolean;
  /** A URL that a thread is started with: the code runs elsewhere, and nothing of it is known here. */
  readonly isUrl: boolean;
}

/** Text without comments, so that prose may name what code may not. Strings stay: none of ours holds a comment sign. */
const withoutComments = (text: string): string =>
  text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/(^|[^:'"`])\/\/.*$/gm, '$1');

/** What a file imports, static, dynamic and as a worker's URL. Relative paths are resolved to files. */
function importsOf(file: string, text: string): Import[] {
  const code = withoutComments(text);
  const statements = code.matchAll(
    /(?:^|\n)\s*(import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s+)?'([^']+)'|import\('([^']+)'\)|new URL\(\s*'([^']+)'/g,
  );
  return [...statements].map((match) => {
    const specifier = (match[3] ?? match[4] ?? match[5])!;
    const target = specifier.startsWith('.')
      ? normalize(join(dirname(file), specifier)).replace(/\.js$/, '.ts')
      : specifier;
    return { target, typeOnly: match[2] !== undefined, isUrl: match[5] !== undefined };
  });
}

const isOurs = (target: string): boolean => /^(src|workers)\//.test(target);

/** Rule: imports point downwards, and folders of floor 4 do not know each other. */
const floors: Rule = (files) =>
  findings('floors', files, (file, text) => {
    const room = roomOf(file);
    const floor = FLOORS[room];
    if (floor === undefined) return [`is in "${room}", which has no floor`];
    return importsOf(file, text)
      .filter(({ target, isUrl }) => isOurs(target) && !isUrl && roomOf(target) !== room)
      .flatMap(({ target }) => {
        const other = FLOORS[roomOf(target)] ?? Number.NaN;
        if (other > floor) return [`imports ${target}, which is above it`];
        if (other === floor && floor === SEPARATE_FLOOR) return [`imports ${target}, a neighbour on floor ${floor}`];
        return [];
      });
  });

/** Rule: no import leads back to where it started (imports of types alone do not count: they are gone when it runs). */
const cycles: Rule = (files) => {
  const found: Finding[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: readonly string[]): void => {
    const start = path.indexOf(file);
    if (start >= 0) {
      found.push({ rule: 'cycles', file, what: [...path.slice(start), file].join(' -> ') });
      return;
    }
    if (done.has(file)) return;
    for (const { target, typeOnly, isUrl } of importsOf(file, files.get(file) ?? '')) {
      if (!typeOnly && !isUrl && files.has(target)) visit(target, [...path, file]);
    }
    done.add(file);
  };
  for (const file of files.keys()) visit(file, []);
  return found;
};

interface Ban {
  readonly what: RegExp;
  readonly instead: string;
  readonly allowed: (file: string) => boolean;
}

const inRooms =
  (...rooms: string[]) =>
  (file: string): boolean =>
    rooms.includes(roomOf(file));

const BANS: readonly Ban[] = [
  { what: /\bAtomics\b/, instead: 'a function of src/sync', allowed: inRooms('sync') },
  {
    what: /'node:[^']*'/,
    instead: 'the platform edge',
    allowed: (file) =>
      inRooms('campaign', 'report', 'cli', 'bench', 'workers')(file) ||
      /^src\/transport\/(worker-link|cpu-worker|exec-argv)\.ts$/.test(file),
  },
  // Of the globals that only Node has. `turn.ts` does without where it is not there.
  {
    what: /(?<!\.)\bBuffer\.|\bsetImmediate\(/,
    instead: 'base/page-bytes or sched/turn',
    allowed: (file) =>
      inRooms('campaign', 'cli', 'bench', 'workers')(file) ||
      ['src/base/page-bytes.ts', 'src/sched/turn.ts'].includes(file),
  },
  { what: /\bMath\.random\b/, instead: 'base/random', allowed: () => false },
  { what: /\bDate\.now\b|\bnew Date\b/, instead: 'a time that is handed in', allowed: inRooms('cli', 'bench') },
  {
    what: /\bperformance\.now\b/,
    instead: 'a time that is handed in',
    // When a busy machine lets the event loop take a turn is a matter of time.
    allowed: (file) => inRooms('cli', 'bench')(file) || file === 'src/sched/turn.ts',
  },
  // An emulated process has an exit() as well, without a code.
  {
    what: /\bconsole\.|\bprocess\.(argv|env|std|exitCode|exit\([^)])/,
    instead: 'cli/output',
    allowed: inRooms('cli', 'workers'),
  },
  { what: /\benum\s+\w+\s*\{/, instead: 'a union of strings', allowed: () => false },
  { what: /\bas any\b|:\s*any\b/, instead: 'a type', allowed: () => false },
];

/** Rule: one place for each kind of effect. */
const banned: Rule = (files) =>
  findings('banned', files, (file, text) => {
    const code = withoutComments(text);
    return BANS.filter(({ what, allowed }) => what.test(code) && !allowed(file)).map(
      ({ what, instead }) => `says ${what.exec(code)![0]}: use ${instead}`,
    );
  });

/** Rule: a file says first what it owns. */
const headers: Rule = (files) =>
  findings('headers', files, (_, text) => (/^(#!.*\n)?\/\*\*/.test(text) ? [] : ['has no header comment']));

const LINES_MAX = 500;

/** Rule: a file can be read at one sitting. */
const sizes: Rule = (files) =>
  findings('sizes', files, (_, text) => {
    const lines = text.split('\n').length - 1;
    return lines < LINES_MAX ? [] : [`has ${lines} lines, ${LINES_MAX - 1} are allowed`];
  });

/** What somebody starts: everything else must be reachable from here. Tests count as users. */
const isEntry = (file: string): boolean =>
  file === 'src/index.ts' ||
  file === 'src/fast-check.ts' ||
  file === 'src/cli/main.ts' ||
  file.startsWith('workers/') ||
  file.startsWith('test/');

/** Rule: no dead files. Imports of `#src/...` are the tests' way to reach inside. */
const dead: Rule = (files) => {
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file) || !files.has(file)) return;
    reached.add(file);
    for (const { target } of importsOf(file, files.get(file)!)) {
      visit(target.startsWith('#src/') ? `${target.slice(1)}.ts` : target);
    }
  };
  for (const file of files.keys()) if (isEntry(file)) visit(file);
  return [...files.keys()]
    .filter((file) => !reached.has(file))
    .map((file) => ({ rule: 'dead', file, what: 'is reached from nowhere' }));
};

/** Rule: a test works on the package as it is bundled or on its modules, never on both: their classes and their state are two. */
const onePackage: Rule = (files) =>
  findings('onePackage', files, (_, text) => {
    const targets = importsOf('', text).flatMap(({ target, typeOnly }) => (typeOnly ? [] : [target]));
    const isEntry = (target: string): boolean => /^(pfnless(\/.*)?|#src\/(index|fast-check))$/.test(target);
    const both = targets.some(isEntry) && targets.some((target) => target.startsWith('#src/') && !isEntry(target));
    return both ? ['imports the package, and modules of it'] : [];
  });

/** Paths that a document names: links that are not URLs, and code spans that look like a path of this repository. */
function pathsNamedIn(document: string): string[] {
  const links = [...document.matchAll(/\]\((?!\w+:|#)([^)#]+)/g)].map((match) => match[1]!);
  const spans = [...document.matchAll(/`((?:src|test|examples|workers|\.ci)\/[\w./-]+|[\w-]+\.(?:md|json|ts))`/g)];
  return [...links, ...spans.map((match) => match[1]!)];
}

/** Rule: a file that a document names exists. `exists` is asked with paths from the root and from the document's folder. */
const documents =
  (exists: (path: string) => boolean): Rule =>
  (files) =>
    findings('documents', files, (file, text) =>
      pathsNamedIn(text)
        .filter((path) => !exists(path) && !exists(join(dirname(file), path)))
        .map((path) => `names ${path}, which does not exist`),
    );

function findings(rule: string, files: Files, look: (file: string, text: string) => string[]): Finding[] {
  return [...files].flatMap(([file, text]) => look(file, text).map((what) => ({ rule, file, what })));
}

function readTree(folder: string, wanted: RegExp): [string, string][] {
  const path = join(ROOT, folder);
  if (!existsSync(path)) return [];
  return readdirSync(path, { recursive: true, encoding: 'utf8' })
    .filter((name) => wanted.test(name))
    .map((name) => [join(folder, name), readFileSync(join(path, name), 'utf8')]);
}

const product: Files = new Map([...readTree('src', /\.ts$/), ...readTree('workers', /\.ts$/)]);
const withTests: Files = new Map([...product, ...readTree('test', /\.ts$/)]);
const prose: Files = new Map([
  ...readdirSync(ROOT)
    .filter((name) => name.endsWith('.md'))
    .map((name): [string, string] => [name, readFileSync(join(ROOT, name), 'utf8')]),
  ...readTree('docs', /\.md$/),
  ...readTree('src', /\.md$/),
]);

const RULES: readonly { readonly title: string; readonly check: () => Finding[] }[] = [
  { title: 'imports point downwards', check: () => floors(product) },
  { title: 'no import cycles', check: () => cycles(product) },
  { title: 'one place for each kind of effect', check: () => banned(product) },
  { title: 'every file has a header', check: () => headers(product) },
  { title: `files stay below ${LINES_MAX} lines`, check: () => sizes(withTests) },
  { title: 'no dead files', check: () => dead(withTests) },
  { title: 'tests take the package or its modules', check: () => onePackage(withTests) },
  { title: 'documents name files that exist', check: () => documents((path) => existsSync(join(ROOT, path)))(prose) },
];

describe('tidy', () => {
  const isDebt = ({ rule, file }: Finding): boolean => DEBT.some((debt) => debt.rule === rule && debt.file === file);

  test.each(RULES)('$title', ({ check }) => {
    const found = check().filter((finding) => !isDebt(finding));
    expect(found.map(({ file, what }) => `${file} ${what}`)).toEqual([]);
  });

  test('no debt that is paid already', () => {
    const found = RULES.flatMap(({ check }) => check());
    expect(
      DEBT.filter(({ rule, file }) => !found.some((finding) => finding.rule === rule && finding.file === file)),
    ).toEqual([]);
  });
});

describe('tidy: each rule can fail', () => {
  const files = (entries: Record<string, string>): Files => new Map(Object.entries(entries));
  const whats = (found: Finding[]): string[] => found.map(({ file, what }) => `${file} ${what}`);

  test('floors: an import upwards, one to a neighbour, an unknown folder', () => {
    const tree = files({
      'src/mm/a.ts': "import { b } from '../device/b.js';\nimport { c } from '../base/c.js';",
      'src/base/c.ts': "export { d } from '../sync/d.js';",
      'src/cellar/e.ts': '',
      'workers/device.ts': "import '../src/device/engine.js';",
      'src/transport/f.ts': "new Worker(new URL('../../workers/device.js', import.meta.url));",
    });
    expect(whats(floors(tree))).toEqual([
      'src/mm/a.ts imports src/device/b.ts, a neighbour on floor 4',
      'src/base/c.ts imports src/sync/d.ts, which is above it',
      'src/cellar/e.ts is in "cellar", which has no floor',
    ]);
  });

  test('floors: imports over several lines and dynamic ones count', () => {
    const tree = files({
      'src/base/a.ts': "import {\n  b,\n  c,\n} from '../mm/b.js';\nconst d = () => import('../cli/d.js');",
    });
    expect(floors(tree)).toHaveLength(2);
  });

  test('onePackage: an entry and a module, but not types of one', () => {
    const tree = files({
      'test/a.ts': "import { boot } from 'pfnless';\nimport { VM_READ } from '#src/mm/vma';",
      'test/b.ts': "import { boot } from 'pfnless';\nimport type { VmArea } from '#src/mm/vma';",
      'test/c.ts': "import { boot } from '#src/index';\nconst d = () => import('#src/mm/vma');",
      'test/d.ts': "import { boot } from '#src/check/boot';\nimport { VM_READ } from '#src/mm/vma';",
    });
    expect(onePackage(tree).map(({ file }) => file)).toEqual(['test/a.ts', 'test/c.ts']);
  });

  test('cycles: a ring of three, but not one of types', () => {
    const ring = (keyword: string) =>
      files({
        'src/base/a.ts': "import { b } from './b.js';",
        'src/base/b.ts': "import { c } from './c.js';",
        'src/base/c.ts': `${keyword} { a } from './a.js';`,
      });
    expect(whats(cycles(ring('import')))).toEqual([
      'src/base/a.ts src/base/a.ts -> src/base/b.ts -> src/base/c.ts -> src/base/a.ts',
    ]);
    expect(cycles(ring('import type'))).toEqual([]);
  });

  test.each([
    ['src/mm/a.ts', 'Atomics.load(x, 0)', 'src/sync/a.ts'],
    ['src/machine/a.ts', "import { x } from 'node:fs';", 'src/cli/a.ts'],
    ['src/mm/a.ts', 'Math.random()', null],
    ['src/workload/a.ts', 'Date.now()', 'src/cli/a.ts'],
    ['src/workload/a.ts', 'performance.now()', 'src/bench/a.ts'],
    ['src/mm/a.ts', 'Buffer.alloc(1)', 'src/cli/a.ts'],
    ['src/sched/a.ts', 'setImmediate(go)', 'src/sched/turn.ts'],
    ['src/drivers/a.ts', "console.log('x')", 'src/cli/a.ts'],
    ['src/machine/a.ts', 'process.exit(1)', 'src/cli/a.ts'],
    ['src/abi/a.ts', 'enum Kind { A }', null],
    ['src/abi/a.ts', 'const x = y as any;', null],
  ])('banned: %s says %s', (file, text, allowed) => {
    expect(banned(files({ [file]: text }))).toHaveLength(1);
    expect(banned(files({ [file]: `/** ${text} */\n// ${text}` }))).toEqual([]);
    if (allowed) expect(banned(files({ [allowed]: text }))).toEqual([]);
  });

  test('headers: code first, and a shebang before the header', () => {
    const tree = files({
      'src/a.ts': 'export {};',
      'src/b.ts': '#!/usr/bin/env node\n/** Good. */',
      'src/c.ts': '/** Good. */',
    });
    expect(whats(headers(tree))).toEqual(['src/a.ts has no header comment']);
  });

  test('sizes: the line too many', () => {
    expect(sizes(files({ 'src/a.ts': '\n'.repeat(LINES_MAX - 1) }))).toEqual([]);
    expect(sizes(files({ 'src/a.ts': '\n'.repeat(LINES_MAX) }))).toHaveLength(1);
  });

  test('dead: reached by nobody, by a worker URL, by a test', () => {
    const tree = files({
      'src/index.ts': "export { a } from './base/a.js';",
      'src/base/a.ts': "new Worker(new URL('../../workers/w.js', import.meta.url));",
      'src/base/dead.ts': '',
      'src/base/tested.ts': '',
      'workers/w.ts': '',
      'test/a.test.ts': "import { b } from '#src/base/tested';",
    });
    expect(whats(dead(tree))).toEqual(['src/base/dead.ts is reached from nowhere']);
  });

  test('documents: a link and a code span to nowhere', () => {
    const tree = files({ 'README.md': '[a](GONE.md) [b](https://x.org/y) `src/gone.ts` `src/here.ts` `npm ci`' });
    expect(whats(documents((path) => path === 'src/here.ts')(tree))).toEqual([
      'README.md names GONE.md, which does not exist',
      'README.md names src/gone.ts, which does not exist',
    ]);
  });
});
