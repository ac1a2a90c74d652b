#!/usr/bin/env node
/**
 * Programs for the recorder, on stdout: random ones of a seed, or those that recorded traces (hmmrec-1 and hmmrec-2) did.
 * `node programs.mjs --help` has the options.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { gunzipSync } from 'node:zlib';
import { OddProgram } from './odd-program.mjs';
import { FILE_PAGES, Random, RandomProgram } from './random-program.mjs';

const HELP = `node programs.mjs [options] > PROGRAMS
node programs.mjs --from TRACE... > PROGRAMS

  --pages 64|2048  of the arena: of 4 KiB (64, default), or with huge pages (2048)
  --count N        programs (default 20)
  --seed N         of the first one; the others follow (default 1)
  --name NAME      what names of traces begin with (default: what was asked for)
  --shared         much shared memory
  --swap           pages are pushed out to swap
  --file           a file is mapped, read, written, truncated
  --odd            system calls with odd arguments
  --coherent       one device or both are coherent (record with DEVICES=coherent)
  --poison         memory fails, and stays so until the guest ends: record these apart
  --from           the programs of recorded traces, plain or gzipped
`;

const { values: options, positionals: traces } = parseArgs({
  allowPositionals: true,
  options: {
    pages: { type: 'string', default: '64' },
    count: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    name: { type: 'string' },
    shared: { type: 'boolean', default: false },
    swap: { type: 'boolean', default: false },
    file: { type: 'boolean', default: false },
    odd: { type: 'boolean', default: false },
    coherent: { type: 'boolean', default: false },
    poison: { type: 'boolean', default: false },
    from: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

/** What a swap area has, if there is one. */
const SWAP_PAGES = 16384;

/** The recorder's first line of a program. `members` is what its trace's header has besides. */
function head(name, { pages, devices, filePages, swapPages, members }) {
  return `=${name} ${pages} ${devices} ${filePages} ${swapPages} ${JSON.stringify(members).slice(1, -1)}`;
}

function randomPrograms() {
  const { shared, swap, file, odd, coherent, poison } = options;
  const pages = Number(options.pages);
  if (pages !== 64 && pages !== 2048) throw new Error(`--pages is 64 or 2048, not ${options.pages}`);
  const kind = { pages, huge: pages === 2048, shared, swap, file, poison };
  const asked = Object.entries({ shared, swap, file, odd, coherent, poison }).flatMap(([name, on]) =>
    on ? [name] : [],
  );
  const prefix = options.name ?? [kind.huge ? 'thp' : 'seed', ...asked].join('-');
  const first = Number(options.seed);
  return Array.from({ length: Number(options.count) }, (_, at) => {
    const seed = first + at;
    const random = new Random(seed);
    const program = odd ? new OddProgram(random, kind) : new RandomProgram(random, kind);
    program.write();
    const header = {
      pages,
      devices: coherent ? random.pick(['02', '23', '20']) : '01',
      filePages: file ? FILE_PAGES : 0,
      swapPages: swap ? SWAP_PAGES : 0,
      members: { scenario: odd ? 'odd' : kind.huge ? 'random-thp' : 'random', seed, len: program.lines.length },
    };
    return [head(`${prefix}-${String(seed).padStart(4, '0')}`, header), ...program.lines];
  });
}

const RANGE = ['pg', 'n'];
/** Arguments of each operation, in the order of a program's line (operations.h); a device's have slot and range. */
const ARGUMENTS = {
  open: ['slot', 'dev'],
  close: ['slot'],
  mmap: [...RANGE, 'prot', 'kind', 'off'],
  munmap: RANGE,
  mprotect: [...RANGE, 'prot'],
  madvise: [...RANGE, 'advice'],
  mremap: [...RANGE, 'dst'],
  mremap_to: [...RANGE, 'len', 'dst', 'dontunmap'],
  mlock: [...RANGE, 'onfault'],
  munlock: RANGE,
  raw: ['call', 'at', 'bytes', 'flags', 'to', 'len'],
  max_maps: ['n'],
  clear_refs: ['what'],
  cpu_write: RANGE,
  cpu_read: RANGE,
  fail_alloc: ['slot'],
  release_chunks: ['slot'],
  pin: [...RANGE, 'write'],
  splice: RANGE,
  uffd_register: RANGE,
  uffd_unregister: RANGE,
  uffd_protect: RANGE,
  uffd_resolve: RANGE,
  fread: RANGE,
  fwrite: RANGE,
  ftruncate: ['n'],
  kpage: RANGE,
};
const NO_ARGUMENTS = [
  'fork',
  'exit',
  'unpin',
  'splice_drain',
  'uffd_open',
  'uffd_close',
  'fsync',
  'smaps',
  'counters',
  'state',
];
for (const name of NO_ARGUMENTS) ARGUMENTS[name] = [];

/** The program that a trace is of. */
function programOf(file) {
  const bytes = readFileSync(file);
  const text = (file.endsWith('.gz') ? gunzipSync(bytes) : bytes).toString();
  const [header, ...operations] = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  operations.pop(); // the trailer
  const { scenario, seed, len, arena_pages: pages, file_pages: filePages = 0, swap_pages: swapPages = 0 } = header;
  const devices = header.devices.map((device) => /^hmm_dmirror(\d):/.exec(device)[1]).join('');
  const lines = operations.map((operation) => {
    const names = ARGUMENTS[operation.op] ?? ['slot', ...RANGE];
    const values = names.filter((name) => name in operation).map((name) => operation[name]);
    return [operation.op, operation.proc, ...values].join(' ');
  });
  const name = basename(file).replace(/\.jsonl(\.gz)?$/, '');
  return [head(name, { pages, devices, filePages, swapPages, members: { scenario, seed, len } }), ...lines];
}

if (options.help) {
  process.stdout.write(HELP);
} else {
  const programs = options.from ? traces.map(programOf) : randomPrograms();
  process.stdout.write(
    programs
      .flat()
      .map((line) => `${line}\n`)
      .join(''),
  );
}
