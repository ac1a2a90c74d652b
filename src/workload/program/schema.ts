/**
 * The fields of a program one by one, whoever wrote it: which there are, and what each may be. What must hold between them is
 * in validate.ts. Messages are predicates ("must be ..."); the place is put before them, and the value behind.
 */
import * as z from 'zod';
import { whole } from '../../base/fields.js';
import { shown } from '../../base/require.js';
import { OP_NAMES } from './operations.js';
import {
  ADVICE,
  BACKINGS,
  HUGE_PAGE_MODES,
  INJECTIONS,
  NAME,
  NAME_RULE,
  PROGRAM_LIMITS,
  PROTECTIONS,
  UFFD_FEATURES,
  WORD_MAX,
} from './program.js';

/** Last byte of a page at which a word begins. */
const OFFSET_MAX = 4092;

const oneOf = <const T extends readonly string[]>(known: T) => z.enum(known, { error: `must be ${known.join(', ')}` });
const list = <T extends z.ZodType>(item: T) => z.array(item, { error: 'must be a list' });
const isTrue = () => z.literal(true, { error: 'must be true, or not there' });
const nameError = `must be ${NAME_RULE}`;
const name = () => z.string({ error: nameError }).regex(NAME, { error: nameError });
const object = <T extends z.ZodRawShape>(shape: T) => z.strictObject(shape, { error: 'must be an object' });

const page = whole(0, PROGRAM_LIMITS.pages - 1);
const device = whole(0, PROGRAM_LIMITS.devices - 1);
const offsetError = `must be a multiple of 4 from 0 to ${OFFSET_MAX}`;

const callSchema = object({
  op: oneOf(OP_NAMES),
  page: page.optional(),
  offset: z
    .int({ error: offsetError })
    .min(0, offsetError)
    .max(OFFSET_MAX, offsetError)
    .multipleOf(4, offsetError)
    .optional(),
  last: page.optional(),
  value: whole(0, WORD_MAX).optional(),
  device: device.optional(),
  protection: oneOf(PROTECTIONS).optional(),
  backing: oneOf(BACKINGS).optional(),
  advice: oneOf(ADVICE).optional(),
  to: page.optional(),
  dontunmap: isTrue().optional(),
  write: isTrue().optional(),
  feature: oneOf(UFFD_FEATURES).optional(),
  child: name().optional(),
  into: name().optional(),
  failNth: whole(1, PROGRAM_LIMITS.failNth).optional(),
});

const lineError = 'must be one line of text, without spaces around it';
const line = () =>
  z.string({ error: lineError }).refine((text) => text === text.trim() && !/[\n\r]/.test(text), lineError);
const resultError = 'must be a word, or the name of an errno';
const outcome = () =>
  z
    .record(name(), z.union([whole(0, WORD_MAX), z.string().regex(/^[A-Za-z]\w*$/)], { error: resultError }), {
      error: 'must be results and their values',
    })
    .refine((values) => Object.keys(values).length > 0, 'must have a result');

const programSchema = object({
  question: list(line()),
  devices: whole(0, PROGRAM_LIMITS.devices),
  pages: whole(1, PROGRAM_LIMITS.pages),
  deviceMemory: whole(1, PROGRAM_LIMITS.deviceMemory),
  hugePages: oneOf(HUGE_PAGE_MODES),
  coherent: list(device),
  peers: list(device),
  swap: whole(0, PROGRAM_LIMITS.swap),
  inject: list(oneOf(INJECTIONS)),
  failNth: whole(0, PROGRAM_LIMITS.failNth),
  processes: list(list(name()).min(1, { error: 'must have a task' })),
  init: list(callSchema),
  tasks: list(object({ name: name(), calls: list(callSchema) })),
  allowed: list(outcome()),
  forbidden: list(outcome()),
});

/** What is wrong with a field, as the end of a sentence; `null` if nothing is. */
export function fieldProblem(program: unknown): string | null {
  const issue = programSchema.safeParse(program, { reportInput: true }).error?.issues[0];
  if (issue === undefined) return null;
  const at = z.core.toDotPath(issue.path);
  if (issue.code === 'unrecognized_keys') return `${at || 'a program'} has no field "${issue.keys[0]}"`;
  return `${at || 'a program'} ${issue.message}, not ${shown(issue.input)}`;
}
