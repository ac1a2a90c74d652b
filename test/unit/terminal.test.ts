/** Text for terminals: numbers of things, lines that fit, sentences, and suggestions. */
import { describe, expect, test } from 'vitest';
import { suggestion } from '#src/base/nearest';
import { plural } from '#src/base/plural';
import { sentence } from '#src/report/error-report';
import { wrapFacts } from '#src/report/terminal';

test.each([
  [0, '0 pages'],
  [1, '1 page'],
  [16384, '16 384 pages'],
])('%i of something', (count, text) => {
  expect(plural(count, 'page')).toBe(text);
});

test('facts stay together where lines end', () => {
  const text = `seed 1 · machine laptop · 2 devices · offset addressing · executor inline · forgets collect-kind, range-step`;
  const lines = [
    'seed 1 · machine laptop · 2 devices · offset addressing · executor inline ·',
    'forgets collect-kind, range-step',
  ];
  expect(wrapFacts(text)).toBe(`${lines.join('\n')}\n`);
});

test.each([
  ['there is none (known are a, b)', 'there is none (known are a, b).'],
  ['there is none (did you mean "a"?)', 'there is none (did you mean "a"?).'],
  ['is there none?', 'is there none?'],
  ['There is none.', 'There is none.'],
])('a sentence ends: %s', (message, whole) => {
  expect(sentence(message)).toBe(whole);
});

describe('did you mean', () => {
  test.each([
    ['lod', 'load'],
    ['vectr-add', 'vector-add'],
    ['sotre', 'store'],
  ])('%s: %s', (word, name) => {
    expect(suggestion(word, ['touch', 'load', 'store', 'vector-add'])).toBe(`did you mean "${name}"?`);
  });

  test('a short word that has little in common with any: all of them', () => {
    expect(suggestion('nosuch', ['touch', 'load'])).toBe('known are touch, load');
  });
});
