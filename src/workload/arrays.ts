/** Typed arrays in the memory of a workload's process, and the comparison with what they should hold. */
import type { ElementArrays, ElementType, VirtRange } from '../machine/types.js';
import type { WorkloadEnv, WorkloadVerdict } from './workload.js';

export const BYTES_PER_ELEMENT: Readonly<Record<ElementType, number>> = Object.freeze({
  u8: 1,
  i32: 4,
  u32: 4,
  f32: 4,
  f64: 8,
});

/** An array that the CPU and the devices share. */
export interface SharedArray<T extends ElementType> {
  readonly range: VirtRange;
  readonly count: number;
  /** Address of an element. */
  at(index: number): number;
  write(values: ElementArrays[T], first?: number): Promise<void>;
  /** The CPU's loads: pages that are on a device fault back one at a time. */
  read(first?: number, count?: number): Promise<ElementArrays[T]>;
  /** Bring all pages back in bulk, then read. */
  readHome(): Promise<ElementArrays[T]>;
}

export async function allocate<T extends ElementType>(
  env: WorkloadEnv,
  type: T,
  count: number,
): Promise<SharedArray<T>> {
  const range = await env.process.mmap({ length: count * BYTES_PER_ELEMENT[type] });
  const at = (index: number): number => range.start + index * BYTES_PER_ELEMENT[type];
  const read = (first = 0, length = count - first) => env.process.readArray(type, at(first), length);
  return {
    range,
    count,
    at,
    read,
    write: (values, first = 0) => env.process.writeArray(type, at(first), values),
    async readHome() {
      for (const mirror of env.mirrors) await mirror.migrate(range, 'system');
      return read();
    },
  };
}

/** Allocate an array that holds `values`. */
export async function upload<T extends ElementType>(
  env: WorkloadEnv,
  type: T,
  values: ElementArrays[T],
): Promise<SharedArray<T>> {
  const array = await allocate(env, type, values.length);
  await array.write(values);
  return array;
}

/** The part of a verdict that a comparison decides. */
export type Comparison = Pick<WorkloadVerdict, 'verified' | 'checked' | 'detail'>;

/** Compare bit for bit (but a NaN equals a NaN). `first` is the index of `actual[0]`, for the message. */
export function compare(what: string, expected: ArrayLike<number>, actual: ArrayLike<number>, first = 0): Comparison {
  for (let i = 0; i < expected.length; i++) {
    // Zeroes differ by sign, and a NaN is no difference: ask only where there may be one.
    if (expected[i] !== actual[i] || expected[i] === 0) {
      if (Object.is(expected[i], actual[i])) continue;
      const detail = `${what}[${first + i}]: expected ${expected[i]}, got ${actual[i]}`;
      return { verified: false, checked: i, detail };
    }
  }
  return { verified: true, checked: expected.length };
}

/** Several comparisons as one: verified if all are, with the first mismatch. */
export function compareAll(comparisons: readonly Comparison[]): Comparison {
  const checked = comparisons.reduce((sum, comparison) => sum + comparison.checked, 0);
  return { ...(comparisons.find((comparison) => !comparison.verified) ?? { verified: true }), checked };
}
