/** A machine in words of the command line: commands that are printed to be run again have to mean the same machine. */
import { DEFAULT_REVISION } from '../mm/check-sites.js';
import type { MachineSpec } from './spec.js';

/** A word as a shell takes it. */
const shellWord = (text: string): string => (/^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

/**
 * The flags that make `spec` of the machine that `--machine` names.
 * @param machine preset or file; `null` leaves the flag out
 */
export function machineWords(spec: MachineSpec, machine: string | null): readonly string[] {
  return [
    ...(machine === null ? [] : [`--machine ${shellWord(machine)}`]),
    `--addressing ${spec.addressing}`,
    ...(spec.revision === DEFAULT_REVISION ? [] : [`--revision ${spec.revision}`]),
    ...spec.forget.map((id) => `--site ${id}`),
    `--devices ${spec.devices.length}`,
    `--executor ${spec.executor}`,
    ...(spec.executor === 'inline' ? [`--schedule ${spec.schedule}`] : []),
    `--seed ${spec.seed}`,
    ...(spec.checks ? [] : ['--no-checks']),
  ];
}
