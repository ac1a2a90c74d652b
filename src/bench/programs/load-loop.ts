/** Compute program of the load benchmarks: each lane loads `count` words round and round over a buffer. */
import type { ComputeProgram } from '../../device/program.js';

interface Args extends Readonly<Record<string, number>> {
  readonly source: number;
  /** Words to load from, a power of two, and the bytes from one to the next. */
  readonly words: number;
  readonly stride: number;
  readonly count: number;
  /** Where each lane leaves the sum of what it loaded. */
  readonly sums: number;
}

const loadLoop: ComputeProgram<Args> = (ctx, { source, words, stride, count, sums }) => {
  let sum = 0;
  for (let i = 0; i < count; i++) sum = (sum + ctx.loadI32(source + (i & (words - 1)) * stride)) | 0;
  ctx.storeI32(sums + ctx.lane * 4, sum);
};

export default loadLoop;
