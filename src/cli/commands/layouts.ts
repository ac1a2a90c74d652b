/** `pfnless layouts`: predict where real machines placed device memory, from recorded physical address maps. */
import type { Command } from 'commander';
import { replayLayouts } from '../../conformance/layouts.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { readText } from '../files.js';
import { print, printJson } from '../output.js';

export function addLayoutsCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('layouts')
    .description("predict recorded placements of device memory in real machines' physical address maps")
    .argument('<file...>', 'JSON lines, possibly gzipped (.gz)')
    .option('--json', 'print one JSON object')
    .action((files: string[], flags: { readonly json?: boolean }) => exit(layouts(files, flags.json === true)));
}

function layouts(files: readonly string[], json: boolean): number {
  const replays = files.map((file) => replayLayouts(readText(file), file));
  const cases = replays.reduce((sum, replay) => sum + replay.cases, 0);
  const requests = replays.reduce((sum, replay) => sum + replay.requests, 0);
  const mismatches = replays.flatMap((replay) => replay.mismatches);
  const ok = mismatches.length === 0;
  if (json) {
    printJson({ schema: 'pfnless/layouts@1', ok, cases, requests, mismatches });
  } else {
    print(`${cases} machines, ${requests} requests, ${mismatches.length} mismatches\n`);
    for (const mismatch of mismatches) print(`  ${JSON.stringify(mismatch)}\n`);
  }
  return ok ? EXIT_HELD : EXIT_FOUND;
}
