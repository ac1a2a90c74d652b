/**
 * Boot a machine, give a process some memory, send it to a device, run a program there, read the result back.
 *
 * TypeScript, and Node 24 and later, can say `await using machine = await boot()` and need no `finally`.
 */
import { boot } from 'pfnless';

const COUNT = 4096; // Words: 16 KiB, four pages.

const machine = await boot({ preset: 'laptop', addressing: 'offset' });
try {
  const process = await machine.process();
  const memory = await process.mmap({ length: COUNT * 4 });
  await process.writeArray('u32', memory.start, new Uint32Array(COUNT).fill(40));

  const gpu = await process.mirror('gpu0');
  const moved = await gpu.migrate(memory, 'device');
  console.log(`moved ${moved.migrated} of ${moved.requested} pages to gpu0`);

  await gpu.launch('increment', { lanes: 64, args: { target: memory.start, count: COUNT, stride: 4, by: 2 } });

  // The CPU cannot reach device private memory: its loads fault, and the kernel brings the pages back.
  const words = await process.readArray('u32', memory.start, COUNT);
  console.log(`all words are 42: ${words.every((word) => word === 42)}`);

  const stats = await machine.stats();
  console.log(`pages moved to devices: ${stats.migratedToDevice}, back to RAM: ${stats.migratedToRam}`);
  console.log(`violations: ${(await machine.check()).length}`);
} finally {
  await machine.dispose();
}
