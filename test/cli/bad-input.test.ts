/** Wrong use and bad input: exit code 2, and exactly one sentence on stderr that names the culprit. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { jsonOf, pfnless } from './pfnless.js';

interface Case {
  readonly title: string;
  readonly words: readonly string[];
  /** What the sentence must say. */
  readonly says: RegExp;
}

/** A spec file's text, and what is wrong with it. */
const SPECS: readonly { readonly title: string; readonly text: string; readonly says: RegExp; readonly as?: string }[] =
  [
    { title: 'not an object', text: '- 1\n', says: /must be an object/ },
    { title: 'empty', text: '', says: /must be an object/ },
    { title: 'broken YAML', text: 'memory: {ram: 2GiB\n', says: /cannot be read as YAML/ },
    { title: 'a key twice', text: 'seed: 1\nseed: 2\n', says: /cannot be read as YAML: .*unique/ },
    { title: 'broken JSON', text: '{"seed": }', says: /cannot be read as JSON/, as: 'spec.json' },
    { title: 'an unknown field', text: 'sede: 3\n', says: /has no field "sede" \(did you mean "seed"\?\)/ },
    {
      title: 'an unknown field of a device',
      text: 'devices: [{memry: 1MiB}]\n',
      says: /devices\[0\] has no field "memry"/,
    },
    { title: 'an unknown preset', text: 'preset: lapto\n', says: /preset must be one of laptop, .*not "lapto"/ },
    {
      title: 'an unknown addressing',
      text: 'addressing: physical\n',
      says: /addressing must be legacy or offset, not "physical"/,
    },
    { title: 'pageless, too early', text: 'addressing: pageless\n', says: /pageless is planned, but not there yet/ },
    { title: 'an unknown executor', text: 'executor: gpu\n', says: /executor must be threads or inline/ },
    {
      title: 'an unknown driver',
      text: 'devices: [{driver: nouveau}]\n',
      says: /devices\[0\]\.driver must be test-hmm/,
    },
    { title: 'a seed that is not whole', text: 'seed: 1.5\n', says: /seed must be a whole number/ },
    { title: 'checks that are no boolean', text: 'checks: maybe\n', says: /checks must be true or false, not "maybe"/ },
    { title: 'a size with an unknown unit', text: 'memory: {ram: 2 gigs}\n', says: /memory\.ram must be a size/ },
    { title: 'a negative size', text: 'memory: {ram: -4096}\n', says: /memory\.ram must be a size.*not -4096/ },
    { title: 'too little RAM', text: 'memory: {ram: 1MiB}\n', says: /memory\.ram must be from 16 MiB to 16 GiB/ },
    { title: 'too much RAM', text: 'memory: {ram: 1TiB}\n', says: /memory\.ram must be from 16 MiB to 16 GiB/ },
    { title: 'RAM of half a page', text: 'memory: {ram: 16779264}\n', says: /a multiple of 4 KiB, not 16779264/ },
    { title: 'no RAM', text: 'memory: {physicalBits: 40}\n', says: /memory\.ram must be given/ },
    {
      title: 'too few address bits',
      text: 'memory: {ram: 2GiB, physicalBits: 32}\n',
      says: /physicalBits must be a whole number from 36 to 52/,
    },
    {
      title: 'a window over RAM',
      text: 'memory: {ram: 2GiB, windows: [{name: PCI, start: 1GiB, size: 1GiB}]}\n',
      says: /windows\[0\] PCI .* must not overlap System RAM/,
    },
    {
      title: 'a window beyond the address bits',
      text: 'memory: {ram: 2GiB, physicalBits: 36, windows: [{name: PCI, start: 4GiB, size: 64GiB}]}\n',
      says: /must end at or below fffffffff/,
    },
    {
      title: 'a window without an end',
      text: 'memory: {ram: 2GiB, windows: [{name: PCI, start: 4GiB}]}\n',
      says: /\(PCI\) must have either an end or a size/,
    },
    {
      title: 'a map without RAM',
      text: 'memory: {map: [{name: ROM, start: 0, size: 1MiB}]}\n',
      says: /memory\.map must have from 16 MiB/,
    },
    {
      title: 'a range of a map that ends too early, which has the number that the user gave it',
      text: 'memory: {map: [{name: RAM, kind: ram, start: 4GiB, size: 64MiB}, {name: ROM, start: 2GiB, end: 1GiB}]}\n',
      says: /memory\.map\[1\] ROM .* must not end before it starts/,
    },
    { title: 'too many devices', text: 'devices: 17\n', says: /devices must be a list of 0 to 16 devices/ },
    { title: 'two devices of one name', text: 'devices: [{name: a}, {name: a}]\n', says: /two devices named "a"/ },
    {
      title: 'a device without memory',
      text: 'devices: [{memory: 0}]\n',
      says: /devices\[0\]\.memory must be from 1 MiB/,
    },
    {
      title: 'a chunk larger than the device',
      text: 'devices: [{memory: 64MiB, chunk: 128MiB}]\n',
      says: /devices\[0\]\.chunk must be a multiple of 2 MiB up to the device's 64 MiB/,
    },
    { title: 'an odd chunk', text: 'devices: [{memory: 64MiB, chunk: 3MiB}]\n', says: /chunk must be .*not 3 MiB/ },
    {
      title: 'private memory with a physical address',
      text: 'devices: [{address: 4GiB}]\n',
      says: /devices\[0\]\.address must be left out: private memory has no physical address/,
    },
    {
      title: 'coherent memory in the middle of a section',
      text: 'devices: [{type: coherent, address: 0x100200000}]\n',
      says: /devices\[0\]\.address must be a multiple of 128 MiB, not 100200000/,
    },
    {
      title: 'coherent memory over RAM',
      text: 'memory: {ram: 8GiB}\ndevices: [{type: coherent, address: 4GiB}]\n',
      says: /devices\[0\]\.address must not lead to System RAM \(100000000-23fffffff\), which is in the way of 64 MiB/,
    },
    {
      title: 'coherent memory over another device',
      text: 'devices: [{type: coherent, address: 4GiB}, {type: coherent, address: 4GiB}]\n',
      says: /devices\[1\]\.address must not lead to Soft Reserved \(100000000-103ffffff\)/,
    },
    {
      title: 'coherent memory beyond the address bits',
      text: 'memory: {ram: 1GiB, physicalBits: 36}\ndevices: [{type: coherent, address: 64GiB}]\n',
      says: /devices\[0\]\.address must leave room below 1000000000, where memory ends, for 64 MiB at 1000000000/,
    },
    {
      title: 'coherent memory for which the map has no room',
      text: 'preset: pci-window\ndevices: [{type: coherent}]\n',
      says: /devices\[0\]\.memory must fit .*: between 100000000 and 10000000000 no gap has 64 MiB/,
    },
    {
      title: 'coherent memory in chunks',
      text: 'devices: [{type: coherent, memory: 64MiB, chunk: 32MiB}]\n',
      says: /devices\[0\]\.chunk must be left out: the memory of a coherent device is there all at once/,
    },
    {
      title: 'coherent memory of odd size',
      text: 'devices: [{type: coherent, memory: 3MiB}]\n',
      says: /devices\[0\]\.memory must be a multiple of 2 MiB for a coherent device, not 3 MiB/,
    },
    {
      title: 'an address that is none',
      text: 'devices: [{type: coherent, address: here}]\n',
      says: /address must be a size/,
    },
    { title: 'a TLB of three sets', text: 'devices: [{tlbSets: 3}]\n', says: /tlbSets must be a power of two/ },
  ];

const FLAGS: readonly Case[] = [
  { title: 'an unknown command', words: ['rnu'], says: /unknown command 'rnu' \(Did you mean run\?\)/ },
  {
    title: 'an unknown option',
    words: ['run', '--all', '--sede', '1'],
    says: /unknown option '--sede' \(Did you mean --seed\?\)/,
  },
  { title: 'no workload', words: ['run'], says: /name a workload or give --all/ },
  {
    title: 'an unknown workload',
    words: ['run', 'vectr-add'],
    says: /no workload "vectr-add" \(did you mean "vector-add"\?\)/,
  },
  { title: 'workloads and --all', words: ['run', 'saxpy', '--all'], says: /not both/ },
  { title: 'no devices', words: ['run', 'saxpy', '--devices', '0'], says: /1 to 8 devices.*has 0/ },
  { title: 'more devices than a workload can use', words: ['run', 'saxpy', '--devices', '9'], says: /1 to 8 devices/ },
  { title: 'devices in words', words: ['run', 'saxpy', '--devices', 'two'], says: /--devices/ },
  { title: 'no jobs', words: ['run', 'saxpy', '--jobs', '0'], says: /--jobs.* whole number from 1 to 64/ },
  {
    title: 'a size above the most, in threads',
    words: ['run', 'saxpy', 'bfs', '--executor', 'inline', '--size', '99999999999', '--jobs', '2'],
    says: /saxpy: .*size/,
  },
  { title: 'a negative seed', words: ['run', 'saxpy', '--seed', '-1'], says: /--seed/ },
  {
    title: 'a schedule of threads',
    words: ['run', 'saxpy', '--schedule', 'random'],
    says: /--schedule is for --executor inline/,
  },
  {
    title: 'preemptions of a random walk',
    words: ['explore', 'migrate/against-store', '--preemptions', '1'],
    says: /preemptions is for the strategy dfs, not for random/,
  },
  {
    title: 'the depth of a search',
    words: ['explore', 'migrate/against-store', '--strategy', 'dfs', '--depth', '2'],
    says: /depth is for the strategy pct, not for dfs/,
  },
  {
    title: 'a seed where nothing is drawn',
    words: ['explore', 'migrate/against-store', '--strategy', 'round-robin', '--seed', '5'],
    says: /seed is for the strategy random and pct, not for round-robin/,
  },
  { title: 'an unknown executor', words: ['run', 'saxpy', '--executor', 'gpu'], says: /threads, inline/ },
  { title: 'pageless', words: ['run', 'saxpy', '--addressing', 'pageless'], says: /not there yet/ },
  { title: 'a size of zero', words: ['run', 'saxpy', '--size', '0'], says: /--size/ },
  {
    title: 'a size below the least',
    words: ['run', 'oversubscription', '--executor', 'inline', '--size', '1'],
    says: /oversubscription: the size must be/,
  },
  {
    title: 'a size above the most',
    words: ['run', 'saxpy', '--executor', 'inline', '--size', '99999999999'],
    says: /saxpy: .*size/,
  },
  {
    title: 'an unknown machine',
    words: ['iomem', '--machine', 'lapto'],
    says: /"lapto" is neither .*did you mean "laptop"/,
  },
  {
    title: 'a machine file that is not there',
    words: ['iomem', '--machine', 'gone.yaml'],
    says: /gone\.yaml cannot be read: there is no such file/,
  },
  {
    title: 'a machine file that is a directory',
    words: ['iomem', '--machine', 'folder.yaml'],
    says: /it is a directory/,
  },
  { title: 'a program without an end', words: ['explore', '/dev/zero'], says: /it is a device, not a file/ },
  {
    title: 'results where nothing stays',
    words: ['campaign', '--results', '/dev/null'],
    says: /\/dev\/null is no file/,
  },
  { title: 'two sets of injections', words: ['stress', '--inject', 'all,none'], says: /"all" stands for itself/ },
  { title: 'too many arguments', words: ['iomem', 'everything'], says: /too many arguments/ },
  {
    title: 'a site that means nothing there',
    words: ['run', 'vector-add', '--site', 'entry-to-page', '--addressing', 'legacy'],
    says: /"entry-to-page" is about offsets, and means nothing under legacy addressing/,
  },
  { title: 'a page that cannot be written', words: ['bench', '--page', '/nowhere/x.md'], says: /cannot be written/ },
  { title: 'a list that there is not', words: ['list', 'everything'], says: /allowed choices are workloads, programs/ },
  { title: 'no layouts', words: ['layouts'], says: /missing required argument 'file'/ },
  { title: 'a layout file that is not there', words: ['layouts', 'gone.jsonl'], says: /gone\.jsonl cannot be read/ },
  { title: 'a layout file that is no JSON', words: ['layouts', 'text.jsonl'], says: /text\.jsonl:1/ },
  { title: 'a layout file that is no layout', words: ['layouts', 'other.jsonl'], says: /other\.jsonl:1/ },
  {
    title: 'a layout file that is no gzip',
    words: ['layouts', 'text.jsonl.gz'],
    says: /not gzip data|incorrect header check/,
  },
  { title: 'half a gzip file', words: ['layouts', 'half.jsonl.gz'], says: /the gzip data ends early/ },
];

const CASES: readonly Case[] = [
  ...SPECS.map(({ title, says, as }, index) => ({
    title: `machine file: ${title}`,
    words: ['iomem', '--machine', as ?? `spec${index}.yaml`],
    says,
  })),
  ...FLAGS,
];

describe('bad input', () => {
  let folder = '';

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'pfnless-'));
    for (const [index, { text, as }] of SPECS.entries()) writeFileSync(join(folder, as ?? `spec${index}.yaml`), text);
    mkdirSync(join(folder, 'folder.yaml'));
    writeFileSync(join(folder, 'text.jsonl'), 'no JSON\n');
    writeFileSync(join(folder, 'other.jsonl'), '{"name":"x"}\n');
    writeFileSync(join(folder, 'text.jsonl.gz'), 'no gzip\n');
    writeFileSync(join(folder, 'half.jsonl.gz'), gzipSync('{"name":"x"}\n'.repeat(100)).subarray(0, 20));
  });

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.concurrent.each(CASES)('$title', async ({ words, says }) => {
    const { code, stdout, stderr } = await pfnless(words, folder);
    expect(stderr).toMatch(says);
    expect(stderr).toMatch(/^pfnless: [^\n]+\n$/);
    expect(stdout.replace(/^seed .*\n\n/, '')).toBe('');
    expect(code).toBe(2);
  });

  test('with --json the error is an object as well', async () => {
    const finished = await pfnless(['run', 'vectr-add', '--json']);
    expect(jsonOf(finished)).toMatchObject({
      schema: 'pfnless/run@1',
      ok: false,
      error: { code: 'ERR_PFNLESS_ARGUMENT', message: expect.stringContaining('vectr-add') },
    });
    expect(finished.code).toBe(2);
  });
});
