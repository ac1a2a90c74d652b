/** Checks of what callers hand to the public API, whoever offers it: each throws PfnlessError ERR_PFNLESS_ARGUMENT with one sentence. */
import { PfnlessError } from './errors.js';
import { suggestion } from './nearest.js';
import { SEED_MAX } from './random.js';

export const argumentError = (message: string): PfnlessError => new PfnlessError('ERR_PFNLESS_ARGUMENT', message);

/** How a wrong value looks in a message. */
export function shown(value: unknown): string {
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value);
  if (typeof value === 'string') return JSON.stringify(value);
  if (typeof value === 'bigint') return `${value}n`;
  if (value === null || value === undefined || typeof value === 'boolean') return String(value);
  if (Array.isArray(value)) return 'a list';
  const name = value.constructor === Object ? 'object' : (value.constructor?.name ?? typeof value);
  return `${/^[AEIOU]/i.test(name) ? 'an' : 'a'} ${name}`;
}

export function requireWhole(what: string, value: unknown, min: number, max: number): asserts value is number {
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
    throw argumentError(`${what} must be a whole number from ${min} to ${max}, not ${shown(value)}.`);
  }
}

/** What seeded randomness begins with. */
export function requireSeed(seed: unknown): asserts seed is number {
  requireWhole('The seed', seed, 0, SEED_MAX);
}

export function requireBoolean(what: string, value: unknown): asserts value is boolean {
  if (typeof value !== 'boolean') throw argumentError(`${what} must be true or false, not ${shown(value)}.`);
}

export function requireObject(what: string, value: unknown): asserts value is object {
  if (typeof value !== 'object' || value === null)
    throw argumentError(`${what} must be an object, not ${shown(value)}.`);
}

/** Options by name: an unknown one is a misspelt one, and would be as if it were not there. */
export function requireOptions(what: string, options: unknown, known: readonly string[]): asserts options is object {
  requireObject(what, options);
  const unknown = Object.keys(options).find((name) => !known.includes(name));
  if (unknown !== undefined) throw argumentError(`${what} have no "${unknown}" (${suggestion(unknown, known)}).`);
}

export function requireList(what: string, value: unknown): void {
  if (!Array.isArray(value)) throw argumentError(`${what} must be a list, not ${shown(value)}.`);
}

export function requireFunction(what: string, value: unknown): void {
  if (typeof value !== 'function') throw argumentError(`${what} must be a function, not ${shown(value)}.`);
}

export function requireOneOf(what: string, value: unknown, known: readonly string[]): void {
  if (known.includes(value as string)) return;
  throw argumentError(`${what} must be one of ${known.join(', ')}, not ${shown(value)}.`);
}
