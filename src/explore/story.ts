/** An execution as a person reads it: a column for each task and for each device, one line a step. */
import type { TraceEntry } from './execution.js';

const WIDTH_MAX = 38;
/** Lines of one story: a livelock has no end. */
const LINES_MAX = 120;

export function printStory(entries: readonly TraceEntry[]): string {
  const shown = entries.slice(0, LINES_MAX);
  const threads = [...new Set(shown.map(({ thread }) => thread))];
  const widths = threads.map((thread) =>
    Math.min(
      WIDTH_MAX,
      Math.max(thread.length, ...shown.filter((entry) => entry.thread === thread).map(({ text }) => text.length)),
    ),
  );
  const row = (cells: readonly string[]): string =>
    cells
      .map((cell, at) => fitted(cell, widths[at]!))
      .join(' | ')
      .trimEnd();
  const lines = [
    row(threads),
    row(widths.map((width) => '-'.repeat(width))),
    ...shown.map(({ thread, text }) => row(threads.map((each) => (each === thread ? text : '')))),
  ];
  if (entries.length > shown.length) lines.push(`(${entries.length - shown.length} lines more)`);
  return `${lines.join('\n')}\n`;
}

const fitted = (text: string, width: number): string =>
  text.length <= width ? text.padEnd(width) : `${text.slice(0, width - 3)}...`;
