#!/usr/bin/env node
/** The `pfnless` command: knows the commands, turns errors into one sentence and an exit code, stops on Ctrl-C. */
import { Command, CommanderError } from 'commander';
import { addBenchCommand } from './commands/bench.js';
import { addCampaignCommand } from './commands/campaign.js';
import { addConformCommand } from './commands/conform.js';
import { addContentionCommand } from './commands/contention.js';
import { addExploreCommand, addReplayCommand } from './commands/explore.js';
import { addIomemCommand } from './commands/iomem.js';
import { addLayoutsCommand } from './commands/layouts.js';
import { addListCommand } from './commands/list.js';
import { addMutantsCommand } from './commands/mutants.js';
import { addRunCommand } from './commands/run.js';
import { addShowcaseCommand } from './commands/showcase.js';
import { addStressCommand } from './commands/stress.js';
import { EXIT_HELD, EXIT_INTERRUPTED, EXIT_USAGE, outcomeOf } from './exit.js';
import { packageVersion } from './files.js';
import { complain, print, printJson, tolerateClosedPipe } from './output.js';

const setExitCode = (code: number): void => {
  process.exitCode = code;
};

function createProgram(): Command {
  const program = new Command('pfnless')
    .description('An emulator of Linux heterogeneous memory management with simulated GPUs in worker threads.')
    .version(packageVersion())
    .usage('<command> [options]')
    .exitOverride()
    // `outcomeOf` writes the sentence, so commander must not.
    .configureOutput({ writeOut: print, outputError: () => {} });
  addRunCommand(program, setExitCode);
  addExploreCommand(program, setExitCode);
  addReplayCommand(program, setExitCode);
  addStressCommand(program, setExitCode);
  addCampaignCommand(program, setExitCode);
  addContentionCommand(program, setExitCode);
  addMutantsCommand(program, setExitCode);
  addListCommand(program, setExitCode);
  addIomemCommand(program, setExitCode);
  addLayoutsCommand(program, setExitCode);
  addConformCommand(program, setExitCode);
  addShowcaseCommand(program, setExitCode);
  addBenchCommand(program, setExitCode);
  return program;
}

/** Write an error as its readers want it: a sentence on stderr, and with `--json` an object on stdout. */
function report(error: unknown, words: readonly string[], commands: readonly string[]): void {
  const { report: reported, exitCode, text } = outcomeOf(error);
  complain(text);
  if (words.includes('--json')) {
    const command = words.find((word) => commands.includes(word)) ?? 'error';
    printJson({ schema: `pfnless/${command}@1`, ok: false, error: reported });
  }
  setExitCode(exitCode);
}

async function main(words: readonly string[]): Promise<void> {
  tolerateClosedPipe();
  // Ends every worker thread with it. Devices hold nothing that would have to be put away.
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(EXIT_INTERRUPTED));
  const program = createProgram();
  try {
    await program.parseAsync(words, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.code.startsWith('commander.help')) {
      setExitCode(error.exitCode === 0 ? EXIT_HELD : EXIT_USAGE);
    } else if (!(error instanceof CommanderError && error.code === 'commander.version')) {
      const commands = program.commands.map((command) => command.name());
      report(error, words, commands);
    }
  }
}

await main(process.argv.slice(2));
