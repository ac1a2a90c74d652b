/** The core knows no platform (ARCHITECTURE decision 31): an inline machine runs in a host that has nothing of Node's own, and in the same way. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const fileOf = (name: string): string => fileURLToPath(new URL(`bare-host/${name}`, import.meta.url));

const node = async (...args: string[]): Promise<string> => {
  const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { maxBuffer: 2 ** 24 });
  expect(stderr).toBe('');
  return stdout;
};

test('a journey through an inline machine is the same where nothing of Node is', async () => {
  const [here, bare] = await Promise.all([
    node(fileOf('journey.js')),
    node('--import', fileOf('no-node.js'), fileOf('journey.js')),
  ]);
  expect(here.split('\n').length).toBeGreaterThan(20);
  expect(bare).toBe(here);
});

test.each(['node:fs', 'worker_threads'])('such a host has no %s, nor Buffer', async (builtin) => {
  const script = `import('${builtin}').catch((error) => console.log(typeof Buffer, typeof setImmediate, error.message))`;
  const said = await node('--import', fileOf('no-node.js'), '--input-type=module', '--eval', script);
  expect(said).toMatch(`undefined undefined`);
  expect(said).toMatch(`imports ${builtin}, which a browser does not have`);
});
