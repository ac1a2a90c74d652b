/**
 * A schedule: the answers of one execution, as numbers and as a short string that a shell takes without quotes.
 *
 * Most answers are 0. The string lists the others: how many zeroes come before each, in base 36, and behind a dot the answer if
 * it is not 1. `4-c.2` is four zeroes, a 1, twelve zeroes, a 2, and zeroes for ever; `tame` has none.
 */
import { PfnlessError } from '../../base/errors.js';

export type Schedule = readonly number[];

const TAME = 'tame';
const DIGITS = 36;
const MOVE = /^([0-9a-z]{1,6})(?:\.([0-9a-z]{1,4}))?$/;
/** Longest schedule that is taken from a string. */
const CHOICES_MAX = 1_000_000;

export function printSchedule(schedule: Schedule): string {
  const moves: string[] = [];
  let zeroes = 0;
  for (const answer of schedule) {
    if (answer === 0) {
      zeroes++;
      continue;
    }
    moves.push(zeroes.toString(DIGITS) + (answer === 1 ? '' : `.${answer.toString(DIGITS)}`));
    zeroes = 0;
  }
  return moves.length === 0 ? TAME : moves.join('-');
}

/** @throws PfnlessError ERR_PFNLESS_SYNTAX */
export function parseSchedule(text: string): Schedule {
  if (text === TAME) return [];
  const schedule: number[] = [];
  for (const move of text.split('-')) {
    const match = MOVE.exec(move);
    const zeroes = Number.parseInt(match?.[1] ?? '', DIGITS);
    if (match === null || schedule.length + zeroes >= CHOICES_MAX) {
      throw new PfnlessError('ERR_PFNLESS_SYNTAX', `"${text}" is no schedule: "${move}" is no move, such as 4 or c.2`);
    }
    for (let zero = 0; zero < zeroes; zero++) schedule.push(0);
    schedule.push(match[2] === undefined ? 1 : Number.parseInt(match[2], DIGITS));
  }
  return schedule;
}

/** Without the zeroes at the end, which mean nothing. */
export function trimmed(schedule: Schedule): Schedule {
  let length = schedule.length;
  while (length > 0 && schedule[length - 1] === 0) length--;
  return schedule.slice(0, length);
}
