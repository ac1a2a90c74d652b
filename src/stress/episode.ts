/**
 * An episode: actors and calls are drawn, all of them run at the same time, then everything that was found is judged against the
 * last-writer table, and what is not certain is looked at while all is quiet.
 */
import { PAGE_SIZE, pageAlignDown, pageAlignUp } from '../abi/address.js';
import { WORD_OP } from '../abi/word-op.js';
import { formatAddress } from '../base/bytes.js';
import { FaultError } from '../machine/errors.js';
import type { Mirror, Pin, Process, VirtRange } from '../machine/types.js';
import { answersOf, encodeWordOps } from '../machine/word-ops.js';
import { type Actor, type Answer, type Caution, judgeActor, planActor, Unsteady, unknownAnswers } from './actor.js';
import { type CallWorld, type DrawnCall, drawCall } from './calls.js';
import { strikeDevices } from './hostility.js';
import { contentText, LOST } from './last-writer.js';
import { adopt, SUBJECTS_MAX } from './population.js';
import { NO_WRITER, type Region, type Subject } from './region.js';
import { lostWords } from './residence.js';
import { Found, type World } from './world.js';

const WORD_BYTES = 4;
const CPU_OPS_MAX = 192;
/** Loads of a pass that a CPU makes while others are at work, and passes. */
const CPU_LOADS_MAX = 512;
const PASSES_MAX = 16;
/** The kernel's own CPU makes a system call of each. */
const KERNEL_OPS_MAX = 12;
const PROGRAM_LANES_MAX = 12;
const LANE_OPS_MAX = 24;
const CALLS_MAX = 10;
/** One in so many lists of lanes has words that a call takes away: one signal ends all of its launch. */
const CAREFUL_ODDS = 8;
/** One in so many times a CPU goes to another process. */
const SWITCH_ODDS = 3;
/** One in so many episodes has a fork in it, where there is room for another process. */
const FORK_ODDS = 2;
/** Violations of one episode that are told. */
const WRONG_MAX = 5;

/** Actors that share a list, and how it runs. */
interface Cast {
  readonly actors: Actor[];
  /** @param others whether anybody else is at work still */
  run(others: () => boolean): Promise<readonly (readonly Answer[])[]>;
  /** At the quiet moment after it. */
  after?(): Promise<readonly (readonly Answer[])[]>;
}

/** @throws Found */
export async function runEpisode(world: World): Promise<void> {
  const { injector, subjects } = world;
  if (subjects.length === 0) return;
  for (const { regions } of subjects) for (const { writers } of regions) writers.fill(NO_WRITER);
  const unsteady = new Unsteady();
  const pins: Pin[] = [];
  const calls = drawCalls(world, { ...callWorld(world), unsteady, pins });
  const casts = await world.quietly(() => castAll(world, unsteady));
  if (subjects.length < SUBJECTS_MAX && world.random.below(FORK_ODDS) === 0) calls.push(forkCall(world, unsteady));

  injector.armed = true;
  const outcomes = calls.map((call) => world.attempt(call.run()));
  let atWork = casts.length + 1;
  const runs = casts.map((cast) =>
    cast
      .run(() => atWork > 0)
      .finally(() => {
        atWork--;
      }),
  );
  // Some time into the episode, when pages are on their way.
  const strikes = strikeDevices(world, () => world.pick<Promise<unknown>>([...outcomes, ...runs]));
  const [answers, succeeded] = await Promise.all([
    world.all(runs),
    world.all(outcomes).finally(() => {
      atWork--;
    }),
    world.all(strikes),
  ]);
  injector.armed = false;
  await world.machine.settle();
  world.calls += calls.length;

  for (const pin of pins) await pin.release();
  for (const [at, cast] of casts.entries()) if (cast.after) answers[at] = await cast.after();
  judge(world, casts, answers, unsteady);
  for (const [at, call] of calls.entries()) if (call.after) await world.attempt(call.after(succeeded[at]!));
  await resolve(world);
}

/**
 * Fork in the middle of everything: what the child's words hold is what the parent's may hold at any time. Precondition: all is
 * planned, and nothing has begun.
 */
function forkCall(world: World, unsteady: Unsteady): DrawnCall {
  const { process, regions } = world.pick(world.subjects);
  const planned = regions.map((region) => region.inherited());
  let child: Process | undefined;
  return {
    name: 'fork',
    async run() {
      child = await process.fork();
    },
    async after() {
      if (child === undefined) return;
      // Of what was being unmapped nobody knows whether the child has it.
      if (regions.some((region) => unsteady.mayLack(region))) await child.exit();
      else await adopt(world, child, planned);
    },
  };
}

const callWorld = ({ random, freshAddress }: World): Pick<CallWorld, 'random' | 'taken' | 'freshAddress'> => ({
  random,
  freshAddress,
  taken: new Set(),
});

function drawCalls(world: World, drawing: CallWorld): DrawnCall[] {
  return Array.from({ length: world.random.below(CALLS_MAX + 1) }, () =>
    drawCall(world.pick(world.subjects), drawing),
  ).filter((call) => call !== null);
}

async function castAll(world: World, unsteady: Unsteady): Promise<Cast[]> {
  const { random, state, subjects } = world;
  let id = 0;
  const plan = (name: string, subject: Subject, opsMax: number, caution: Caution = 'none'): Actor =>
    planActor(name, id++, subject, {
      ...{ random, unsteady, caution, nextValue: world.nextValue },
      ops: 1 + random.below(opsMax),
    });
  const casts: Cast[] = [];
  for (const { cpu } of state.cpus) {
    const subject = subjectOf(world, cpu);
    const name = `CPU ${cpu}`;
    casts.push(onCpu(cpu, plan(name, subject, CPU_OPS_MAX), plan(name, subject, CPU_LOADS_MAX, 'loads')));
  }
  casts.push(onKernel(world, plan('CPU 0', world.pick(subjects), KERNEL_OPS_MAX)));
  for (const subject of subjects) {
    for (const [device, mirror] of subject.mirrors) {
      if (state.devices[device]!.link.lost !== null || random.below(3) === 0) continue;
      const caution = random.below(CAREFUL_ODDS) === 0 ? 'none' : 'no faults';
      const { name } = state.devices[device]!.spec;
      const lanes = Array.from({ length: 1 + random.below(PROGRAM_LANES_MAX) }, (_, lane) =>
        plan(`${name}, lane ${lane}`, subject, LANE_OPS_MAX, caution),
      );
      const cast = await onDevice(world, mirror, lanes);
      if (cast !== null) casts.push(cast);
    }
  }
  return casts;
}

/** Whom a CPU works for: often the process of the last time, whose translations it still has. */
function subjectOf(world: World, cpu: number): Subject {
  const last = world.lastOn.get(cpu);
  const stays = last !== undefined && world.subjects.includes(last) && world.random.below(SWITCH_ODDS) !== 0;
  const subject = stays ? last : world.pick(world.subjects);
  world.lastOn.set(cpu, subject);
  return subject;
}

/** After its list, a CPU loads as long as anybody else is at work: what it can see changes all the time. */
const onCpu = (cpu: number, actor: Actor, reader: Actor): Cast => ({
  actors: [actor],
  async run(others) {
    const answers: (readonly Answer[])[] = [await actor.subject.process.execute(cpu, actor.ops)];
    for (let pass = 0; pass < PASSES_MAX && reader.ops.length > 0 && others(); pass++) {
      answers.push(await reader.subject.process.execute(cpu, reader.ops));
      this.actors.push(reader);
    }
    return answers;
  },
});

/** The CPU of the kernel's thread: a call for each access. */
const onKernel = (world: World, actor: Actor): Cast => ({
  actors: [actor],
  async run() {
    const answers: Answer[] = [];
    for (const { kind, address, value } of actor.ops) {
      answers.push(await access(world, actor.subject, address, kind === 'store' ? value! : null));
    }
    return [answers];
  },
});

/** Load or store a word from the kernel's thread. */
async function access(
  world: World,
  { process }: Subject,
  address: VirtRange['start'],
  value: number | null,
): Promise<Answer> {
  let found = 0;
  let fault: FaultError | undefined;
  const call =
    value === null
      ? process.readArray('i32', address, 1).then(([word]) => {
          found = word!;
        })
      : process.writeArray('i32', address, Int32Array.of(value));
  const isDone = await world.attempt(
    call.catch((error) => {
      if (error instanceof FaultError) fault = error;
      throw error;
    }),
  );
  if (isDone) return { outcome: 'done', found };
  return { outcome: fault?.errno === 'ENOMEM' ? 'ENOMEM' : (fault?.signal ?? 'unknown'), found: 0 };
}

/** A launch, each of whose lanes does a list that stands in the process's memory; `null` where there is no room for it. */
async function onDevice(world: World, mirror: Mirror, actors: Actor[]): Promise<Cast | null> {
  const { process } = actors[0]!.subject;
  // Each lane does a share of the same size: short lists are filled up with loads of the list itself.
  const opsOfLane = Math.max(...actors.map(({ ops }) => ops.length));
  if (opsOfLane === 0) return null;
  const length = actors.length * opsOfLane * WORD_OP.bytes;
  const at = world.freshAddress(length);
  if (!(await world.attempt(process.mmap({ length, at })))) return null;
  const filler = { kind: 'load', address: at } as const;
  const list = actors.flatMap(({ ops }) => [...ops, ...Array(opsOfLane - ops.length).fill(filler)]);
  const isThere = await world.attempt(process.writeArray('i32', at, encodeWordOps(list)));
  return {
    actors,
    async run() {
      const launch = { lanes: actors.length, args: { ops: at, count: list.length } };
      if (isThere) await world.attempt(mirror.launch('word-ops', launch));
      return [];
    },
    async after() {
      // The list itself may be lost with the device.
      let words: Int32Array | null = null;
      const read = process.readArray('i32', at, length / 4).then((found) => {
        words = found;
      });
      await world.attempt(read);
      await world.attempt(process.munmap({ start: at, length: pageAlignUp(length) }));
      if (words === null || !isThere) return actors.map(({ ops }) => unknownAnswers(ops));
      const answers = answersOf(words);
      return actors.map(({ ops }, lane) => answers.slice(lane * opsOfLane, lane * opsOfLane + ops.length));
    },
  };
}

function judge(
  world: World,
  casts: readonly Cast[],
  answers: readonly (readonly (readonly Answer[])[])[],
  unsteady: Unsteady,
): void {
  const judgements = casts.flatMap(({ actors }, at) =>
    actors.map((actor, of) => judgeActor(actor, answers[at]![of]!, { unsteady, hostile: world.hostile })),
  );
  const wrong = judgements.flatMap((judgement) => judgement.wrong);
  if (wrong.length > 0) throw new Found({ invariant: 'last-writer', message: wrong.slice(0, WRONG_MAX).join('; ') });
  for (const { commit, done } of judgements) {
    commit();
    world.operations += done;
  }
}

/** Look at every word that is not certain, with nobody else at work. What has gone with a device is certain, too. */
async function resolve(world: World): Promise<void> {
  noteLosses(world);
  for (const subject of world.subjects) {
    for (const region of subject.regions) {
      for (const word of region.last.uncertain()) await lookAt(world, subject, region, word);
    }
  }
}

/** Words that the page tables say are on a device that has died, or in memory that has failed, are lost; others are not. */
function noteLosses(world: World): void {
  for (const { region, word } of lostWords(world.state, world.subjects)) {
    if (region.last.content(word) !== LOST) world.lost++;
    region.last.set(word, LOST);
  }
}

/** Load every word, and compare. @throws Found */
export async function sweep(world: World): Promise<void> {
  noteLosses(world);
  for (const subject of world.subjects) {
    for (const region of subject.regions) {
      for (let word = 0; word < region.words; word++) await lookAt(world, subject, region, word);
    }
  }
}

/** A load by the CPU, which brings the page home, or through a device, to which it may go. */
async function look(world: World, subject: Subject, address: VirtRange['start']): Promise<Answer> {
  const mirrors = world.living.flatMap((device) => subject.mirrors.get(device) ?? []);
  let bytes: Uint8Array | undefined;
  if (mirrors.length > 0 && world.random.below(2) === 0) {
    const read = world.pick(mirrors).read(address, WORD_BYTES);
    await world.attempt(read.then((found) => (bytes = found)));
  }
  if (bytes === undefined) return access(world, subject, address, null);
  return { outcome: 'done', found: new DataView(bytes.buffer).getInt32(0, true) };
}

/** A word at a quiet moment: it is what the table says, and nothing but that from now on. */
async function lookAt(world: World, subject: Subject, region: Region, word: number): Promise<void> {
  const address = region.addressOf(word);
  const { outcome, found } = await look(world, subject, address);
  world.operations++;
  // RAM that has run out says nothing about the page.
  if (outcome === 'ENOMEM') return;
  const content = outcome === 'done' ? found : outcome === 'SIGBUS' ? LOST : null;
  if (content !== null && region.last.allows(word, content)) {
    region.last.set(word, content);
    return;
  }
  const what = content === null ? outcome : contentText(content);
  const where = `word ${word} of ${region.kind} memory at 0x${formatAddress(address)} of process ${subject.process.pid}`;
  const message = `${where} is ${what} when all is quiet, and must be ${region.last.describe(word)}`;
  throw new Found({
    invariant: region.last.content(word) === LOST || content === LOST ? 'lost-data' : 'last-writer',
    message,
  });
}

/** Give up pages that are lost, so that there is something to lose again. */
export async function discardLosses(world: World): Promise<void> {
  for (const { process, regions } of world.subjects) {
    for (const region of regions) {
      for (let word = 0; word < region.words; word++) {
        if (region.last.content(word) !== LOST) continue;
        const start = pageAlignDown(region.addressOf(word)) as VirtRange['start'];
        const range = { start, length: PAGE_SIZE };
        await world.attempt(process.munlock(range));
        if (!(await world.attempt(process.madvise(range, 'DONTNEED')))) continue;
        for (const gone of region.wordsIn(range)) region.last.set(gone, 0);
      }
    }
  }
}
