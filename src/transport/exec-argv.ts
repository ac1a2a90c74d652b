/** Node's own flags for threads. */
import { type ParseArgsConfig, parseArgs } from 'node:util';

const VALUE = { type: 'string', multiple: true } as const;
const SWITCH = { type: 'boolean', multiple: true } as const;

/**
 * What a thread has from its process: how modules are found and read, for it may import programs of its user's. It cannot be started with
 * flags of V8's or of the process as a whole (`--max-old-space-size`), which hold for it all the same.
 */
const OF_MODULES: NonNullable<ParseArgsConfig['options']> = {
  import: VALUE,
  require: { ...VALUE, short: 'r' },
  loader: VALUE,
  'experimental-loader': VALUE,
  conditions: { ...VALUE, short: 'C' },
  'experimental-strip-types': SWITCH,
  'experimental-transform-types': SWITCH,
  'preserve-symlinks': SWITCH,
  'enable-source-maps': SWITCH,
  'no-warnings': SWITCH,
};

export function execArgvOfThreads(flags: readonly string[] = process.execArgv): string[] {
  const { tokens } = parseArgs({ args: [...flags], options: OF_MODULES, strict: false, tokens: true });
  return tokens.flatMap((token) => {
    if (token.kind !== 'option' || !Object.hasOwn(OF_MODULES, token.name)) return [];
    return [token.value === undefined ? `--${token.name}` : `--${token.name}=${token.value}`];
  });
}
