/**
 * The parser of the text form. One call or property a line, or several with `;` between them; `#` begins a comment.
 *
 *     # Is a store lost while its page moves to the device?
 *     devices 1
 *     pages 2
 *     init: store 0 1
 *     A: todevice 0-1 on 0
 *     B: store 0 7 fail_nth 1
 *     B: load 0 -> r
 *     allowed r=7
 */
import { PfnlessError } from '../../base/errors.js';
import { suggestion } from '../../base/nearest.js';
import { argumentError, shown } from '../../base/require.js';
import { type ArgumentKind, argumentsOf, isOpName, OP_NAMES } from './operations.js';
import {
  ADVICE,
  BACKINGS,
  type Call,
  EMPTY_PROGRAM,
  HUGE_PAGE_MODES,
  INIT,
  INJECTIONS,
  type Injection,
  NAME,
  NAME_RULE,
  type Outcome,
  PROGRAM_LIMITS,
  PROTECTIONS,
  type Program,
  UFFD_FEATURES,
  WORD_MAX,
} from './program.js';
import { ProgramSyntaxError } from './syntax-error.js';
import { type Part, type Place, requireProgram } from './validate.js';

/** Letters of a program, comments and all: far more than its calls take. */
const TEXT_MAX = 2 ** 16;
const PROPERTIES = [
  ...['devices', 'pages', 'memory', 'hugepages', 'coherent', 'peers', 'swap'],
  ...['fail_nth', 'inject', 'process', 'allowed', 'forbidden'],
];
/** A word in memory may be written so, too. */
const HEXADECIMAL = /^0[xX][\da-fA-F]{1,8}$/;
/** What a program may say again and again. */
const REPEATED = ['inject', 'process', 'allowed', 'forbidden'];

interface Token {
  readonly text: string;
  readonly column: number;
}

/** The words of one line, taken from the left. */
class Line {
  readonly #tokens: readonly Token[];
  readonly #source: string;
  readonly #line: number;
  readonly #end: number;
  #at = 0;

  constructor(source: string, line: number, text: string, firstColumn: number) {
    this.#source = source;
    this.#line = line;
    this.#tokens = Array.from(text.matchAll(/[^\s:]+:?|:/g), (match) => ({
      text: match[0],
      column: firstColumn + match.index,
    }));
    this.#end = firstColumn + text.trimEnd().length;
  }

  get next(): string | undefined {
    return this.#tokens[this.#at]?.text;
  }

  /** Where the next word stands, or the end of the line. */
  get place(): Place {
    return { line: this.#line, column: this.#tokens[this.#at]?.column ?? this.#end };
  }

  /** The words that are left. */
  get rest(): string {
    return this.#tokens
      .slice(this.#at)
      .map(({ text }) => text)
      .join(' ');
  }

  /** The next word. @throws ProgramSyntaxError at the end of the line */
  take(what: string): Token {
    const token = this.#tokens[this.#at];
    if (token === undefined) this.fail(this.#end, `${what} is missing`);
    this.#at++;
    return token;
  }

  /** The next word, if it is this one. */
  accept(text: string): boolean {
    if (this.next !== text) return false;
    this.#at++;
    return true;
  }

  end(): void {
    const token = this.#tokens[this.#at];
    if (token !== undefined) this.fail(token.column, `there is no room for "${token.text}"`);
  }

  fail(column: number, message: string): never {
    throw new ProgramSyntaxError(this.#source, this.#line, column, message);
  }

  number(what: string, min: number, max: number): number {
    const token = this.take(what);
    return this.toNumber(token, token.text, what, min, max);
  }

  /** The next word, a number that may be written in hexadecimal: what a word in memory holds. */
  word(): number {
    const token = this.take('a word');
    const decimal = HEXADECIMAL.test(token.text) ? `${Number(token.text)}` : token.text;
    return this.toNumber(token, decimal, 'a word', 0, WORD_MAX);
  }

  toNumber({ column }: Token, text: string, what: string, min: number, max: number): number {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (!(value >= min && value <= max)) {
      this.fail(column, `${what} must be a whole number from ${min} to ${max}, not "${text}"`);
    }
    return value;
  }

  oneOf<T extends string>(what: string, known: readonly T[]): T {
    const { text, column } = this.take(what);
    const found = known.find((each) => each === text);
    if (found === undefined) this.fail(column, `${what} must be ${known.join(', ')}, not "${text}"`);
    return found;
  }

  name(what: string): string {
    const { text, column } = this.take(what);
    if (!NAME.test(text)) this.fail(column, `"${text}" is no name of ${what}: use ${NAME_RULE}`);
    return text;
  }
}

/**
 * @param source where the text comes from, for messages
 * @throws ProgramSyntaxError with line and column; PfnlessError ERR_PFNLESS_SYNTAX where it is no one place that is wrong
 */
export function parseProgram(text: string, source = 'program'): Program {
  if (typeof text !== 'string') throw argumentError(`The text of a program must be a string, not ${shown(text)}.`);
  if (text.length > TEXT_MAX) {
    const most = `a program has at most ${PROGRAM_LIMITS.calls} calls`;
    throw new PfnlessError('ERR_PFNLESS_SYNTAX', `${source}: ${text.length} characters are too many: ${most}.`);
  }
  const draft = new Draft();
  for (const [index, line] of text.split('\n').entries()) {
    const comment = line.indexOf('#');
    const code = comment < 0 ? line : line.slice(0, comment);
    if (code.trim() === '') {
      if (comment >= 0) draft.comment(line.slice(comment + 1).trim());
      continue;
    }
    let column = 1;
    for (const part of code.split(';')) {
      if (part.trim() !== '') draft.line(new Line(source, index + 1, part, column));
      column += part.length + 1;
    }
  }
  return requireProgram(draft.program, source, draft.places);
}

class Draft {
  #program: Program = EMPTY_PROGRAM;
  #begun = false;
  /** Properties that are given already. */
  readonly #given = new Set<string>();
  /** Where each part begins that may turn out not to fit to the others. */
  readonly places = new Map<Part, Place>();

  get program(): Program {
    return this.#program;
  }

  /** Comments count at the top only. */
  comment(text: string): void {
    if (!this.#begun) this.#program = { ...this.#program, question: [...this.#program.question, text] };
  }

  line(line: Line): void {
    this.#begun = true;
    const { place } = line;
    const { text, column } = line.take('a call or a property');
    const isTask = text.endsWith(':') || line.accept(':');
    const name = { text: text.replace(/:$/, ''), column };
    this.#program = {
      ...this.#program,
      ...(isTask ? this.#call(line, name, place) : this.#property(line, name, place)),
    };
    line.end();
  }

  #property(line: Line, { text, column }: Token, place: Place): Partial<Program> {
    const { devices, pages, deviceMemory, failNth, swap } = PROGRAM_LIMITS;
    if (this.#given.has(text)) line.fail(column, `${text} is given already`);
    if (!REPEATED.includes(text)) this.#given.add(text);
    this.places.set(`property ${text}`, place);
    /** What is a part of its own. */
    const placed = <T extends Part>(part: T): T => {
      this.places.set(part, place);
      return part;
    };
    switch (text) {
      case 'devices':
        return { devices: line.number('the number of devices', 0, devices) };
      case 'pages':
        return { pages: line.number('the number of pages', 1, pages) };
      case 'memory':
        return { deviceMemory: line.number('pages of device memory', 1, deviceMemory) };
      case 'hugepages':
        return { hugePages: line.oneOf('hugepages', HUGE_PAGE_MODES) };
      case 'coherent':
        return { coherent: many(line, () => device(line)) };
      case 'peers':
        return { peers: many(line, () => device(line)) };
      case 'swap':
        return { swap: line.number('pages of swap', 1, swap) };
      case 'fail_nth':
        return { failNth: line.number('fail_nth', 1, failNth) };
      case 'inject':
        return { inject: [...this.#program.inject, ...many(line, () => injection(line))] };
      case 'process':
        return { processes: [...this.#program.processes, placed(many(line, () => line.name('a task')))] };
      case 'allowed':
        return { allowed: [...this.#program.allowed, placed(outcome(line))] };
      case 'forbidden':
        return { forbidden: [...this.#program.forbidden, placed(outcome(line))] };
      default:
        line.fail(column, `there is no property "${text}" (${meant(text, line)})`);
    }
  }

  #call(line: Line, { text: name, column }: Token, place: Place): Partial<Program> {
    if (!NAME.test(name)) line.fail(column, `"${name}" is no name of a task: use ${NAME_RULE}`);
    const { place: callPlace } = line;
    const calls = line.next === undefined ? [] : [parseCall(line)];
    for (const call of calls) this.places.set(call, callPlace);
    const { init, tasks } = this.#program;
    if (name === INIT) return { init: [...init, ...calls] };
    const known = tasks.some((task) => task.name === name);
    if (!known) this.places.set(`task ${name}`, place);
    const grown = tasks.map((task) => (task.name === name ? { name, calls: [...task.calls, ...calls] } : task));
    return { tasks: known ? grown : [...tasks, { name, calls }] };
  }
}

/** What is no property was meant to be a call, or another property. */
function meant(text: string, line: Line): string {
  if (isOpName(text)) return `put a task before it, as in "A: ${text}"`;
  const isTask = NAME.test(text) && line.next !== undefined && isOpName(line.next);
  return isTask ? `write "${text}: ${line.rest}"` : suggestion(text, PROPERTIES);
}

function many<T>(line: Line, take: () => T): T[] {
  const found = [take()];
  while (line.next !== undefined) found.push(take());
  return found;
}

const injection = (line: Line): Injection => line.oneOf('inject', INJECTIONS);

function outcome(line: Line): Outcome {
  const values = new Map<string, number | string>();
  many(line, () => {
    const { text, column } = line.take('a result, as in r=7');
    const [, name = '', value = ''] = /^(\w+)=(\w+)$/.exec(text) ?? [];
    if (!NAME.test(name)) line.fail(column, `"${text}" is no result: write name=value, as in r=7 or e=EFAULT`);
    if (values.has(name)) line.fail(column, `${name} has a value already`);
    values.set(name, /^\d+$/.test(value) || HEXADECIMAL.test(value) ? Number(value) : value);
  });
  return Object.fromEntries(values);
}

function parseCall(line: Line): Call {
  const { text: op, column } = line.take('an operation');
  if (!isOpName(op)) line.fail(column, `there is no operation "${op}" (${suggestion(op, OP_NAMES)})`);
  const parts = argumentsOf(op).map((kind) => argument(line, kind));
  const into = line.accept('->') ? { into: line.name('a result') } : {};
  const failNth = line.accept('fail_nth') ? { failNth: line.number('fail_nth', 1, PROGRAM_LIMITS.failNth) } : {};
  return Object.assign({ op }, ...parts, into, failNth);
}

function argument(line: Line, kind: ArgumentKind): Partial<Call> {
  switch (kind) {
    case 'where':
      return where(line);
    case 'range':
      return range(line);
    case 'value':
      return { value: line.word() };
    case 'on':
      if (!line.accept('on')) line.fail(line.take('"on", and the device').column, 'here comes "on", and the device');
      return { device: device(line) };
    case 'device':
      return { device: device(line) };
    case 'to':
      if (!line.accept('to')) line.fail(line.take('"to", and a page').column, 'here comes "to", and a page');
      return { to: page(line) };
    case 'protection':
      return { protection: line.oneOf('the protection', PROTECTIONS) };
    case 'protection?':
      return PROTECTIONS.some((each) => each === line.next) ? argument(line, 'protection') : {};
    case 'backing?':
      return BACKINGS.some((each) => each === line.next) ? { backing: line.oneOf('what is mapped', BACKINGS) } : {};
    case 'advice':
      return { advice: line.oneOf('the advice', ADVICE) };
    case 'dontunmap?':
      return line.accept('dontunmap') ? { dontunmap: true } : {};
    case 'write?':
      return line.accept('write') ? { write: true } : {};
    case 'feature?':
      return UFFD_FEATURES.some((each) => each === line.next)
        ? { feature: line.oneOf('the feature', UFFD_FEATURES) }
        : {};
    case 'child':
      return { child: line.name('a task') };
  }
}

const device = (line: Line): number => line.number('the device', 0, PROGRAM_LIMITS.devices - 1);
const page = (line: Line): number => line.number('a page', 0, PROGRAM_LIMITS.pages - 1);

function where(line: Line): Partial<Call> {
  const token = line.take('a page, as in 0 or 0+8');
  const [first = '', byte, ...rest] = token.text.split('+');
  if (rest.length > 0) line.fail(token.column, `"${token.text}" is no place: write a page, or page+byte, as in 0+8`);
  const at = { page: line.toNumber(token, first, 'a page', 0, PROGRAM_LIMITS.pages - 1) };
  if (byte === undefined) return at;
  const offset = line.toNumber(token, byte, 'the byte in the page', 0, 4092);
  if (offset % 4 !== 0) line.fail(token.column, `the byte in the page must be a multiple of 4, not ${offset}`);
  return offset === 0 ? at : { ...at, offset };
}

function range(line: Line): Partial<Call> {
  const token = line.take('pages, as in 0 or 0-3');
  const [from = '', until = from, ...rest] = token.text.split('-');
  if (rest.length > 0) line.fail(token.column, `"${token.text}" is no range: write a page, or first-last, as in 0-3`);
  const first = line.toNumber(token, from, 'a page', 0, PROGRAM_LIMITS.pages - 1);
  const last = line.toNumber(token, until, 'the last page', first, PROGRAM_LIMITS.pages - 1);
  return { page: first, last };
}
