/** What an inline machine does in any host: the same text each time, whatever the host has (bare-host.test.ts). */
import { boot, explore, generateProgram, printProgram, runWorkload, workloads } from 'pfnless';

const MIB = 2 ** 20;
const WORKLOADS = workloads.filter(({ name }) => ['vector-add', 'histogram', 'ping-pong'].includes(name));
const say = (...words) => console.log(words.map((word) => JSON.stringify(word)).join(' '));

for (const addressing of ['legacy', 'offset']) {
  const machine = await boot({ executor: 'inline', devices: 2, addressing });
  const process = await machine.process();
  const range = await process.mmap({ length: 4 * MIB });
  await process.madvise(range, 'HUGEPAGE');
  await process.write(
    range.start,
    Uint8Array.from({ length: 3 * MIB }, (_, at) => at),
  );
  const mirrors = [await process.mirror(0), await process.mirror(1)];
  for (const mirror of mirrors) say(await mirror.migrate(range, 'device'));
  const child = await process.fork();
  await child.write(range.start + 5, Uint8Array.of(1, 2, 3));
  say([...(await process.read(range.start, 8))], [...(await child.read(range.start, 8))]);
  for (const workload of WORKLOADS) {
    const { ok, verified } = await runWorkload(machine, workload, {
      devices: 2,
      seed: 3,
      now: () => performance.now(),
    });
    say(workload.name, ok, verified);
  }
  await child.exit();
  await process.exit();
  // Freed frames are poisoned and looked at, zeroed ones as well.
  say(await machine.check(), await machine.meminfo());
  await machine.dispose();
  for (let seed = 0; seed < 5; seed++) {
    const program = generateProgram(seed);
    const { executions, failure } = explore(program, { strategy: 'random', executions: 20, seed, addressing });
    say(printProgram(program), executions, failure);
  }
}
