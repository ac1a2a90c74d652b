/**
 * The last-writer table: what each word of a range holds, as far as anybody can know. While somebody writes it, or after an
 * operation that may have come to nothing, a word has several possible contents, until a load at a quiet moment says which it is.
 */

/** What a load finds: a 32-bit word, or that it is lost. */
export type Content = number;
/** The device that held it has died: SIGBUS. */
export const LOST: Content = 2 ** 41;

export const contentText = (content: Content): string => (content === LOST ? 'SIGBUS' : String(content));

export class LastWriters {
  readonly words: number;
  /** What each word holds, where that is certain. */
  readonly #certain: Float64Array;
  /** All that it may hold, where it is not. */
  readonly #possible = new Map<number, Set<Content>>();

  constructor(words: number) {
    this.words = words;
    this.#certain = new Float64Array(words);
  }

  /** What a child of fork gets. */
  copy(): LastWriters {
    const copy = new LastWriters(this.words);
    copy.#certain.set(this.#certain);
    for (const [word, contents] of this.#possible) copy.#possible.set(word, new Set(contents));
    return copy;
  }

  /** The word holds this and nothing else. */
  set(word: number, content: Content): void {
    this.#possible.delete(word);
    this.#certain[word] = content;
  }

  /** The word may come to hold this, too. */
  may(word: number, content: Content): void {
    const possible = this.#possible.get(word);
    if (possible !== undefined) possible.add(content);
    else if (this.#certain[word] !== content) this.#possible.set(word, new Set([this.#certain[word]!, content]));
  }

  allows(word: number, content: Content): boolean {
    const possible = this.#possible.get(word);
    return possible === undefined ? this.#certain[word] === content : possible.has(content);
  }

  /** What the word holds, `null` where that is not certain. */
  content(word: number): Content | null {
    return this.#possible.has(word) ? null : this.#certain[word]!;
  }

  /** The words that are not certain. */
  uncertain(): readonly number[] {
    return [...this.#possible.keys()];
  }

  describe(word: number): string {
    const possible = this.#possible.get(word);
    return [...(possible ?? [this.#certain[word]!])].map(contentText).join(' or ');
  }
}
