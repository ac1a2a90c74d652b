/** `pfnless iomem`: the physical address map and, beside it, the device private address space, as a booted machine has them. */
import type { Command } from 'commander';
import { boot } from '../../check/boot.js';
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
  const [physical, devicePrivate] = splitMaps(text);
  if (json) {
    const { name: machine, addressing } = spec;
    const maps = { physical: treeOf(physical), devicePrivate: treeOf(devicePrivate) };
    printJson({ schema: 'pfnless/iomem@1', ok: !failed, machine, addressing, ...maps, failed });
  } else {
    print(textOf(physical));
    if (devicePrivate.length > 0) print(`\nDevice private address space:\n${textOf(devicePrivate)}`);
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

/** One line of a map. Addresses stay hex text: JSON has no hex numbers. */
interface MapLine {
  readonly depth: number;
  readonly start: string;
  readonly end: string;
  readonly name: string;
}

/** The two maps of a machine's text. Each is ordered by address, so the second begins where the addresses do. */
function splitMaps(text: string): [physical: MapLine[], devicePrivate: MapLine[]] {
  const maps: [MapLine[], MapLine[]] = [[], []];
  let map = maps[0];
  for (const line of text.split('\n')) {
    const [, indent = '', start, end, name] = /^( *)([0-9a-f]+)-([0-9a-f]+) : (.*)$/.exec(line) ?? [];
    if (start === undefined || end === undefined || name === undefined) continue;
    const last = map.at(-1);
    if (indent === '' && last && Number.parseInt(start, 16) < Number.parseInt(last.start, 16)) map = maps[1];
    map.push({ depth: indent.length / 2, start, end, name });
  }
  return maps;
}

const textOf = (map: readonly MapLine[]): string =>
  map.map(({ depth, start, end, name }) => `${'  '.repeat(depth)}${start}-${end} : ${name}\n`).join('');

interface MapNode {
  readonly start: string;
  readonly end: string;
  readonly name: string;
  readonly children: MapNode[];
}

function treeOf(map: readonly MapLine[]): MapNode[] {
  const roots: MapNode[] = [];
  const path: MapNode[][] = [roots];
  for (const { depth, start, end, name } of map) {
    const node: MapNode = { start: `0x${start}`, end: `0x${end}`, name, children: [] };
    path[depth]!.push(node);
    path[depth + 1] = node.children;
  }
  return roots;
}
