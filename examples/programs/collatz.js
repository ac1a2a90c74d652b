/** A compute program: how many steps does the Collatz sequence take from each number to 1? One lane a number. */

/** @type {import('pfnless').ComputeProgram<{ numbers: number, steps: number }>} */
export default function collatz(ctx, args) {
  let value = ctx.loadU32(args.numbers + ctx.lane * 4);
  let steps = 0;
  for (; value > 1; steps++) value = value % 2 === 0 ? value / 2 : 3 * value + 1;
  ctx.storeU32(args.steps + ctx.lane * 4, steps);
}
