/**
 * The partner of the benchmarks' spin round trip (src/bench/bases.ts): when it is called it spins on the first word and answers
 * each change in another cache line, until the word is -1.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { load32, store32 } from '../src/sync/word.js';

const words = workerData as Int32Array;
const port = parentPort!;

/** `word`: what stood in the first word when the call was sent. */
port.on('message', (word: number) => {
  store32(words, 0, word);
  port.postMessage('ready');
  for (let last = word; last !== -1; ) {
    const next = load32(words, 0);
    if (next === last) continue;
    last = next;
    store32(words, 32, next);
  }
});
port.postMessage('up');
