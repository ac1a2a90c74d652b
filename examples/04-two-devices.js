/**
 * Two devices share a process. A page of device private memory is in one place at a time: each device's snapshot says what it
 * can reach, without moving anything.
 */
import { boot, DMIRROR_PROT } from 'pfnless';

const PAGE = 4096;

/** The code of a page in words, as in Linux's test_hmm. */
function describe(code) {
  const place = code & 0x70;
  const where =
    place === DMIRROR_PROT.DEV_PRIVATE_LOCAL
      ? 'in my memory'
      : place === DMIRROR_PROT.DEV_PRIVATE_REMOTE
        ? "in another device's memory"
        : code & (DMIRROR_PROT.READ | DMIRROR_PROT.WRITE)
          ? 'in RAM'
          : 'out of reach';
  return code & DMIRROR_PROT.WRITE ? `${where}, writable` : where;
}

const machine = await boot({ preset: 'laptop' });
try {
  const process = await machine.process();
  const memory = await process.mmap({ length: PAGE });
  const gpus = [await process.mirror('gpu0'), await process.mirror('gpu1')];

  const show = async (title) => {
    const codes = await Promise.all(gpus.map((gpu) => gpu.snapshot(memory)));
    console.log(title);
    for (const [index, [code]] of codes.entries()) {
      console.log(`  gpu${index} 0x${code.toString(16).padStart(2, '0')} ${describe(code)}`);
    }
  };

  await process.writeArray('u32', memory.start, Uint32Array.of(1));
  await show('after the CPU wrote');
  for (const [index, gpu] of gpus.entries()) {
    await gpu.migrate(memory, 'device');
    await gpu.launch('increment', { lanes: 1, args: { target: memory.start, count: 1, stride: 4, by: 1 } });
    await show(`after gpu${index} pulled the page and added 1`);
  }
  const [value] = await process.readArray('u32', memory.start, 1);
  await show(`after the CPU read ${value}`);
} finally {
  await machine.dispose();
}
