/**
 * Run a program of your own: a module whose default export is a function of a lane. The device loads it by its URL, in its
 * own thread, and its loads and stores fault like a GPU's.
 */
import { boot } from 'pfnless';

const COUNT = 1000;

const machine = await boot({ preset: 'laptop', devices: 1 });
try {
  const process = await machine.process();
  const numbers = await process.mmap({ length: COUNT * 4 });
  const steps = await process.mmap({ length: COUNT * 4 });
  const input = Uint32Array.from({ length: COUNT }, (_, index) => index + 1);
  await process.writeArray('u32', numbers.start, input);

  const gpu = await process.mirror(0);
  const launch = await gpu.launch(new URL('./programs/collatz.js', import.meta.url), {
    lanes: COUNT,
    args: { numbers: numbers.start, steps: steps.start },
  });
  console.log(`${launch.lanes} lanes, ${launch.operations} loads and stores`);
  console.log(`the device faulted: ${launch.faults > 0}`);

  const result = await process.readArray('u32', steps.start, COUNT);
  const longest = result.indexOf(Math.max(...result));
  console.log(`${input[longest]} takes ${result[longest]} steps, more than any other number up to ${COUNT}`);
} finally {
  await machine.dispose();
}
