/** Programs that only move or touch 32-bit words: copy, fill, touch, increment, atomic-increment. */
import type { LaneContext } from '../program.js';
import { chunkOf } from './chunk.js';

export interface CopyArgs {
  readonly source: number;
  readonly target: number;
  /** Words. */
  readonly count: number;
}

/** target[i] = source[i] */
export function copy(ctx: LaneContext, args: CopyArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  for (let i = start; i < end; i++) ctx.storeU32(args.target + i * 4, ctx.loadU32(args.source + i * 4));
}

export interface FillArgs {
  readonly target: number;
  /** Words. */
  readonly count: number;
  readonly value: number;
  /** Added for each word: target[i] = value + i * step. 0 for a constant. */
  readonly step: number;
}

/** target[i] = value + i * step, modulo 2^32. */
export function fill(ctx: LaneContext, args: FillArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  for (let i = start; i < end; i++) ctx.storeI32(args.target + i * 4, (args.value + Math.imul(i, args.step)) | 0);
}

/** A row of words that lie `stride` bytes apart. */
export interface TouchArgs {
  readonly target: number;
  /** Words to touch. */
  readonly count: number;
  /** Bytes from one to the next, a multiple of 4: 4 touches every word, 4096 one word a page. */
  readonly stride: number;
}

/** Read each word and forget it: only the faults matter. */
export function touch(ctx: LaneContext, args: TouchArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  for (let i = start; i < end; i++) ctx.loadU32(args.target + i * args.stride);
}

export interface IncrementArgs extends TouchArgs {
  readonly by: number;
}

/** Add `by` to each word with a load and a store: correct only while nobody else writes these words. */
export function increment(ctx: LaneContext, args: IncrementArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  for (let i = start; i < end; i++) {
    const at = args.target + i * args.stride;
    ctx.storeI32(at, (ctx.loadI32(at) + args.by) | 0);
  }
}

/** Add `by` to each word atomically: correct whoever else does the same. */
export function atomicIncrement(ctx: LaneContext, args: IncrementArgs): void {
  const { start, end } = chunkOf(ctx, args.count);
  for (let i = start; i < end; i++) ctx.atomicAdd(args.target + i * args.stride, args.by);
}
