/** `--inject`: which of the hostile events that a command knows shall happen. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { suggestion } from '../base/nearest.js';

/** Add `--inject`, whose value is "all", "none", or some of `known` with commas between. */
export function addInjectOption<Name extends string>(
  command: Command,
  description: string,
  known: readonly Name[],
): Command {
  const parse = (text: string): readonly Name[] => {
    if (text === 'all') return known;
    return text === 'none' ? [] : [...new Set(text.split(','))].map((word) => named(word, known));
  };
  const about = `${description}: all, none, or some of ${known.join(', ')}`;
  return command.addOption(new Option('--inject <ids>', about).argParser(parse).default([], 'none'));
}

function named<Name extends string>(word: string, known: readonly Name[]): Name {
  const name = known.find((each) => each === word);
  if (name !== undefined) return name;
  if (word === 'all' || word === 'none') throw new InvalidArgumentError(`"${word}" stands for itself`);
  throw new InvalidArgumentError(`Nothing is injected at "${word}" (${suggestion(word, [...known, 'all', 'none'])})`);
}
