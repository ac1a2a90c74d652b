/**
 * node unpack.mjs DISK FOLDER: takes the traces from the disk that a guest wrote, one file each. A program that did not come to its end
 * leaves NAME.failed, and the exit code is 1; so it is if the guest did not come to its own.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [disk, folder] = process.argv.slice(2);
const bytes = readFileSync(disk);
const NEWLINE = '\n'.charCodeAt(0);

/** What is on the disk: "=NAME STATUS LENGTH", the text, and so on; "=END" after the last. */
function* records() {
  for (let at = 0; bytes[at] === '='.charCodeAt(0); ) {
    const text = bytes.indexOf(NEWLINE, at) + 1;
    const [name, status, length] = bytes.toString('utf8', at + 1, text - 1).split(' ');
    at = text + Number(length ?? 0);
    yield { name, status, text: bytes.subarray(text, at) };
  }
}

let traces = 0;
let failed = 0;
let ended = false;
for (const { name, status, text } of records()) {
  if (name === 'END') {
    ended = true;
    break;
  }
  const good = status === '0';
  writeFileSync(join(folder, good ? `${name}.jsonl` : `${name}.failed`), text);
  if (good) traces++;
  else failed++;
}
console.log(`${traces} traces, ${failed} failed${ended ? '' : '; the guest stopped before the end'}`);
process.exitCode = ended && failed === 0 ? 0 : 1;
