/** Sizes as people write them: `2GiB`, `64 MiB`, `0x100000000`, or a plain number of bytes. */

const UNITS: readonly (readonly [name: string, bytes: number])[] = [
  ['TiB', 2 ** 40],
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
];

/** How a size may be written; error messages end in it. */
export const SIZE_FORMS = 'a number of bytes, or text such as "512KiB", "64MiB", "2GiB" or "0x100000000"';

/** Bytes that `value` stands for, or `null` when it is not a size: negative, a fraction of a byte, or not understood. */
export function parseBytes(value: number | string): number | null {
  const bytes = typeof value === 'number' ? value : bytesOfText(value.trim());
  return Number.isSafeInteger(bytes) && bytes >= 0 ? bytes : null;
}

function bytesOfText(text: string): number {
  if (/^0x[0-9a-f]+$/i.test(text)) return Number(text);
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]iB|B)?$/i.exec(text);
  if (!match) return Number.NaN;
  const unit = UNITS.find(([name]) => name.toLowerCase() === match[2]?.toLowerCase());
  return Number(match[1]) * (unit ? unit[1] : 1);
}

/** The shortest exact form with a binary unit, or one decimal where no unit divides: `64 MiB`, `1.5 GiB`, `100 B`. */
export function formatBytes(bytes: number): string {
  const unit = UNITS.find(([, size]) => bytes >= size);
  if (!unit) return `${bytes} B`;
  const amount = bytes / unit[1];
  return `${Number.isInteger(amount) ? amount : amount.toFixed(1)} ${unit[0]}`;
}

/** An address as /proc/iomem prints it: lower-case hex of at least eight digits. */
export const formatAddress = (address: number): string => address.toString(16).padStart(8, '0');
