/** The inner loop of whoever walks tables that are mostly empty: page tables when they are freed, and checkers. */

/**
 * The first of the 64-bit words `at` to `end - 1`, given as doubles, that is not zero; `end` if there is none. A word of nothing but
 * its top bit is minus zero, and counts as zero: no entry of a page table looks so.
 */
export function nextWord(floats: Float64Array, at: number, end: number): number {
  // Eight at a time, as a sum of what is not negative: half the time of a loop over integers.
  for (; at + 8 <= end; at += 8) {
    const low =
      Math.abs(floats[at]!) + Math.abs(floats[at + 1]!) + Math.abs(floats[at + 2]!) + Math.abs(floats[at + 3]!);
    const high =
      Math.abs(floats[at + 4]!) + Math.abs(floats[at + 5]!) + Math.abs(floats[at + 6]!) + Math.abs(floats[at + 7]!);
    if (low + high !== 0) break;
  }
  while (at < end && floats[at] === 0) at++;
  return at;
}
