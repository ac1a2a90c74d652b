/**
 * The block of shared memory between the kernel and one device: doorbell, fences and rings. One SharedArrayBuffer a device.
 *
 * Words 0..63 are the header; each ring follows, with its head and tail a cache line apart and its records behind them.
 * Fences are 32-bit sequence numbers that wrap: compare them with `fenceReached`, never with `<`.
 */
import { assert } from '../base/errors.js';
import { defineRecord, field } from './layout.js';

export const QUEUE_HEADER = defineRecord('device queue header', 256, {
  doorbell: field(
    0,
    'i32',
    'rung (incremented) by the kernel after it put something into a ring; the device sleeps on it',
  ),
  sleeping: field(4, 'i32', '1 while the device sleeps, so that a ring may skip the wake-up call'),
  controlRequested: field(8, 'i32', 'control calls posted by the host; the device leaves its sleep for its event loop'),
  controlHandled: field(12, 'i32', 'control calls that the device has seen'),
  stop: field(16, 'i32', '1: leave the loop'),
  faultLimit: field(
    20,
    'i32',
    'fault injection: records that the fault ring holds at a time, 0 for all of its capacity',
  ),
  copyFence: field(64, 'i32', 'sequence number of the last copy packet that is done'),
  copyError: field(68, 'i32', 'sequence number of the last copy packet that failed, 0 if none ever did'),
  invalidateFence: field(128, 'i32', 'sequence number of the last invalidation that the device obeyed'),
  commandFence: field(192, 'i32', 'sequence number of the last command that the device took'),
  replayFence: field(196, 'i32', 'sequence number of the last fault replay after which every replayed lane has run'),
});

/** The host's doorbell: one small SharedArrayBuffer for all devices of a machine. */
export const HOST_DOORBELL = defineRecord('host doorbell', 64, {
  doorbell: field(0, 'i32', 'rung by devices after they put something into a ring or advanced a fence'),
  sleeping: field(4, 'i32', '1 while the kernel sleeps'),
  messages: field(8, 'i32', 'answers to control calls that devices have posted: they come through the event loop'),
});

export interface RingLayout {
  readonly name: string;
  /** Word index of the consumer's counter; the producer's is 16 words behind it. */
  readonly headWord: number;
  readonly tailWord: number;
  readonly recordsWord: number;
  /** Records in the ring: a power of two. */
  readonly capacity: number;
  readonly recordWords: number;
}

const RING_SHAPES = [
  { name: 'copies', capacity: 4096, recordWords: 8 },
  { name: 'invalidations', capacity: 256, recordWords: 8 },
  { name: 'commands', capacity: 1024, recordWords: 8 },
  { name: 'faults', capacity: 1024, recordWords: 8 },
] as const;

export type RingName = (typeof RING_SHAPES)[number]['name'];

function layRings(): { rings: Readonly<Record<RingName, RingLayout>>; words: number } {
  let at = QUEUE_HEADER.bytes / 4;
  const rings = {} as Record<RingName, RingLayout>;
  for (const { name, capacity, recordWords } of RING_SHAPES) {
    assert((capacity & (capacity - 1)) === 0, `ring ${name}: capacity ${capacity} is no power of two`);
    rings[name] = { name, headWord: at, tailWord: at + 16, recordsWord: at + 32, capacity, recordWords };
    at += 32 + capacity * recordWords;
  }
  return { rings: Object.freeze(rings), words: at };
}

const laid = layRings();
/** kernel → device: copies, invalidations, commands. device → kernel: faults. */
export const RINGS = laid.rings;
export const QUEUE_BYTES = laid.words * 4;

/** Has a fence that counts up and wraps reached `sequence`? */
export const fenceReached = (current: number, sequence: number): boolean => ((current - sequence) | 0) >= 0;
