/** Numbers of things, in sentences for people. */

/** A whole number with thousands set apart: `16 384`. */
export const formatCount = (count: number): string => String(count).replace(/\B(?=(\d{3})+$)/g, ' ');

/** How many of something: `1 page`, `16 384 pages`. `word` is one that takes an s. */
export const plural = (count: number, word: string): string => `${formatCount(count)} ${word}${count === 1 ? '' : 's'}`;
