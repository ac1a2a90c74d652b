/**
 * What the kernel's hmm-tests call FIXTURE(hmm): a machine with its devices, and for each test a process that has opened every
 * one. After each test the machine must be as it was before: no invariant broken, no frame lost, no page left on a device.
 */
import {
  type Addressing,
  boot,
  DMIRROR_PROT,
  type ExecutorKind,
  type Machine,
  type MachineSpecInput,
  type Mirror,
  type Process,
  type VirtAddr,
  type VirtRange,
} from 'pfnless';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

export const PAGE = 4096;
/** The kernel's HMM_BUFFER_SIZE is 4 MiB; a quarter of it still is several rounds of whatever comes in rounds. */
export const BUFFER = 2 ** 20;
/** What the tests run ten times. */
export const NTIMES = 10;
const KIB_PER_PAGE = PAGE / 1024;
/** What the kernel's tests call TWOMEG. */
export const HUGE = 2 ** 21;
export const HUGE_PAGES = HUGE / PAGE;
/** Where the memory of coherent devices begins, and the PFN in a word of /proc/PID/pagemap. */
const COHERENT_FROM = 2n ** 32n;
const PFN_MASK = 2n ** 55n - 1n;

export interface Variant {
  readonly executor: ExecutorKind;
  readonly addressing: Addressing;
  readonly devices: number;
  /** What the kernel's variants `device_private` and `device_coherent` are. */
  readonly memory: 'private' | 'coherent';
}

const ADDRESSINGS = ['legacy', 'offset'] as const;
const EXECUTORS = ['inline', 'threads'] as const;

const variants = (memory: Variant['memory'], deviceCounts: readonly number[]): Variant[] =>
  deviceCounts.flatMap((devices) =>
    EXECUTORS.flatMap((executor) => ADDRESSINGS.map((addressing) => ({ executor, addressing, devices, memory }))),
  );

export const variantsOf = (...deviceCounts: number[]): Variant[] => variants('private', deviceCounts);
export const coherentVariantsOf = (...deviceCounts: number[]): Variant[] => variants('coherent', deviceCounts);

/** 1 device, the 2 of FIXTURE(hmm2), and 8. */
export const ONE_TO_EIGHT = [...variantsOf(1, 2, 8), ...coherentVariantsOf(1, 3)];
/** For tests that need two devices. */
export const TWO_TO_EIGHT = [...variantsOf(2, 8), ...coherentVariantsOf(2, 8)];

export const specOf = ({ executor, addressing, devices, memory }: Variant): MachineSpecInput => ({
  executor,
  addressing,
  schedule: 'random',
  memory: { ram: '32MiB' },
  devices: Array.from({ length: devices }, () =>
    memory === 'coherent' ? { memory: '4MiB', type: memory } : { memory: '4MiB', chunk: '2MiB' },
  ),
});

/** For tests of huge pages, whose machines are larger. */
export const HUGE_VARIANTS = [...variantsOf(1, 3), ...coherentVariantsOf(2)];

/** Room for several huge pages at a time, in RAM and on each device. */
export const hugeSpecOf = (variant: Variant): MachineSpecInput => ({
  ...specOf(variant),
  memory: { ram: '48MiB' },
  devices: Array.from({ length: variant.devices }, () =>
    variant.memory === 'coherent' ? { memory: '8MiB', type: variant.memory } : { memory: '8MiB', chunk: '4MiB' },
  ),
});

/** What one test works with. */
export interface Hmm {
  readonly machine: Machine;
  readonly process: Process;
  /** One of each device. */
  readonly mirrors: readonly Mirror[];
  /** The mirror that a test with one device uses: the last, so that nothing hangs on a number 0. */
  readonly mirror: Mirror;
  /** The CPU reaches the devices' memory: it stays there when the CPU touches it. */
  readonly coherent: boolean;
  /** Snapshot codes of a page on the device that looks, and on another one. */
  readonly local: number;
  readonly remote: number;
}

export type Body = (hmm: Hmm) => Promise<void>;

/** The tests of one theme on one machine for each variant. */
export function selftests(
  variants: readonly Variant[],
  declare: (test: (name: string, body: Body) => void) => void,
  specFor: (variant: Variant) => MachineSpecInput = specOf,
) {
  describe.each(variants)('$executor, $addressing, $devices $memory devices', (variant) => {
    let machine: Machine;
    beforeAll(async () => {
      machine = await boot(specFor(variant));
    });
    afterAll(() => machine.dispose());
    declare((name, body) => test(name, () => onMachine(machine, body)));
  });
}

/** Run one test in a process of its own, and look at what it leaves behind. */
export async function onMachine(machine: Machine, body: Body): Promise<void> {
  const before = await machine.stats();
  const process = await machine.process();
  try {
    const mirrors: Mirror[] = [];
    for (let device = 0; device < machine.deviceCount; device++) {
      mirrors.push(await process.mirror(device, { onFault: 'mirror' }));
    }
    await body({ machine, process, mirrors, mirror: mirrors.at(-1)!, ...kindOf(machine) });
    expect(await machine.check()).toEqual([]);
  } finally {
    await process.exit();
  }
  expect(await machine.check()).toEqual([]);
  const after = await machine.stats();
  expect(after.freeRamPages).toBe(before.freeRamPages);
  expect(after.devices.map(({ usedPages }) => usedPages)).toEqual(before.devices.map(({ usedPages }) => usedPages));
}

function kindOf({ spec }: Machine): Pick<Hmm, 'coherent' | 'local' | 'remote'> {
  const coherent = spec.devices[0]!.type === 'coherent';
  return coherent
    ? { coherent, local: DMIRROR_PROT.DEV_COHERENT_LOCAL, remote: DMIRROR_PROT.DEV_COHERENT_REMOTE }
    : { coherent, local: DMIRROR_PROT.DEV_PRIVATE_LOCAL, remote: DMIRROR_PROT.DEV_PRIVATE_REMOTE };
}

/** Part of a range, in pages. */
export const part = ({ start }: VirtRange, first: number, pages: number): VirtRange => ({
  start: (start + first * PAGE) as VirtAddr,
  length: pages * PAGE,
});

export const pagesOf = ({ length }: VirtRange): number => length / PAGE;

/** The bytes of some pages of 32-bit numbers, each by its index. */
export function ints(pages: number, numberOf: (index: number) => number): Uint8Array {
  const numbers = new Int32Array((pages * PAGE) / 4);
  for (let index = 0; index < numbers.length; index++) numbers[index] = numberOf(index);
  return new Uint8Array(numbers.buffer);
}

export const counting = (pages: number, from = 0): Uint8Array => ints(pages, (index) => from + index);
export const negative = (pages: number): Uint8Array => ints(pages, (index) => -index);
export const zeros = (pages: number): Uint8Array => new Uint8Array(pages * PAGE);

/** As toEqual on bytes, but fast, and with the first difference as what failed. */
export function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  if (Buffer.compare(actual, expected) === 0) return;
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  expect({ length: actual.length, at, byte: actual[at] }).toEqual({
    length: expected.length,
    at: -1,
    byte: expected[at],
  });
}

/** A buffer of the process with contents. */
export async function filled(process: Process, bytes: Uint8Array): Promise<VirtRange> {
  const range = await process.mmap({ length: bytes.length });
  await process.write(range.start, bytes);
  return range;
}

export async function expectMemory(process: Process, range: VirtRange, expected: Uint8Array): Promise<void> {
  expectBytes(await process.read(range.start, range.length), expected);
}

/** HMM_DMIRROR_READ: all pages, in `faults` rounds of faults, and every byte of them. */
export async function expectDeviceRead(
  mirror: Mirror,
  range: VirtRange,
  expected: Uint8Array,
  faults: number,
): Promise<void> {
  expect(await mirror.readPages(range)).toMatchObject({ errno: 0, pages: pagesOf(range), faults });
  expectBytes(await mirror.read(range.start, range.length), expected);
}

/** HMM_DMIRROR_WRITE: all pages, in `faults` rounds of faults; then these bytes in full. */
export async function deviceWrite(mirror: Mirror, range: VirtRange, bytes: Uint8Array, faults: number): Promise<void> {
  const words = new BigUint64Array(pagesOf(range)).fill(0xfeedn);
  expect(await mirror.writePages(range, words)).toMatchObject({ errno: 0, pages: words.length, faults });
  await mirror.write(range.start, bytes);
}

/** HMM_DMIRROR_MIGRATE_TO_DEV of all the range. */
export async function toDevice(mirror: Mirror, range: VirtRange): Promise<void> {
  expect(await mirror.migrate(range, 'device')).toMatchObject({ requested: pagesOf(range), errno: 0 });
}

/** The snapshot has one and the same code for every page. */
export async function expectSnapshot(mirror: Mirror, range: VirtRange, code: number): Promise<void> {
  const found = await mirror.snapshot(range);
  const at = found.findIndex((is) => is !== code);
  expect({ at, code: at < 0 ? code : found[at] }).toEqual({ at: -1, code });
}

/** Resident set of a range, in pages: what the kernel's own tests never look at. */
export async function residentPages(process: Process, range: VirtRange): Promise<number> {
  return (await process.smaps(range)).rss / KIB_PER_PAGE;
}

/** Memory for `pages` pages that may be huge, untouched. The kernel aligns what is large enough. */
export async function hugeArea(process: Process, pages = HUGE_PAGES): Promise<VirtRange> {
  const range = await process.mmap({ length: pages * PAGE });
  expect(range.start % HUGE).toBe(0);
  await process.madvise(range, 'HUGEPAGE');
  return range;
}

/** The same with contents, which a first store of the CPU makes one huge page. */
export async function hugeFilled(process: Process, mirror: Mirror, bytes: Uint8Array): Promise<VirtRange> {
  const range = await hugeArea(process, bytes.length / PAGE);
  await process.write(range.start, bytes);
  await expectHuge(process, mirror, range, DMIRROR_PROT.WRITE);
  return range;
}

/** Huge entries map all of it, on whichever side: each page has `code` and says that it is a part of one. */
export async function expectHuge(process: Process, mirror: Mirror, range: VirtRange, code: number): Promise<void> {
  await expectSnapshot(mirror, range, code | DMIRROR_PROT.PMD);
  const { rss, ahp } = await process.smaps(range);
  expect({ rss, ahp }).toEqual({ rss: range.length / 1024, ahp: range.length / 1024 });
}

/** Small entries map all of it. */
export async function expectSmall(process: Process, mirror: Mirror, range: VirtRange, code: number): Promise<void> {
  await expectSnapshot(mirror, range, code);
  expect(await process.smaps(range)).toMatchObject({ rss: range.length / 1024, ahp: 0 });
}

/** All of the range goes, in so many folios. */
export async function migrateAll(
  mirror: Mirror,
  range: VirtRange,
  to: 'device' | 'system',
  folios: number,
): Promise<void> {
  const pages = pagesOf(range);
  const moved = { requested: pages, collected: pages, migrated: pages, folios, errno: 0 };
  expect(await mirror.migrate(range, to)).toEqual(moved);
}

/**
 * What /proc/PID/pagemap says of pages on a device: of private ones no entry is present, each is a swap entry; coherent ones
 * are present, and their PFNs lie beyond RAM.
 */
export async function expectOnDevice(process: Process, range: VirtRange, coherent: boolean): Promise<void> {
  const words = await process.pagemap(range);
  const isThere = (word: bigint): boolean =>
    coherent ? word >> 63n === 1n && (word & PFN_MASK) * BigInt(PAGE) >= COHERENT_FROM : word >> 62n === 1n;
  expect(words.findIndex((word) => !isThere(word))).toBe(-1);
}

/** All entries of the range are present, in RAM. */
export async function expectPresent(process: Process, range: VirtRange): Promise<void> {
  const words = await process.pagemap(range);
  const isThere = (word: bigint): boolean => word >> 63n === 1n && (word & PFN_MASK) * BigInt(PAGE) < COHERENT_FROM;
  expect(words.findIndex((word) => !isThere(word))).toBe(-1);
}

export const usedDevicePages = async (machine: Machine, { device }: Mirror): Promise<number> =>
  (await machine.stats()).devices[device].usedPages;

export { DMIRROR_PROT as PROT } from 'pfnless';
