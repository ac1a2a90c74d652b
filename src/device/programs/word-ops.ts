/** Runs a list of single loads and stores that stands in memory (abi/word-op.ts), a piece of it in each lane. */
import { WORD_ADD, WORD_DONE, WORD_LOAD, WORD_OP } from '../../abi/word-op.js';
import type { LaneContext } from '../program.js';
import { chunkOf } from './chunk.js';

export interface WordOpsArgs {
  /** The list, aligned to 8 bytes, and how many records it has. */
  readonly ops: number;
  readonly count: number;
}

const { address: ADDRESS, kind: KIND, value: VALUE, found: FOUND, outcome: OUTCOME } = WORD_OP.offset;

export function wordOps(ctx: LaneContext, args: WordOpsArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  for (let i = start; i < end; i++) {
    const op = args.ops + i * WORD_OP.bytes;
    const address = ctx.loadF64(op + ADDRESS);
    const kind = ctx.loadI32(op + KIND);
    let found = 0;
    if (kind === WORD_LOAD) found = ctx.loadI32(address);
    else if (kind === WORD_ADD) found = ctx.atomicAdd(address, ctx.loadI32(op + VALUE));
    else ctx.storeI32(address, ctx.loadI32(op + VALUE));
    ctx.storeI32(op + FOUND, found);
    ctx.storeI32(op + OUTCOME, WORD_DONE);
  }
}
