/** Loads and stores as users write them, and as records in memory (abi/word-op.ts). */
import {
  WORD_ADD,
  WORD_DONE,
  WORD_LOAD,
  WORD_NOMEM,
  WORD_OP,
  WORD_SIGBUS,
  WORD_SIGSEGV,
  WORD_STORE,
} from '../abi/word-op.js';
import { assert } from '../base/errors.js';
import type { WordOperation, WordResult } from './types.js';

const { word: OP } = WORD_OP;
const OP_WORDS = WORD_OP.bytes / 4;

const KINDS = { load: WORD_LOAD, store: WORD_STORE, add: WORD_ADD } as const;
const OUTCOMES = new Map<number, WordResult['outcome']>([
  [WORD_DONE, 'done'],
  [WORD_SIGSEGV, 'SIGSEGV'],
  [WORD_SIGBUS, 'SIGBUS'],
  [WORD_NOMEM, 'ENOMEM'],
]);

export function encodeWordOps(operations: readonly WordOperation[]): Int32Array {
  const words = new Int32Array(operations.length * OP_WORDS);
  const floats = new Float64Array(words.buffer);
  for (const [i, { kind, address, value = 0 }] of operations.entries()) {
    const at = i * OP_WORDS;
    floats[at / 2 + OP.address] = address;
    words[at + OP.kind] = KINDS[kind];
    words[at + OP.value] = value;
  }
  return words;
}

/** What a list says of each operation, whether it has come to its end or not. */
export function answersOf(
  words: Int32Array,
): { readonly outcome: WordResult['outcome'] | 'unknown'; readonly found: number }[] {
  return Array.from({ length: words.length / OP_WORDS }, (_, i) => ({
    outcome: OUTCOMES.get(words[i * OP_WORDS + OP.outcome]!) ?? 'unknown',
    found: words[i * OP_WORDS + OP.found]!,
  }));
}

/** What a list that has come to its end says of each operation. */
export function decodeWordOps(words: Int32Array): WordResult[] {
  return answersOf(words).map(({ outcome, found }, i) => {
    assert(outcome !== 'unknown', () => `operation ${i} was not answered`);
    return { outcome, found };
  });
}
