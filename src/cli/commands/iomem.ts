/** `pfnless iomem`: the physical address map and, beside it, the device private address space, as a booted machine has them. */
import type { Command } from 'commander';
import { boot } from '../../check/boot.js';
import { BootError } from '../../machine/errors.js';
import { splitMaps } from '../../machine/iomem.js';
import { type MachineSpec, overrideMachineSpec } from '../../machine/spec.js';
import { errorReport } from '../../report/error-report.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { addMapOptions, type MachineFlags, machineFromFlags } from '../machine-options.js';
import { complain, print, printJson } from '../output.js';

export function addIomemCommand(program: Command, exit: (code: number) => void): void {
  addMapOptions(program.command('iomem').description('print the physical and the device private address map'))
    .option('--json', 'print one JSON object')
    .action(async (flags: MachineFlags & { readonly json?: boolean }) => {
      // The map is the same in either executor; inline needs no threads.
      const spec = overrideMachineSpec(machineFromFlags(flags), { executor: 'inline' });
      exit(await iomem(spec, flags.json === true));
    });
}

async function iomem(spec: MachineSpec, json: boolean): Promise<number> {
  const { text, failure } = await mapOf(spec);
  const failed = failure && { ...errorReport(failure), ...failure.failed };
  if (json) {
    const { name: machine, addressing } = spec;
    const { physical, devicePrivate } = splitMaps(text);
    const maps = { physical: treeOf(physical), devicePrivate: treeOf(devicePrivate) };
    printJson({ schema: 'pfnless/iomem@1', ok: !failed, machine, addressing, ...maps, failed });
  } else {
    print(text);
    if (failed) complain(failed.message);
  }
  return failed ? EXIT_FOUND : EXIT_HELD;
}

/** The maps of the booted machine; of one that does not boot, the physical map as it stood then. */
async function mapOf(spec: MachineSpec): Promise<{ text: string; failure: BootError | null }> {
  try {
    await using machine = await boot(spec);
    return { text: machine.iomem(), failure: null };
  } catch (error) {
    if (error instanceof BootError) return { text: error.iomem, failure: error };
    throw error;
  }
}

/** A range. Addresses stay hex text: JSON has no hex numbers. */
interface MapNode {
  readonly start: string;
  readonly end: string;
  readonly name: string;
  readonly children: MapNode[];
}

/** The ranges that the indented lines of a map describe. */
function treeOf(map: string): MapNode[] {
  const roots: MapNode[] = [];
  const path: MapNode[][] = [roots];
  for (const [, indent = '', start, end, name = ''] of map.matchAll(/^( *)([0-9a-f]+)-([0-9a-f]+) : (.*)$/gm)) {
    const depth = indent.length / 2;
    const node: MapNode = { start: `0x${start}`, end: `0x${end}`, name, children: [] };
    path[depth]!.push(node);
    path[depth + 1] = node.children;
  }
  return roots;
}
