/**
 * What users start and import comes in few files: a module costs 0.5 ms to find and load, and a constant that is imported costs a look
 * at each use, where V8 folds one of the same file. The modules stay beside them for tests, which import them one by one.
 */
import { existsSync, readFileSync } from 'node:fs';
import { isAbsolute } from 'node:path';

/** Dependencies that come along: zod is eighty files, sixty of them languages, of which the start of a command would wait for each. */
const BUNDLED = ['zod'];
const banner = '/*! With zod: MIT License, Copyright (c) 2025 Colin McDonnell (node_modules/zod/LICENSE). */';

/** What tsc says of the lines of TypeScript goes on into the bundles. */
const maps = {
  name: 'maps',
  load(id) {
    if (!existsSync(`${id}.map`)) return null;
    return { code: readFileSync(id, 'utf8'), map: JSON.parse(readFileSync(`${id}.map`, 'utf8')) };
  },
};

const isLocal = (id) => id.startsWith('.') || isAbsolute(id);
const common = {
  platform: 'node',
  external: (id) => !isLocal(id) && !BUNDLED.includes(id),
  optimization: { inlineConst: true },
  plugins: [maps],
  logLevel: 'warn',
};

const entries = ['src/index', 'src/fast-check', 'src/cli/main', 'workers/campaign', 'workers/conform', 'workers/hunt'];

/** Small threads of which many start: one file each, so that they neither wait for more nor take hot functions out of the others' chunks. */
const doors = ['device', 'cpu', 'echo'].map((door) => ({
  ...common,
  input: `dist/workers/${door}.js`,
  external: /^node:/,
  output: { file: `dist/workers/${door}.js`, format: 'esm', sourcemap: true },
}));

export default [
  ...doors,
  {
    ...common,
    input: Object.fromEntries(entries.map((name) => [name, `dist/${name}.js`])),
    // Chunks are as deep as the modules were: both find their threads and files by paths relative to themselves.
    output: {
      dir: 'dist',
      chunkFileNames: 'src/chunks/[name].js',
      // All that is hot in one, and nothing in it that needs Node.
      advancedChunks: { groups: [{ name: 'core', test: /dist.src.(?!bench|campaign|cli|transport|fast-check)/ }] },
      banner: ({ name }) => (name === 'core' ? banner : ''),
      format: 'esm',
      sourcemap: true,
    },
  },
];
