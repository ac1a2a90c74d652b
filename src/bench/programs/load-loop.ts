/** Compute program of the load benchmarks: each lane loads every word of a buffer, so many times over. */
import type { ComputeProgram } from '../../device/program.js';

interface Args extends Readonly<Record<string, number>> {
  /** Where the words are, and the bytes from one to the next. */
  readonly start: number;
  readonly end: number;
  readonly stride: number;
  readonly times: number;
  /** Where each lane leaves the sum of what it loaded. */
  readonly sums: number;
}

const loadLoop: ComputeProgram<Args> = (ctx, { start, end, stride, times, sums }) => {
  let sum = 0;
  for (let time = 0; time < times; time++) {
    for (let address = start; address < end; address += stride) sum = (sum + ctx.loadI32(address)) | 0;
  }
  ctx.storeI32(sums + ctx.lane * 4, sum);
};

export default loadLoop;
