/** What is known of a check site: a place where the kernel, or a driver, must do something that has been forgotten before. */

/** Postings of the series "Remove device private pages from physical address space". */
export const POSTINGS = ['rfc', 'v1', 'v2', 'v3', 'v4', 'v5', 'v6'] as const;
export type Posting = (typeof POSTINGS)[number];

export interface Site {
  /**
   * Where it is known from, in the words of docs/series.md, which says what each means: a place that must know the kind
   * (`series #13`), what a posting mended (`series 4.1 (v4 -> v5)`) or v6 still has (`series 4.2 #14`), a bug of the past
   * (`H5`, `R3`, `K2`), a measurement (`measured 7.3`).
   */
  readonly source: string;
  /** Function and task. */
  readonly title: string;
  /** What is tested or done there. */
  readonly does: string;
  /** What happens where it is forgotten. */
  readonly forgotten: string;
  /** Addressings for which it means anything. */
  readonly addressing: 'offset' | 'both';
  /** Postings of the series in which it was missing. */
  readonly missing?: readonly Posting[];
  /** Why no run of this model can tell whether it was forgotten. */
  readonly unreached?: string;
}

/** Sites by the name that the code knows them by. */
export type Family = Readonly<Record<string, Site>>;

/** Huge device private folios came with v1. */
export const SINCE_V1: readonly Posting[] = POSTINGS.slice(1);
