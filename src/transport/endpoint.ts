/** comlink over Node's message ports. Its adapter is CommonJS whose export is the function itself; its types say otherwise. */
import type { Endpoint } from 'comlink';
import nodeAdapter from 'comlink/dist/umd/node-adapter.js';

/** A `Worker` or a `MessagePort` of node:worker_threads as comlink wants it. */
export const nodeEndpoint = nodeAdapter as unknown as (port: object) => Endpoint;
