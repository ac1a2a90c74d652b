/**
 * The door of a device's thread: a loop around the engine, and the control plane exposed by comlink.
 *
 * While the engine has work it is stepped; then the loop spins for a moment (a driver that serves a fault answers in
 * microseconds), then it sleeps on the doorbell word. The event loop is visited only when a control call waits or its
 * answer is on the way; nothing of the data plane needs it. The host sleeps outside of its event loop, too, so its doorbell
 * is rung when an answer has gone out.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { expose } from 'comlink';
import type { DeviceControl } from '../src/abi/control.js';
import { HOST_DOORBELL, QUEUE_HEADER } from '../src/abi/queue.js';
import { EngineControl } from '../src/device/control.js';
import { type Doorbell, ringDoorbell, waitForRing } from '../src/sync/doorbell.js';
import { add32, load32, store32 } from '../src/sync/word.js';
import { nodeEndpoint } from '../src/transport/endpoint.js';
import type { DeviceDoor } from '../src/transport/worker-link.js';

/** No wake-up is lost; this bounds what it would cost if one were. */
const SLEEP_MS = 100;
/** The same while the event loop is needed: a module is being loaded, or a call is announced but not there yet. */
const SLEEP_TURN_MS = 1;

const { word: WORD } = QUEUE_HEADER;
const door = workerData as DeviceDoor;
const queue = new Int32Array(door.queue);
const own: Doorbell = { words: queue, at: WORD.doorbell, sleepingAt: WORD.sleeping };
const host: Doorbell = {
  words: new Int32Array(door.hostDoorbell),
  at: HOST_DOORBELL.word.doorbell,
  sleepingAt: HOST_DOORBELL.word.sleeping,
};
const device = new EngineControl();

/** Control calls that were answered: an answer goes out in the microtasks of the turn in which it counts. */
let answers = 0;
const answered = (): void => {
  answers++;
};

/** Count a control call when it comes out of the event loop, and its answer. */
function counted<Args extends unknown[], Value>(call: (...args: Args) => Promise<Value>) {
  return (...args: Args): Promise<Value> => {
    store32(queue, WORD.controlHandled, load32(queue, WORD.controlHandled) + 1);
    const answer = call(...args);
    answer.then(answered, answered);
    return answer;
  };
}

const control: DeviceControl = {
  boot: counted((config, memories) => device.boot(config, memories)),
  bindContext: counted((context, root) => device.bindContext(context, root)),
  unbindContext: counted((context) => device.unbindContext(context)),
  launch: counted((request) => device.launch(request)),
  stats: counted(() => device.stats()),
  reset: counted(() => device.reset()),
};

/** A full turn: messages come in, answers go out. */
const eventLoopTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function run(): Promise<void> {
  let reported = 0;
  while (load32(queue, WORD.stop) === 0) {
    const rung = load32(queue, WORD.doorbell);
    const called = load32(queue, WORD.controlRequested) !== load32(queue, WORD.controlHandled);
    if (called || device.loading || device.reports !== reported) {
      reported = device.reports;
      const before = answers;
      await eventLoopTurn();
      if (answers !== before) {
        add32(host.words, HOST_DOORBELL.word.messages, 1);
        ringDoorbell(host);
      }
    }
    if (!device.step()) waitForRing(own, rung, called || device.loading ? SLEEP_TURN_MS : SLEEP_MS, door.ownCore);
  }
  await eventLoopTurn();
}

expose(control, nodeEndpoint(parentPort!));
await run();
parentPort!.close();
