/** Fields that several schemas have. Messages are predicates ("must be ..."): the place is put before them, and the value behind. */
import * as z from 'zod';

export const whole = (min: number, max: number) => {
  const error = `must be a whole number from ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
};
