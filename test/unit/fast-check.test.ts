/** The arbitraries that the package gives to fast-check. */
import fc from 'fast-check';
import { explore, parseMachineSpec } from 'pfnless';
import { machineSpecs, programs } from 'pfnless/fast-check';
import { expect, test } from 'vitest';

test('programs shrink to one call', () => {
  const callsOf = ({ tasks }: { readonly tasks: readonly { readonly calls: readonly unknown[] }[] }) =>
    tasks.flatMap(({ calls }) => calls);
  const property = fc.property(programs(), (generated) => callsOf(generated).length === 0);
  const { counterexample } = fc.check(property, { seed: 1 });
  expect(callsOf(counterexample![0])).toHaveLength(1);
  expect(counterexample![0].init).toEqual([]);
});

test('machine specs can be built', () => {
  fc.assert(fc.property(machineSpecs(), (spec) => parseMachineSpec(spec).executor === 'inline'));
});

test('programs can be explored', () => {
  const holds = (program: Parameters<typeof explore>[0]) =>
    explore(program, { strategy: 'random', executions: 3 }).failure === null;
  fc.assert(fc.property(programs(), holds), { numRuns: 10, seed: 7 });
});
