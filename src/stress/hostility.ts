/**
 * What is done to devices as a whole, where it is enabled: they are reset, pulled out, or die with what is on them; and to memory, which
 * fails.
 */
import { NULL_PAGE, type Page } from '../base/brand.js';
import type { MachineDevice } from '../machine/state.js';
import type { Kernel } from '../mm/kernel.js';
import { pageIsAnon } from '../mm/page.js';
import { type Place, wordsOn, wordsWhere } from './residence.js';
import { Found, type World } from './world.js';

/**
 * Draw what happens during an episode.
 * @param moment draws when
 */
export function strikeDevices(world: World, moment: () => Promise<unknown>): Promise<void>[] {
  const { injector } = world;
  const strikes: Promise<void>[] = [];
  if (injector.fires('device-reset')) strikes.push(onSome(world, moment(), ({ link }) => link.control.reset()));
  if (injector.fires('device-unplug')) strikes.push(onSome(world, moment(), (device) => unplug(world, device)));
  if (injector.fires('device-crash')) strikes.push(onSome(world, moment(), ({ link }) => link.terminate()));
  return strikes;
}

/** Do something to a device that lives, if there is one. */
async function onSome(
  world: World,
  moment: Promise<unknown>,
  strike: (device: MachineDevice) => Promise<void>,
): Promise<void> {
  // Whether that went well is somebody else's business.
  await moment.catch(() => {});
  const { living } = world;
  if (living.length > 0) await world.attempt(strike(world.state.devices[world.pick(living)]!));
}

/** Its pages go home first; a page that somebody holds keeps it in. */
async function unplug({ state }: World, { driver, link, spec }: MachineDevice): Promise<void> {
  if (driver.unplug === undefined) return;
  const errno = await state.executor.run(`unplug ${spec.name}`, driver.unplug());
  if (errno === 0) await link.terminate();
}

const keyOf = ({ subject, region, word }: Place): string => `${subject.process.pid}:${region.addressOf(word)}`;

/**
 * Kill a device at a quiet moment: exactly what was on it is lost.
 * @throws Found when something else is, or some of it is not
 */
export async function killQuietly(world: World): Promise<void> {
  const { living, state, subjects } = world;
  if (living.length === 0) return;
  const victim = state.devices[world.pick(living)]!;
  for (const { regions, mirrors } of subjects) {
    const mirror = mirrors.get(victim.index);
    if (mirror === undefined || regions.length === 0) continue;
    await world.attempt(mirror.migrate(world.pick(regions).range, 'device'));
  }
  await world.machine.settle();
  const before = new Set(
    Array.from(
      wordsOn(state, subjects, (device) => device === victim),
      keyOf,
    ),
  );
  await victim.link.terminate();
  await world.machine.settle();
  const after = new Set(
    Array.from(
      wordsOn(state, subjects, (device) => device === victim),
      keyOf,
    ),
  );
  const differs = [...before].find((key) => !after.has(key)) ?? [...after].find((key) => !before.has(key));
  if (differs === undefined) return;
  const [pid, address] = differs.split(':');
  const message = `${victim.spec.name} has died, and where 0x${Number(address).toString(16)} of process ${pid} is has changed by that`;
  throw new Found({ invariant: 'lost-data', message });
}

/**
 * Let a page of RAM fail at a quiet moment: who has it loses it, and nobody else anything; or nobody, where it can be read again.
 * @throws Found when it is otherwise
 */
export async function failMemoryQuietly(world: World): Promise<void> {
  const { machine, state, subjects } = world;
  const { kernel } = state;
  const inRam = [...wordsWhere(state, subjects, ({ kind, page }) => kind === 'present' && isPrivateRam(kernel, page))];
  if (inRam.length === 0) return;
  const { page } = world.pick(inRam).entry;
  const failed = (): string[] =>
    Array.from(
      wordsWhere(state, subjects, ({ kind }) => kind === 'hwpoison'),
      keyOf,
    );
  const users = Array.from(
    wordsWhere(state, subjects, (entry) => entry.kind === 'present' && entry.page === page),
    keyOf,
  );
  const before = failed();
  // What somebody holds may stay in use, and mapped.
  if (!(await world.attempt(machine.hardOfflinePage(kernel.memmap.pageToPfn(page))))) return;
  const lost = failed().filter((key) => !before.includes(key));
  if (lost.length === 0 || lost.join() === users.join()) return;
  const message = `page ${page} has failed: ${lost.length} words are lost by it, and ${users.length} were in it`;
  throw new Found({ invariant: 'lost-data', message });
}

/** Anonymous: what fails in a page cache is a matter of the file. */
const isPrivateRam = ({ memmap, zeroPage }: Kernel, page: Page): boolean =>
  page !== NULL_PAGE && page !== zeroPage && memmap.ramFrame(page) >= 0 && pageIsAnon(memmap.words, page);
