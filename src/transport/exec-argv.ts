/** Node's own flags for threads. */

/** Those of this process, but for what says how its main program is read: `node --input-type=module -e ...` has a program that is no file. */
export function execArgvOfThreads(): string[] {
  const flags = [...process.execArgv];
  const at = flags.indexOf('--input-type');
  if (at >= 0) flags.splice(at, 2);
  return flags.filter((flag) => !flag.startsWith('--input-type='));
}
