/**
 * The same work on a device whose memory the CPU cannot reach, and on one whose memory is in the physical address map: who
 * faults, what moves, and where a page is while somebody holds it.
 */
import { boot } from 'pfnless';

const PAGE = 4096;
const PAGES = 64;
const WORDS = (PAGES * PAGE) / 4;
const ROUNDS = 3;

/** The device adds 1 to every word, then the CPU does. */
async function round(process, gpu, start) {
  await gpu.launch('increment', { lanes: 32, args: { target: start, count: WORDS, stride: 4, by: 1 } });
  const values = await process.readArray('u32', start, WORDS);
  await process.writeArray(
    'u32',
    start,
    values.map((value) => value + 1),
  );
}

for (const type of ['private', 'coherent']) {
  const device = { name: 'gpu0', memory: '8MiB', type };
  const machine = await boot({ executor: 'inline', memory: { ram: '64MiB' }, devices: [device] });
  try {
    const where = machine
      .iomem()
      .split('\n')
      .find((line) => line.includes(device.name));
    console.log(`${type}: ${where.trim()}`);
    const process = await machine.process();
    const memory = await process.mmap({ length: PAGES * PAGE });
    await process.writeArray('u32', memory.start, new Uint32Array(WORDS));
    const gpu = await process.mirror(device.name);

    const before = await machine.stats();
    for (let i = 0; i < ROUNDS; i++) await round(process, gpu, memory.start);
    const after = await machine.stats();
    const [word] = await process.readArray('u32', memory.start, 1);
    console.log(`  after ${ROUNDS} rounds of device and CPU every word is ${word}`);
    for (const counter of ['deviceFaults', 'cpuFaults', 'migratedToDevice', 'migratedToRam']) {
      console.log(`  ${counter.padEnd(16)} ${after[counter] - before[counter]}`);
    }

    await gpu.migrate(memory, 'device');
    for (const kind of ['get', 'longterm']) {
      const pin = await process.pin({ start: memory.start, length: PAGE }, { kind });
      const { usedPages } = (await machine.stats()).devices[0];
      console.log(`  a page that is held (${kind}) is ${usedPages === PAGES ? 'on the device' : 'in RAM'}`);
      await pin.release();
    }
  } finally {
    await machine.dispose();
  }
}
