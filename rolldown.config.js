/**
 * The doors of the threads that every machine starts become one file each: a thread that has to find and read some forty
 * modules takes twice as long to start.
 */
export default ['device', 'cpu'].map((door) => ({
  input: `dist/workers/${door}.js`,
  platform: 'node',
  output: { file: `dist/workers/${door}.js`, format: 'esm', sourcemap: true },
  logLevel: 'warn',
}));
