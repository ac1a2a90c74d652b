/** The computer that benchmarks run on. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, platform, release, totalmem } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BenchHost } from '../bench/page.js';

/** Of the checkout that this file was built in; `null` where there is none: a package lies in a repository of its user's. */
function commitOfCheckout(): string | null {
  const cwd = fileURLToPath(new URL('../../..', import.meta.url));
  if (!existsSync(join(cwd, '.git'))) return null;
  try {
    const text = execFileSync('git', ['describe', '--always', '--dirty'], { cwd, stdio: ['ignore', 'pipe', 'ignore'] });
    return text.toString().trim();
  } catch {
    return null;
  }
}

export const benchHost = (): BenchHost => ({
  processor: cpus()[0]?.model.trim() ?? 'unknown processor',
  cores: availableParallelism(),
  memory: totalmem(),
  system: `${platform()} ${release()}`,
  node: process.versions.node,
  commit: commitOfCheckout(),
  load: loadavg()[0]!,
});
