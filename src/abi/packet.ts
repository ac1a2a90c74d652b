/** The records of the rings: 8 words each. Which ring carries which is in queue.ts. */
import { defineRecord, field } from './layout.js';

/**
 * `copies`: one run of pages that is contiguous on both sides. The engine takes a reference on every struct page of the
 * run (where a slot is given) before it copies and drops it after, so a page cannot be freed under a copy.
 */
export const COPY_PACKET = defineRecord('copy packet', 32, {
  sequence: field(0, 'i32', 'fence value to publish when the run is copied'),
  memories: field(4, 'u32', 'source memory id (low 8 bits), destination memory id (next 8), COPY_* flags above'),
  sourceFrame: field(8, 'u32', 'first frame in the source memory'),
  targetFrame: field(12, 'u32', 'first frame in the destination memory'),
  pages: field(16, 'u32', 'pages in the run'),
  sourcePage: field(20, 'u32', 'slot of the first struct page of the source, 0 for none'),
  targetPage: field(24, 'u32', 'slot of the first struct page of the destination, 0 for none'),
});
/** Source and target of a copy in its `memories` word. */
export const packMemories = (source: number, target: number): number => source | (target << 8);
export const sourceMemory = (memories: number): number => memories & 0xff;
export const targetMemory = (memories: number): number => (memories >>> 8) & 0xff;
/** Fault injection: the engine reports an error, and copies nothing. */
export const COPY_FAIL = 1 << 17;
/** Fault injection: the engine passes the packet over so many times, in the bits from here up. */
export const COPY_LATE_SHIFT = 24;
/** There is no source: fill the destination with zeroes. */
export const COPY_ZERO = 1 << 16;
/** Nobody waits for this fence by itself: more of the batch follows. The host is told only when no packet is left. */
export const COPY_QUIET = 1 << 18;

/** `invalidations`: forget translations of [start, end) of a context; `sequence` is published once no lane can use them. */
export const INVALIDATE_PACKET = defineRecord('invalidate packet', 32, {
  sequence: field(0, 'i32', 'fence value to publish'),
  context: field(4, 'u32', 'address space'),
  start: field(8, 'f64', 'first virtual address'),
  end: field(16, 'f64', 'end virtual address, not included'),
  late: field(24, 'u32', 'fault injection: so many steps pass before the device sees it'),
});

/** `commands`: answers to faults. */
export const COMMAND_PACKET = defineRecord('command packet', 32, {
  sequence: field(0, 'i32', 'fence value to publish when the command is taken'),
  kind: field(4, 'u32', 'COMMAND_*'),
  context: field(8, 'u32', 'address space'),
  errno: field(12, 'i32', 'COMMAND_CANCEL: why (Linux errno number)'),
  address: field(16, 'f64', 'COMMAND_CANCEL: page that cannot be had'),
  access: field(24, 'u32', 'COMMAND_CANCEL: weakest ACCESS_* that cannot be had; 0 (read): no access at all'),
  upTo: field(28, 'i32', 'COMMAND_REPLAY: sequence of the last fault taken from the buffer; 0: all reported'),
});
/** Fault replay: every lane of the context tries again that waits for a fault which the driver has taken (`upTo`). */
export const COMMAND_REPLAY = 1;
/** The lanes that wait for this access (or a stronger one) to the page fail, and their launches with them. */
export const COMMAND_CANCEL = 2;

/** `faults`: a replayable fault. One record a page and kind of access, however many lanes wait for it. */
export const FAULT_PACKET = defineRecord('fault packet', 32, {
  sequence: field(0, 'i32', 'number of the fault on this device'),
  context: field(4, 'u32', 'address space'),
  address: field(8, 'f64', 'page-aligned virtual address'),
  access: field(16, 'u32', 'ACCESS_*'),
  lanes: field(20, 'u32', 'lanes that waited when the fault was reported'),
});
export const ACCESS_READ = 0;
export const ACCESS_WRITE = 1;
export const ACCESS_ATOMIC = 2;
export type Access = typeof ACCESS_READ | typeof ACCESS_WRITE | typeof ACCESS_ATOMIC;

/** Faults that a driver takes from the buffer at once (as NVIDIA's UVM does by default). */
export const FAULT_BATCH_MAX = 256;
