/** The built-in compute programs by name. What their arguments mean is said beside each one. */
import type { ComputeProgram, LaneContext } from '../program.js';
import { bfsLevel } from './bfs-level.js';
import { histogram } from './histogram.js';
import { matmulTiled } from './matmul-tiled.js';
import { atomicIncrement, copy, fill, increment, touch } from './memory.js';
import { pointerChase } from './pointer-chase.js';
import { randomUpdate } from './random-update.js';
import { reduce } from './reduce.js';
import { stencil2d } from './stencil-2d.js';
import { saxpy, vectorAdd } from './vector.js';
import { wordOps } from './word-ops.js';

export interface BuiltinProgram {
  readonly summary: string;
  /** Names of the arguments, all of them needed. */
  readonly args: readonly string[];
  readonly run: ComputeProgram;
}

/** A program that says which of its arguments is missing, before address NaN is loaded from. */
function builtin<Name extends string>(
  summary: string,
  names: readonly Name[],
  program: (ctx: LaneContext, args: Readonly<Record<Name, number>>) => void,
): BuiltinProgram {
  const run: ComputeProgram = (ctx, args) => {
    if (ctx.lane === 0) {
      for (const name of names) if (!Number.isFinite(args[name])) throw new Error(`argument '${name}' is missing`);
    }
    program(ctx, args as Readonly<Record<Name, number>>);
  };
  return { summary, args: names, run };
}

export const builtins: Readonly<Record<string, BuiltinProgram>> = Object.freeze({
  'vector-add': builtin('out = a + b, floats', ['a', 'b', 'out', 'count'], vectorAdd),
  saxpy: builtin('y = alpha * x + y, floats', ['x', 'y', 'alpha', 'count'], saxpy),
  'matmul-tiled': builtin('matrix product by tiles in group memory', ['a', 'b', 'out', 'rows', 'n'], matmulTiled),
  histogram: builtin('how often each byte occurs', ['source', 'count', 'bins'], histogram),
  reduce: builtin('sum of words by a tree of barriers', ['source', 'count', 'out'], reduce),
  'stencil-2d': builtin(
    'one step of a 5-point mean over a band of a grid',
    ['source', 'target', 'width', 'height', 'firstRow', 'rows'],
    stencil2d,
  ),
  'bfs-level': builtin(
    'one level of a breadth-first search',
    ['offsets', 'edges', 'distance', 'first', 'count', 'level', 'found'],
    bfsLevel,
  ),
  'pointer-chase': builtin('follow links', ['links', 'starts', 'hops', 'ends', 'sums'], pointerChase),
  'random-update': builtin('atomic additions all over a table', ['table', 'words', 'updates', 'seed'], randomUpdate),
  copy: builtin('copy words', ['source', 'target', 'count'], copy),
  fill: builtin('write words that count up', ['target', 'count', 'value', 'step'], fill),
  touch: builtin('read words, for their faults', ['target', 'count', 'stride'], touch),
  increment: builtin('add to words', ['target', 'count', 'stride', 'by'], increment),
  'word-ops': builtin('do what a list of single operations says', ['ops', 'count'], wordOps),
  'atomic-increment': builtin('add to words atomically', ['target', 'count', 'stride', 'by'], atomicIncrement),
});

/** What a device loads: the programs alone. */
export const builtinPrograms: Readonly<Record<string, ComputeProgram>> = Object.freeze(
  Object.fromEntries(Object.entries(builtins).map(([name, { run }]) => [name, run])),
);
