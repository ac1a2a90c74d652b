/** The flags that describe a machine, shared by the commands that boot one. */

import { type Command, InvalidArgumentError, Option } from 'commander';
import { PfnlessError } from '../base/errors.js';
import { SEED_MAX } from '../base/random.js';
import { PRESET_NAMES } from '../machine/presets.js';
import { MAX_DEVICES } from '../machine/schema.js';
import { type MachineOverrides, type MachineSpec, overrideMachineSpec } from '../machine/spec.js';
import { ADDRESSINGS, isAddressing } from '../mm/addressing/addressing.js';
import { loadMachine } from './files.js';
import { addSiteOptions, type SiteFlags, sitesFromFlags } from './site-options.js';

export interface MachineFlags extends SiteFlags {
  readonly machine: string;
  readonly addressing?: MachineSpec['addressing'];
  readonly devices?: number;
  readonly executor?: MachineSpec['executor'];
  readonly schedule?: MachineSpec['schedule'];
  readonly seed?: number;
  /** False with `--no-checks`. */
  readonly checks?: boolean;
}

/** A parser of whole numbers for commander. */
export const wholeNumber =
  (min: number, max: number) =>
  (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) throw new InvalidArgumentError(`Give a whole number from ${min} to ${max}`);
    return value;
  };

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** A parser of "90s", "2m", "1h", "500ms", or seconds, as milliseconds. */
export const timeOf =
  (flag: string) =>
  (text: string): number => {
    const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text);
    if (match === null || Number(match[1]) === 0) {
      throw new PfnlessError('ERR_PFNLESS_ARGUMENT', `${flag} is a time like 60s, 5m or 1h, not "${text}"`);
    }
    return Number(match[1]) * UNITS[match[2] ?? 's']!;
  };

/** Of `--jobs`. */
export const jobsNumber = wholeNumber(1, 64);

/** `pageless` is part of the design and not there yet: say so, instead of calling it unknown. */
function parseAddressing(text: string): string {
  if (text === 'pageless')
    throw new InvalidArgumentError(`pageless is planned, but not there yet: use ${ADDRESSINGS.join(' or ')}`);
  if (!isAddressing(text)) throw new InvalidArgumentError(`Allowed choices are ${ADDRESSINGS.join(', ')}`);
  return text;
}

/** `--addressing`. A machine's file may have its own; commands that take none have a default. */
export const addressingOption = (): Option =>
  new Option('--addressing <mode>', `how device private pages are named: ${ADDRESSINGS.join(' or ')}`).argParser(
    parseAddressing,
  );

/** Add `--machine` and `--addressing`. */
export function addMapOptions(command: Command): Command {
  return command
    .option('--machine <name|file>', `machine: ${PRESET_NAMES.join(', ')}, or a .yaml or .json file`, 'laptop')
    .addOption(addressingOption());
}

/** Add every flag of a machine. */
export function addMachineOptions(command: Command): Command {
  return addSiteOptions(addMapOptions(command))
    .option('--devices <n>', 'number of devices: the first n, or copies of the first', wholeNumber(0, MAX_DEVICES))
    .addOption(new Option('--executor <kind>', 'how devices run').choices(['threads', 'inline']))
    .addOption(new Option('--schedule <kind>', 'who runs next, inline').choices(['round-robin', 'random']))
    .option('--seed <n>', 'seed of everything random', wholeNumber(0, SEED_MAX))
    .option('--no-checks', 'leave out poisoning and the verification of numbers');
}

/** The spec that the flags describe: the preset or file, and what the other flags change. */
export function machineFromFlags(flags: MachineFlags): MachineSpec {
  const { machine, checks, ...rest } = flags;
  const overrides: MachineOverrides = {
    ...sitesFromFlags(rest),
    ...(rest.addressing && { addressing: rest.addressing }),
    ...(rest.executor && { executor: rest.executor }),
    ...(rest.schedule && { schedule: rest.schedule }),
    ...(rest.seed !== undefined && { seed: rest.seed }),
    ...(rest.devices !== undefined && { devices: rest.devices }),
    ...(checks === false && { checks }),
  };
  const spec = overrideMachineSpec(loadMachine(machine), overrides);
  if (rest.schedule !== undefined && spec.executor === 'threads') {
    throw new PfnlessError('ERR_PFNLESS_ARGUMENT', '--schedule is for --executor inline: threads run as they like');
  }
  return spec;
}
