/** Deterministic inputs. Floats hold small integers, so that sums and products are exact in whatever order they are made. */
import type { Random } from '../base/random.js';

/** Fill with integers in [-8, 8). */
export function smallIntegers<T extends Float32Array | Float64Array | Int32Array>(random: Random, values: T): T {
  for (let i = 0; i < values.length; i++) values[i] = random.below(16) - 8;
  return values;
}

/** Fill with bytes. */
export function randomBytes(random: Random, values: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  for (let i = 0; i < values.length; i++) values[i] = random.next();
  return values;
}

/** Fill with 32-bit words. */
export function randomWords(random: Random, values: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  for (let i = 0; i < values.length; i++) values[i] = random.next();
  return values;
}
