/**
 * The schema of a machine spec, as it is written in a file or handed to `boot`. It knows shapes and ranges of single fields;
 * `spec.ts` fills defaults and checks fields against each other.
 *
 * Messages are predicates ("must be ..."): `spec.ts` puts the field before them and the offending value behind.
 */
import * as z from 'zod';
import { isPageAligned, PMD_SIZE } from '../abi/address.js';
import { formatBytes, parseBytes, SIZE_FORMS } from '../base/bytes.js';
import { whole } from '../base/fields.js';
import { SEED_MAX } from '../base/random.js';
import { DRIVERS, type DriverName } from '../drivers/driver.js';
import { ADDRESSINGS } from '../mm/addressing/addressing.js';
import { DEFAULT_REVISION, REVISIONS } from '../mm/check-sites.js';
import { MAX_MAP_COUNT } from '../mm/kernel.js';

const KiB = 2 ** 10;
const MiB = 2 ** 20;
const GiB = 2 ** 30;

/** As many devices as a machine may have. */
export const MAX_DEVICES = 16;
/** As many CPUs beside the kernel's. */
export const MAX_CPUS = 64;
export const RAM_MIN = 16 * MiB;
export const RAM_MAX = 16 * GiB;
const DEVICE_MEMORY_MIN = MiB;
const DEVICE_MEMORY_MAX = 8 * GiB;

interface SizeLimits {
  readonly min: number;
  readonly max: number;
  readonly multipleOf: number;
}

const bytes = (): z.ZodType<number, number | string> =>
  z.union([z.number(), z.string()], { error: `must be a size: ${SIZE_FORMS}` }).transform((value, context) => {
    const size = parseBytes(value);
    if (size !== null) return size;
    context.issues.push({ code: 'custom', message: `must be a size: ${SIZE_FORMS}`, input: value });
    return z.NEVER;
  });

const size = ({ min, max, multipleOf }: SizeLimits) => {
  const message = `must be from ${formatBytes(min)} to ${formatBytes(max)} and a multiple of ${formatBytes(multipleOf)}`;
  return bytes().refine((value) => value >= min && value <= max && value % multipleOf === 0, { error: message });
};

const flag = () => z.boolean({ error: 'must be true or false' });

const name = (what: string, pattern: RegExp, rule: string) =>
  z.string({ error: `must be ${what}` }).regex(pattern, { error: `must be ${what}: ${rule}` });

const PLAIN_NAME = /^[\x20-\x7e]{1,64}$/;
const rangeName = () => name('a name', PLAIN_NAME, '1 to 64 printable ASCII characters');

/** May a machine be called so? */
export const isMachineName = (text: string): boolean => PLAIN_NAME.test(text);

/** `start` with `end` (included) or `size`. */
const rangeFields = { start: bytes(), end: bytes().optional(), size: bytes().optional() };

export const windowSchema = z.strictObject({
  name: rangeName(),
  ...rangeFields,
  kind: z.enum(['reserved', 'pci']).default('pci'),
});

export const mapChildSchema = z.strictObject({ name: rangeName(), ...rangeFields });

export const mapEntrySchema = z.strictObject({
  name: rangeName(),
  ...rangeFields,
  kind: z.enum(['ram', 'reserved', 'window']).default('reserved'),
  children: z.array(mapChildSchema, { error: 'must be a list of ranges' }).default([]),
});

export const memorySchema = z.strictObject({
  ram: size({ min: RAM_MIN, max: RAM_MAX, multipleOf: 4 * KiB }).optional(),
  physicalBits: whole(36, 52).default(46),
  fiveLevelPaging: flag().default(false),
  windows: z.array(windowSchema, { error: 'must be a list of ranges' }).default([]),
  map: z.array(mapEntrySchema, { error: 'must be a list of ranges' }).nullable().default(null),
});

export const deviceSchema = z.strictObject({
  name: name(
    'a device name',
    /^[a-z][a-z0-9_-]{0,31}$/,
    'a-z, then a-z, 0-9, _ or -, 32 characters at the most',
  ).optional(),
  driver: z.enum(Object.keys(DRIVERS) as DriverName[]).default('test-hmm'),
  memory: size({ min: DEVICE_MEMORY_MIN, max: DEVICE_MEMORY_MAX, multipleOf: 4 * KiB }).default(64 * MiB),
  type: z.enum(['private', 'coherent']).default('private'),
  address: bytes().nullable().default(null),
  chunk: size({ min: 4 * KiB, max: DEVICE_MEMORY_MAX, multipleOf: 4 * KiB }).optional(),
  peers: name('the name of a group', /^[a-z][a-z0-9_-]{0,31}$/, 'a-z, then a-z, 0-9, _ or -, 32 characters at the most')
    .nullable()
    .default(null),
  tlbSets: whole(1, 65536)
    .refine((sets) => (sets & (sets - 1)) === 0, { error: 'must be a power of two from 1 to 65536' })
    .default(512),
  numaNode: whole(-1, 1023).default(0),
});

/** As many swap areas as the swap types of the series leave. */
export const SWAP_AREAS_MAX = 21;
const SWAP_MIN = 8 * KiB;
const SWAP_MAX = 16 * GiB;
const swapMessage = `must be a list of the sizes of 0 to ${SWAP_AREAS_MAX} swap areas`;

/** A sysctl of an int. */
const MAX_MAP_COUNT_MAX = 2 ** 31 - 1;

const devicesMessage = `must be a list of 0 to ${MAX_DEVICES} devices, or their number`;

export const machineSchema = z.strictObject({
  preset: z.string({ error: 'must be the name of a preset' }).optional(),
  name: rangeName().optional(),
  addressing: z.enum(ADDRESSINGS).default('offset'),
  revision: z.enum(REVISIONS).default(DEFAULT_REVISION),
  forget: z.array(z.string(), { error: 'must be a list of check sites' }).default([]),
  executor: z.enum(['threads', 'inline']).default('threads'),
  cpus: whole(0, MAX_CPUS).default(0),
  schedule: z.enum(['round-robin', 'random']).default('round-robin'),
  seed: whole(0, SEED_MAX).default(1),
  checks: flag().default(true),
  hugePages: z.enum(['always', 'madvise', 'never']).default('madvise'),
  hugetlbPages: whole(0, RAM_MAX / PMD_SIZE).default(0),
  maxMapCount: whole(0, MAX_MAP_COUNT_MAX).default(MAX_MAP_COUNT),
  memory: memorySchema.prefault({}),
  swap: z
    .array(size({ min: SWAP_MIN, max: SWAP_MAX, multipleOf: 4 * KiB }), { error: swapMessage })
    .max(SWAP_AREAS_MAX, { error: swapMessage })
    .default([]),
  devices: z.array(deviceSchema, { error: devicesMessage }).max(MAX_DEVICES, { error: devicesMessage }).default([]),
});

/** Is a chunk that a pagemap grows by acceptable for a device of `memory` bytes? */
export const isChunk = (chunk: number, memory: number): boolean =>
  isPageAligned(chunk) && chunk <= memory && (chunk % PMD_SIZE === 0 || chunk === memory);
