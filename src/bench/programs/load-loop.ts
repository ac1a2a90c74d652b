/** Compute program of the TLB-hit benchmark: one lane loads `count` words round and round over a few mapped pages. */
import type { ComputeProgram } from '../../device/program.js';

interface Args extends Readonly<Record<string, number>> {
  readonly source: number;
  /** Words in the buffer: a power of two. */
  readonly words: number;
  readonly count: number;
  /** Where each lane leaves the sum of what it loaded. */
  readonly sums: number;
}

const loadLoop: ComputeProgram<Args> = (ctx, { source, words, count, sums }) => {
  let sum = 0;
  for (let i = 0; i < count; i++) sum = (sum + ctx.loadI32(source + (i & (words - 1)) * 4)) | 0;
  ctx.storeI32(sums + ctx.lane * 4, sum);
};

export default loadLoop;
