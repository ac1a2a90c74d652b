/** `pfnless iomem`: the physical address map and, beside it, the device private address space, as a booted machine has them. */
import type { Command } from 'commander';
import { boot } from '../../machine/boot.js';
import { BootError } from '../../machine/errors.js';
import { type MachineSpec, overrideMachineSpec } from '../../machine/spec.js';
import { EXIT_FOUND, EXIT_HELD, errorReport } from '../exit.js';
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
    printJson({ schema: 'pfnless/iomem@1', ok: !failed, machine, addressing, ...parseMaps(text), failed });
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

/** A range of one of the maps; addresses are hex text, as JSON has no hex numbers. */
interface MapNode {
  readonly start: string;
  readonly end: string;
  readonly name: string;
  readonly children: MapNode[];
}

/** The text of the maps as trees: the physical map ends at the first line that is not a range. */
function parseMaps(text: string): { physical: MapNode[]; devicePrivate: MapNode[] } {
  const maps = { physical: [] as MapNode[], devicePrivate: [] as MapNode[] };
  let map = maps.physical;
  for (const line of text.split('\n')) {
    const match = /^( *)([0-9a-f]+)-([0-9a-f]+) : (.*)$/.exec(line);
    if (match) {
      const [, indent = '', start, end, name = ''] = match;
      let siblings = map;
      for (let depth = 0; depth < indent.length / 2; depth++) siblings = siblings.at(-1)?.children ?? siblings;
      siblings.push({ start: `0x${start}`, end: `0x${end}`, name, children: [] });
    } else {
      map = maps.devicePrivate;
    }
  }
  return maps;
}
