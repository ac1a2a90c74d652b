/**
 * The machine `pci-window` has a PCI window on all of the physical address space above its RAM. Legacy addressing needs a
 * range there for each device; offset addressing does not.
 */
import { BootError, boot, runWorkload, workloads } from 'pfnless';

const histogram = workloads.find(({ name }) => name === 'histogram');

for (const addressing of ['legacy', 'offset']) {
  try {
    const machine = await boot({ preset: 'pci-window', addressing });
    try {
      const options = { devices: machine.deviceCount, seed: 1, now: () => performance.now() };
      const { ok, verified } = await runWorkload(machine, histogram, options);
      console.log(`${addressing}: boots; histogram ok ${ok}, verified ${verified}`);
    } finally {
      await machine.dispose();
    }
  } catch (error) {
    if (!(error instanceof BootError)) throw error;
    const { device, bytes, errno } = error.failed;
    console.log(`${addressing}: ${error.code}: ${device} asked for ${bytes} bytes and got ${errno}`);
  }
}
