/** Checks of what users hand to the public API: each throws PfnlessError ERR_PFNLESS_ARGUMENT with one sentence. */

import { isPageAligned, PAGE_SIZE, TASK_SIZE } from '../abi/address.js';
import type { ProgramArgs } from '../abi/control.js';
import { LANES_MAX } from '../abi/control.js';
import type { VirtAddr } from '../base/brand.js';
import { formatAddress } from '../base/bytes.js';
import { suggestion } from '../base/nearest.js';
import {
  argumentError,
  requireBoolean,
  requireList,
  requireObject,
  requireOneOf,
  requireOptions,
  requireWhole,
  shown,
} from '../base/require.js';
import { builtins } from '../device/programs/index.js';
import { ADDRESSINGS } from '../mm/addressing/addressing.js';
import { CLEAR_REFS } from '../mm/clear-refs.js';
import { ADVICES } from '../mm/madvise.js';
import { PROTECTIONS } from '../mm/mmap.js';
import type { MachineCpu } from './machine-cpu.js';
import type { MachineDevice } from './state.js';
import type {
  Addressing,
  Advice,
  ClearRefs,
  ElementArrays,
  ElementType,
  FileInput,
  LaunchOptions,
  MceKillPolicy,
  MirrorOptions,
  MmapOptions,
  MremapOptions,
  PinOptions,
  ProcFile,
  ProcPidFile,
  Protection,
  UserfaultfdOptions,
  VirtRange,
  WordOperation,
} from './types.js';

/** Bytes of one read or write: what one typed array can be relied on to hold. */
const ACCESS_BYTES_MAX = 2 ** 31;
/** Largest file: page offsets stay far below what numbers hold exactly. */
const FILE_BYTES_MAX = 2 ** 48;
/** Pages, or page frames, in one look: 16 GiB. */
const LOOK_PAGES_MAX = 2 ** 22;
const GROUP_SIZE_MAX = 1024;
const GROUP_SIZE_DEFAULT = 64;

const ELEMENT_CONSTRUCTORS = Object.freeze({
  u8: Uint8Array,
  i32: Int32Array,
  u32: Uint32Array,
  f32: Float32Array,
  f64: Float64Array,
});

const hex = (address: number): string => `0x${formatAddress(address)}`;

function requireAddress(what: string, value: unknown): asserts value is VirtAddr {
  requireWhole(what, value, 0, TASK_SIZE - 1);
}

/** Whole pages, at least one. Read once: whoever called may change what he handed in. */
export interface PageRange {
  readonly start: VirtAddr;
  /** Bytes. */
  readonly length: number;
  /** The first address behind it. */
  readonly end: VirtAddr;
  readonly pages: number;
}

/** A range of whole pages inside the user's addresses. */
export function requirePageRange(range: VirtRange): PageRange {
  requireObject('The range', range);
  const { start, length } = range;
  requireAddress('The start of the range', start);
  requireWhole('The length of the range', length, 1, TASK_SIZE);
  if (!isPageAligned(start))
    throw argumentError(`The range must start at a page (${PAGE_SIZE} bytes), not at ${hex(start)}.`);
  if (!isPageAligned(length))
    throw argumentError(`The range must be whole pages of ${PAGE_SIZE} bytes, not ${length} bytes.`);
  requireInside(start, length);
  return { start, length, end: (start + length) as VirtAddr, pages: length / PAGE_SIZE };
}

/** Pages that are looked at one by one: a result for each has to fit. */
export function requireLook(range: VirtRange): PageRange {
  const found = requirePageRange(range);
  requireWhole('The number of pages in one look', found.pages, 1, LOOK_PAGES_MAX);
  return found;
}

function requireInside(start: number, length: number): void {
  if (start + length > TASK_SIZE) {
    throw argumentError(`${length} bytes at ${hex(start)} leave the address space, which ends at ${hex(TASK_SIZE)}.`);
  }
}

/** What a read or write touches. */
export function requireAccess(start: number, length: number): asserts start is VirtAddr {
  requireAddress('The address', start);
  requireWhole('The length', length, 0, ACCESS_BYTES_MAX);
  requireInside(start, length);
}

export function requireBytes(bytes: Uint8Array): void {
  if (!(bytes instanceof Uint8Array)) throw argumentError(`The bytes must be a Uint8Array, not ${shown(bytes)}.`);
  requireAttached(bytes);
}

/** A buffer that was handed to another thread has no bytes any more: it would pass for an empty one. */
function requireAttached({ buffer }: ArrayBufferView): void {
  try {
    new Uint8Array(buffer, 0, 0);
  } catch {
    throw argumentError('The bytes have gone to another thread: their buffer is detached.');
  }
}

/** Words for so many pages, as they are now: the list may be changed while the call runs. */
export function requireWords(words: ArrayLike<bigint>, pages: number): BigUint64Array {
  requireObject('The words', words);
  if (words.length !== pages)
    throw argumentError(`There must be one word for each of the ${pages} pages, not ${shown(words.length)}.`);
  for (let at = 0; at < pages; at++) {
    const word = words[at];
    if (typeof word !== 'bigint' || BigInt.asUintN(64, word) !== word)
      throw argumentError(`A word must be a bigint of 64 bits, not ${shown(word)}.`);
  }
  return BigUint64Array.from(words);
}

/** The typed array of an element type, for `count` elements at an aligned address. */
export function requireElements<T extends ElementType>(type: T, start: number, count: number): ElementArrays[T] {
  const Elements = elementConstructor(type);
  requireWhole('The number of elements', count, 0, ACCESS_BYTES_MAX / Elements.BYTES_PER_ELEMENT);
  requireAligned(type, start);
  requireAccess(start, count * Elements.BYTES_PER_ELEMENT);
  return new Elements(count) as ElementArrays[T];
}

export function requireValues<T extends ElementType>(type: T, start: number, values: ElementArrays[T]): void {
  const Elements = elementConstructor(type);
  if (!(values instanceof Elements)) {
    throw argumentError(`Values of type ${type} must be in a ${Elements.name}, not ${shown(values)}.`);
  }
  requireAttached(values);
  requireAligned(type, start);
  requireAccess(start, values.byteLength);
}

export function requireCpu(cpus: readonly MachineCpu[], cpu: number): MachineCpu {
  if (cpus.length === 0) {
    throw argumentError('This machine has no CPU for loads and stores: give its spec `cpus`, how many it shall have.');
  }
  requireWhole('The CPU', cpu, 1, cpus.length);
  return cpus[cpu - 1]!;
}

const WORD_KINDS = ['load', 'store', 'add'];

export function requireWordOperations(operations: readonly WordOperation[]): void {
  requireList('The operations', operations);
  for (const operation of operations as readonly WordOperation[]) {
    requireObject('An operation', operation);
    const { kind, address, value = kind === 'load' ? 0 : undefined } = operation;
    requireOneOf('The kind of an operation', kind, WORD_KINDS);
    requireAligned('i32', address);
    requireAccess(address, Int32Array.BYTES_PER_ELEMENT);
    requireWhole('The value', value, -(2 ** 31), 2 ** 31 - 1);
  }
}

function elementConstructor(type: ElementType) {
  requireOneOf('The element type', type, Object.keys(ELEMENT_CONSTRUCTORS));
  return ELEMENT_CONSTRUCTORS[type];
}

function requireAligned(type: ElementType, start: number): void {
  requireAddress('The address', start);
  const bytes = ELEMENT_CONSTRUCTORS[type].BYTES_PER_ELEMENT;
  if (start % bytes !== 0)
    throw argumentError(`An address of ${type} must be a multiple of ${bytes}, not ${hex(start)}.`);
}

export function requireMmapOptions(options: MmapOptions): void {
  requireOptions('The options of mmap', options, ['length', 'at', 'protection', 'shared', 'file', 'offset', 'hugetlb']);
  const { length, at, protection = 'rw', shared = false, hugetlb = false, offset = 0 } = options;
  requireWhole('The length of a mapping', length, 1, TASK_SIZE);
  requireBoolean('shared of mmap', shared);
  requireProtection(protection);
  requireWhole('The offset of a mapping', offset, 0, FILE_BYTES_MAX - length);
  if (!isPageAligned(offset))
    throw argumentError(`A mapping must begin at a page of its file (${PAGE_SIZE} bytes), not at byte ${offset}.`);
  requireBoolean('hugetlb of mmap', hugetlb);
  if (hugetlb && (shared || options.file !== undefined))
    throw argumentError(
      'Memory from the pool of huge pages is private and anonymous: it is neither shared nor a file.',
    );
  if (options.file === undefined && offset > 0)
    throw argumentError('A mapping with an offset needs the file that it is an offset of.');
  if (at === undefined) return;
  requireAddress('The fixed address of a mapping', at);
  if (!isPageAligned(at))
    throw argumentError(`A fixed mapping must start at a page (${PAGE_SIZE} bytes), not at ${hex(at)}.`);
  requireInside(at, length);
}

/** The contents of a new file. */
export function requireFileInput(input: FileInput): { readonly bytes: Uint8Array; readonly size: number } {
  if (input instanceof Uint8Array) {
    requireAttached(input);
    return { bytes: input, size: input.length };
  }
  if (typeof input !== 'object' || input === null || !('size' in input))
    throw argumentError(`A file is made of a Uint8Array or of a size, not of ${shown(input)}.`);
  requireOptions('The fields of a new file', input, ['size']);
  requireWhole('The size of a file', input.size, 0, FILE_BYTES_MAX);
  return { bytes: new Uint8Array(0), size: input.size };
}

/** What a read or write of a file touches. */
export function requireFileRange(offset: number, length: number): void {
  requireWhole('The offset in a file', offset, 0, FILE_BYTES_MAX);
  requireWhole('The length', length, 0, Math.min(ACCESS_BYTES_MAX, FILE_BYTES_MAX - offset));
}

export function requireAdvice(advice: Advice): void {
  requireOneOf('The advice', advice, ADVICES);
}

export function requireProtection(protection: Protection): void {
  requireOneOf('The protection', protection, PROTECTIONS);
}

/** The options of mremap with their defaults; `to` stays away where it was left out. */
export function requireMremapOptions(
  range: PageRange,
  options: MremapOptions,
): MremapOptions & Required<Omit<MremapOptions, 'to'>> {
  requireOptions('The options of mremap', options, ['length', 'to', 'mayMove', 'dontUnmap']);
  const { length = range.length, mayMove = true, dontUnmap = false, to } = options;
  requireWhole('The new length of a mapping', length, 1, TASK_SIZE);
  requireBoolean('mayMove of mremap', mayMove);
  requireBoolean('dontUnmap of mremap', dontUnmap);
  if (to === undefined) return { length, mayMove, dontUnmap };
  requireAddress('The new address of a mapping', to);
  if (!isPageAligned(to)) throw argumentError(`A mapping moves to a page (${PAGE_SIZE} bytes), not to ${hex(to)}.`);
  requireInside(to, length);
  return { length, mayMove, dontUnmap, to };
}

const FAULT_POLICIES = ['migrate', 'mirror'] as const;

/** @returns onFault */
export function requireMlockOptions(options: { readonly onFault?: boolean }): boolean {
  requireOptions('The options of mlock', options, ['onFault']);
  const { onFault = false } = options;
  requireBoolean('onFault of mlock', onFault);
  return onFault;
}

export function requireMirrorOptions(options: MirrorOptions): (typeof FAULT_POLICIES)[number] {
  requireOptions('The options of a mirror', options, ['onFault']);
  const { onFault = 'migrate' } = options;
  requireOneOf('The fault policy onFault', onFault, FAULT_POLICIES);
  return onFault;
}

export function requireAddressing(addressing: Addressing): void {
  requireOneOf('The addressing', addressing, ADDRESSINGS);
}

export function requireClearRefs(what: ClearRefs): void {
  requireOneOf('What clear_refs clears', what, CLEAR_REFS);
}

const PROC_FILES = ['iomem', 'meminfo', 'vmstat'] as const;
const PROC_PID_FILES = ['maps', 'smaps', 'status'] as const;

export function requireProcFile(file: ProcFile): void {
  requireOneOf('A file of /proc', file, PROC_FILES);
}

export function requireProcPidFile(file: ProcPidFile): void {
  requireOneOf("A file of a process's /proc", file, PROC_PID_FILES);
}

export function requireFrames(pfn: number, count: number): void {
  requireWhole('The page frame number', pfn, 0, 2 ** 40 - 1);
  requireWhole('The number of page frames', count, 0, LOOK_PAGES_MAX);
}

const MCE_KILL_POLICIES = ['early', 'late'] as const;

export function requireMceKillPolicy(policy: MceKillPolicy): void {
  requireOneOf('When a process hears of memory that fails', policy, MCE_KILL_POLICIES);
}

const PIN_KINDS = ['longterm', 'get'] as const;

/** The options of a pin with their defaults. */
export function requirePinOptions(options: PinOptions): Required<PinOptions> {
  requireOptions('The options of a pin', options, ['write', 'kind']);
  const { write = false, kind = 'longterm' } = options;
  requireBoolean('write of pin', write);
  requireOneOf('The kind of a pin', kind, PIN_KINDS);
  return { write, kind };
}

const USERFAULTFD_FEATURES = ['wpUnpopulated', 'wpAsync', 'sigbus', 'exactAddress'] as const;

export function requireUserfaultfdOptions(options: UserfaultfdOptions): void {
  requireObject('The features of a userfaultfd', options);
  for (const [name, value] of Object.entries(options)) {
    requireOneOf('A feature of a userfaultfd', name, USERFAULTFD_FEATURES);
    requireBoolean(`${name} of userfaultfd`, value);
  }
}

export function requireResolveOptions(options: { readonly wake?: boolean }): { readonly wake: boolean } {
  requireOptions('The options of resolve', options, ['wake']);
  const { wake = true } = options;
  requireBoolean('wake of resolve', wake);
  return { wake };
}

export function requireDestination(to: 'device' | 'system'): void {
  if (to !== 'device' && to !== 'system')
    throw argumentError(`Pages migrate to device or system, not to ${shown(to)}.`);
}

/** The options of a launch with their defaults. */
export function requireLaunch(
  program: string | URL,
  options: LaunchOptions,
): Required<LaunchOptions> & { program: string } {
  if (!(program instanceof URL) && (typeof program !== 'string' || program === '')) {
    throw argumentError(`A program is the name of a built-in or the URL of a module, not ${shown(program)}.`);
  }
  if (typeof program === 'string' && !Object.hasOwn(builtins, program) && !URL.canParse(program)) {
    const hint = suggestion(program, Object.keys(builtins));
    throw argumentError(`There is no program "${program}" (${hint}): give a built-in's name or the URL of a module.`);
  }
  requireOptions('The options of a launch', options, ['lanes', 'groupSize', 'args']);
  const { lanes, groupSize = GROUP_SIZE_DEFAULT, args = {} } = options;
  requireWhole('The number of lanes', lanes, 1, LANES_MAX);
  requireWhole('The size of a work group', groupSize, 1, GROUP_SIZE_MAX);
  return { program: program instanceof URL ? program.href : program, lanes, groupSize, args: programArgs(args) };
}

/** The arguments as they are now: whoever called may change his object while the lanes run. */
function programArgs(args: ProgramArgs): ProgramArgs {
  requireObject('The arguments of a program', args);
  const own = { ...args };
  for (const [name, value] of Object.entries(own)) {
    if (typeof value !== 'number')
      throw argumentError(`The program's argument ${name} must be a number, not ${shown(value)}.`);
  }
  return own;
}

/** A device by index or name. */
export function requireDevice(devices: readonly MachineDevice[], wanted: number | string): MachineDevice {
  const found = typeof wanted === 'number' ? devices[wanted] : devices.find(({ spec }) => spec.name === wanted);
  if (found) return found;
  if (devices.length === 0) throw argumentError('The machine has no devices.');
  if (typeof wanted === 'string') {
    const names = devices.map(({ spec }) => spec.name);
    throw argumentError(`There is no device ${shown(wanted)}: ${suggestion(wanted, names)}`);
  }
  if (typeof wanted !== 'number')
    throw argumentError(`A device goes by its number or its name, not by ${shown(wanted)}.`);
  const most = devices.length === 1 ? 'the machine has device 0 alone' : `the machine's are 0 to ${devices.length - 1}`;
  throw argumentError(`There is no device ${shown(wanted)}: ${most}.`);
}
