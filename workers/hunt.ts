/** The door of a thread that hunts mutants for src/campaign/mutants.ts. */
import { type HuntResult, type HuntTask, hunt } from '../src/explore/hunt.js';

export default (task: HuntTask): HuntResult => hunt(task);
