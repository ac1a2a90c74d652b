/**
 * `pfnless/fast-check`: arbitraries for those who test with fast-check, an optional peer dependency.
 *
 *     fc.assert(fc.property(programs(), (program) => explore(program, { strategy: 'random' }).failure === null));
 */
import * as fc from 'fast-check';
import type { MachineSpecInput } from './machine/spec.js';
import { type GenerateOptions, generateProgram, requireGenerateOptions } from './workload/program/generate.js';
import { simplifications } from './workload/program/minimize.js';
import type { Program } from './workload/program/program.js';
import { isProgram } from './workload/program/validate.js';

/** Programs as the swarm generator makes them; they shrink by calls, tasks, pages and devices. */
export const programs = (options: GenerateOptions = {}): fc.Arbitrary<Program> => new ProgramArbitrary(options);

/** Machines that boot at once: little RAM, up to four small devices. */
export const machineSpecs = (): fc.Arbitrary<MachineSpecInput> =>
  fc
    .record({
      addressing: fc.constantFrom('legacy' as const, 'offset' as const),
      schedule: fc.constantFrom('round-robin' as const, 'random' as const),
      seed: fc.nat(0xffff),
      hugePages: fc.constantFrom('never' as const, 'madvise' as const, 'always' as const),
      devices: fc.array(fc.constantFrom(2, 4), { minLength: 1, maxLength: 4 }),
    })
    .map(({ devices, ...rest }) => ({
      ...rest,
      executor: 'inline' as const,
      memory: { ram: '32MiB' },
      devices: devices.map((mebibytes, index) => ({ name: `gpu${index}`, memory: `${mebibytes}MiB` })),
    }));

class ProgramArbitrary extends fc.Arbitrary<Program> {
  readonly #options: GenerateOptions;

  constructor(options: GenerateOptions) {
    super();
    // What is wrong with the options is said where they are given.
    requireGenerateOptions(options);
    this.#options = options;
  }

  override generate(random: fc.Random): fc.Value<Program> {
    return new fc.Value(generateProgram(random.nextInt(0, 0x7fff_ffff), this.#options), undefined);
  }

  override canShrinkWithoutContext(value: unknown): value is Program {
    return typeof value === 'object' && value !== null && 'tasks' in value && isProgram(value as Program);
  }

  override shrink(program: Program): fc.Stream<fc.Value<Program>> {
    return fc
      .stream(simplifications(program))
      .filter(isProgram)
      .map((simpler) => new fc.Value(simpler, undefined));
  }
}
