/** Text for a terminal: tables (a header, a rule, aligned columns, nothing else), lists, paragraphs, numbers. All fits 80 columns, lists the terminal. */
import Table from 'cli-table3';

export interface Column<Row> {
  /** May have several lines. */
  readonly title: string;
  readonly align?: 'left' | 'right';
  readonly cell: (row: Row) => string;
}

const LINE_MAX = 80;
/** Letters that a summary has in a line, however long its name is. */
const SUMMARY_MIN = 30;

/** Two spaces between columns, one rule below the header. */
const FRAME = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
};

/** `rows` as a table, each line ended by a newline. Colour is up to the cells. */
export function renderTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const table = new Table({
    chars: FRAME,
    style: { 'padding-left': 0, 'padding-right': 0, head: [], border: [] },
    colAligns: columns.map(({ align }) => align ?? 'left'),
  });
  const titles = columns.map(({ title }) => title.split('\n'));
  const headerLines = Math.max(...titles.map(({ length }) => length));
  table.push(
    // The last line of each title stands on the rule.
    titles.map((lines) => '\n'.repeat(headerLines - lines.length) + lines.join('\n')),
    ...rows.map((row) => columns.map(({ cell }) => cell(row))),
  );
  const lines = table
    .toString()
    .split('\n')
    .map((line) => line.trimEnd());
  const width = Math.max(...lines.map((line) => plain(line).length));
  lines.splice(headerLines, 0, '─'.repeat(width));
  return `${lines.join('\n')}\n`;
}

export interface Item {
  readonly name: string;
  readonly summary: string;
}

/** Names and what they stand for, below `title`, in lines of `width` letters. */
export function renderItems(title: string, items: readonly Item[], width: number): string {
  const names = Math.max(title.length, ...items.map(({ name }) => name.length));
  const room = Math.max(SUMMARY_MIN, width - names - FRAME.middle.length);
  const columns: readonly Column<Item>[] = [
    { title, cell: ({ name }) => name },
    { title: '', cell: ({ summary }) => linesOf(summary, room).join('\n') },
  ];
  return renderTable(columns, items);
}

/** A paragraph in lines that fit a terminal, each behind `indent` and ended by a newline. */
export const wrapText = (text: string, indent = ''): string =>
  linesOf(text, LINE_MAX - indent.length)
    .map((line) => `${indent}${line}\n`)
    .join('');

/** Facts with ` · ` between them, in lines that end at one: what stands between two commas or two dots stays together. */
export const wrapFacts = (text: string): string =>
  wrapText(text.replace(/(?<![·,]) /g, NO_BREAK)).replaceAll(NO_BREAK, ' ');

const NO_BREAK = '\u00a0';

/** Lines of at most `width` letters, unless a word is longer. */
function linesOf(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const line = lines.at(-1);
    if (line === undefined || line.length + 1 + word.length > width) lines.push(word);
    else lines[lines.length - 1] = `${line} ${word}`;
  }
  return lines;
}

const ESCAPE = String.fromCharCode(27);
const COLOUR_CODE = new RegExp(`${ESCAPE}\\[[0-9;]*m`, 'g');
const plain = (text: string): string => text.replace(COLOUR_CODE, '');

/** Milliseconds as a person reads them: `340 ms`, `2.1 s`. */
export function formatMs(ms: number): string {
  return ms < 1000 ? `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** A measured value in three significant digits, with k, M or G: `53.2 M`. */
export function formatValue(value: number): string {
  const [divisor, letter] =
    value >= 1e9 ? [1e9, ' G'] : value >= 1e6 ? [1e6, ' M'] : value >= 1e4 ? [1e3, ' k'] : [1, ''];
  return `${Number((value / divisor).toPrecision(3))}${letter}`;
}

/** Text colours for one output; `colours(false)` leaves text as it is. */
export function colours(enabled: boolean): Record<'good' | 'bad' | 'dim', (text: string) => string> {
  const wrap =
    (code: number) =>
    (text: string): string =>
      enabled ? `${ESCAPE}[${code}m${text}${ESCAPE}[0m` : text;
  return { good: wrap(32), bad: wrap(31), dim: wrap(2) };
}
