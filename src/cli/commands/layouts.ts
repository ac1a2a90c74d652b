/** `pfnless layouts`: predict where real machines placed device memory, from recorded physical address maps. */
import type { Command } from 'commander';
import { plural } from '../../base/plural.js';
import { type LayoutsReport, replayLayouts } from '../../conformance/layouts.js';
import { EXIT_FOUND, EXIT_HELD } from '../exit.js';
import { readText } from '../files.js';
import { paint, print, printJson } from '../output.js';

export function addLayoutsCommand(program: Command, exit: (code: number) => void): void {
  program
    .command('layouts')
    .description("predict recorded placements of device memory in real machines' physical address maps")
    .argument('<file...>', 'JSON lines, possibly gzipped (.gz)')
    .option('--json', 'print one JSON object')
    .action((files: string[], flags: { readonly json?: boolean }) => exit(layouts(files, flags.json === true)));
}

function layouts(files: readonly string[], json: boolean): number {
  const reports = files.map((file) => replayLayouts(readText(file), file));
  const sum = (count: (report: LayoutsReport) => number): number =>
    reports.reduce((total, report) => total + count(report), 0);
  const cases = sum((report) => report.cases);
  const requests = sum((report) => report.requests);
  const setAside = sum((report) => report.setAside);
  const skipped = sum((report) => report.skipped);
  const mismatches = reports.flatMap((report) => report.mismatches);
  const ok = mismatches.length === 0;
  if (json) {
    printJson({ schema: 'pfnless/layouts@1', ok, cases, requests, setAside, skipped, mismatches });
  } else {
    const wrong = mismatches.length === 1 ? '1 mismatch' : `${mismatches.length} mismatches`;
    print(`${plural(cases, 'machine')}, ${plural(requests, 'request')}, ${wrong}\n`);
    const aside = `${plural(setAside, 'machine')}, ${plural(skipped, 'request')}`;
    if (setAside > 0) print(`set aside, because RAM decided there: ${aside}\n`);
    for (const { case: name, request, expected, actual } of mismatches) {
      print(`${paint.bad(name)}, request ${request}: expected ${expected}, got ${actual}\n`);
    }
  }
  return ok ? EXIT_HELD : EXIT_FOUND;
}
