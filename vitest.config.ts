/** Tests run against the built package (`npm run build` first): vitest imports what users import. */
import { defineConfig } from 'vitest/config';

/** Where `.ci/run` wants the results as JSON. */
const results = process.env.PFNLESS_TEST_RESULTS;

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    environment: 'node',
    // Processes, as tests boot machines with worker threads of their own.
    pool: 'forks',
    maxWorkers: 2,
    maxConcurrency: 2,
    testTimeout: 30_000,
    // The summary comes last: it is what .ci/run ends with.
    reporters: results ? ['json', 'default'] : ['default'],
    ...(results && { outputFile: { json: results } }),
  },
});
