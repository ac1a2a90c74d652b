/** Tests run against the build (`npm run build` first): the package's entries, or the modules behind them one by one. */
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import type { Reporter, TestModule } from 'vitest/node';

/** Where `.ci/run` wants the counts, as JSON. */
const countsFile = process.env.PFNLESS_TEST_COUNTS;

/** Counts tests; a file that does not load, and an error outside of all tests, count as a failed test. */
const counter: Reporter = {
  onTestRunEnd(modules: readonly TestModule[], unhandledErrors: readonly unknown[]) {
    const counts = { passed: 0, failed: unhandledErrors.length };
    for (const module of modules) {
      if (module.errors().length > 0) counts.failed++;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === 'passed' || state === 'failed') counts[state]++;
      }
    }
    writeFileSync(countsFile!, JSON.stringify(counts));
  },
};

/** The tests' way to reach inside (for TypeScript: test/tsconfig.json). The package has none, so its package.json does not know it. */
const modules = fileURLToPath(new URL('dist/src', import.meta.url));

export default defineConfig({
  resolve: { alias: [{ find: /^#src\/(.*)$/, replacement: `${modules}/$1.js` }] },
  test: {
    include: ['test/**/*.test.ts'],
    environment: 'node',
    // Processes, as tests boot machines with worker threads of their own.
    pool: 'forks',
    maxWorkers: 2,
    maxConcurrency: 2,
    testTimeout: 60_000,
    reporters: countsFile ? ['default', counter] : ['default'],
  },
});
