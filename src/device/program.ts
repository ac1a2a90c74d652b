/**
 * What a compute program sees. A program is a plain function that runs once for each lane of a launch.
 *
 * A lane that touches memory which the device cannot reach is abandoned (the context throws a private signal: never catch
 * it); when its fault has been served the program is called again from its start, and everything that it had completed is
 * replayed from a log, so that nothing happens twice. A program must therefore be deterministic: the same lane, arguments
 * and loaded values must lead to the same sequence of calls on the context. It must keep no state outside of its call.
 */

/**
 * Addresses are virtual addresses of the process. An access that is not aligned to its size, or to memory that the process may not
 * access so, ends the launch (ERR_PFNLESS_FAULT). Values are taken modulo the size of the access, as typed arrays do. Between two lanes,
 * or a lane and a CPU, only atomics and barriers order anything.
 */
export interface LaneContext {
  /** Number of this lane in the launch, 0-based. */
  readonly lane: number;
  /** Lanes in the launch. */
  readonly lanes: number;
  readonly group: number;
  readonly groupSize: number;
  /** Number of this lane inside its work group. */
  readonly localLane: number;

  loadU8(addr: number): number;
  loadI32(addr: number): number;
  loadU32(addr: number): number;
  loadF32(addr: number): number;
  loadF64(addr: number): number;
  storeU8(addr: number, value: number): void;
  storeI32(addr: number, value: number): void;
  storeU32(addr: number, value: number): void;
  storeF32(addr: number, value: number): void;
  storeF64(addr: number, value: number): void;

  /** Atomics on 32-bit integers: return the value before the operation. */
  atomicAdd(addr: number, value: number): number;
  atomicMin(addr: number, value: number): number;
  atomicMax(addr: number, value: number): number;
  atomicExchange(addr: number, value: number): number;
  atomicCompareExchange(addr: number, expected: number, value: number): number;

  /** Work-group memory: `LOCAL_WORDS` doubles shared by the lanes of a group, zero when the group starts. */
  loadLocal(index: number): number;
  storeLocal(index: number, value: number): void;
  /** Wait until every lane of the group is here (or has ended). */
  barrier(): void;
}

/** Doubles of work-group memory. */
export const LOCAL_WORDS = 4096;

export type ComputeProgram<Args extends Readonly<Record<string, number>> = Readonly<Record<string, number>>> = (
  ctx: LaneContext,
  args: Args,
) => void;
