/**
 * Values of a trace's lines, each declared once in two forms: a schema, which says what is wrong with a value, and a test,
 * which is what nearly every value needs. Both forms of an object are made from one shape, so what is tested is only that the
 * leaves agree (test/conformance.test.ts does, with altered lines).
 */
import { z } from 'zod';

/** A kind of value. `test` holds exactly where `schema` parses. */
export interface Kind<T, Optional extends boolean = boolean> {
  readonly schema: z.ZodType<T>;
  readonly test: (value: unknown) => boolean;
  readonly isOptional: Optional;
}
type Plain<T> = Kind<T, false>;

/** The fields of an object, which has no others. */
export type Shape = Readonly<Record<string, Kind<unknown>>>;
type ValueOf<K> = K extends Kind<infer T> ? T : never;
type OptionalKeys<S extends Shape> = {
  [K in keyof S]: S[K] extends { readonly isOptional: true } ? K : never;
}[keyof S];
/** The object that a shape describes. */
export type Shaped<S extends Shape> = {
  [K in Exclude<keyof S, OptionalKeys<S>>]: ValueOf<S[K]>;
} & { [K in OptionalKeys<S>]?: ValueOf<S[K]> | undefined };

/** A safe integer of at least `min`, and at most `max`. */
export function int(min: number, max = Number.MAX_SAFE_INTEGER): Plain<number> {
  const schema = max === Number.MAX_SAFE_INTEGER ? z.int().min(min) : z.int().min(min).max(max);
  return {
    schema,
    test: (value) => Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max,
    isOptional: false,
  };
}

export function oneOf<const T extends string | number>(...values: readonly T[]): Plain<T> {
  const names = values.filter((value) => typeof value === 'string');
  const schema = names.length === values.length ? z.enum(names as string[]) : z.literal([...values]);
  const allowed = new Set<unknown>(values);
  return { schema: schema as unknown as z.ZodType<T>, test: (value) => allowed.has(value), isOptional: false };
}

export const text: Plain<string> = {
  schema: z.string(),
  test: (value) => typeof value === 'string',
  isOptional: false,
};

const ERRNO = /^(0|E[A-Z0-9]+)$/;
/** "0", or an errno's name. */
export const errno: Plain<string> = {
  schema: z.string().regex(ERRNO, 'expected "0" or the name of an errno'),
  test: (value) => value === '0' || (typeof value === 'string' && ERRNO.test(value)),
  isOptional: false,
};

export const optional = <T>({ schema, test }: Plain<T>): Kind<T, true> => ({ schema, test, isOptional: true });

export const nullable = <T>({ schema, test }: Plain<T>): Plain<T | null> => ({
  schema: schema.nullable(),
  test: (value) => value === null || test(value),
  isOptional: false,
});

export function listOf<T>({ schema, test }: Plain<T>): Plain<T[]> {
  return {
    schema: z.array(schema),
    test: (value) => {
      if (!Array.isArray(value)) return false;
      for (let i = 0; i < value.length; i++) if (!test(value[i])) return false;
      return true;
    },
    isOptional: false,
  };
}

export function either<A, B>(a: Plain<A>, b: Plain<B>): Plain<A | B> {
  return {
    schema: z.union([a.schema, b.schema]),
    test: (value) => a.test(value) || b.test(value),
    isOptional: false,
  };
}

export function triple<A, B, C>(a: Plain<A>, b: Plain<B>, c: Plain<C>): Plain<[A, B, C]> {
  return {
    schema: z.tuple([a.schema, b.schema, c.schema]) as unknown as z.ZodType<[A, B, C]>,
    test: (value) =>
      Array.isArray(value) && value.length === 3 && a.test(value[0]) && b.test(value[1]) && c.test(value[2]),
    isOptional: false,
  };
}

/** [value, how many pages in a row], ... */
export function runsOf<T>({ schema, test }: Plain<T>): Plain<[T, number][]> {
  const length = z.int().positive();
  return {
    schema: z.array(z.tuple([schema, length])) as unknown as z.ZodType<[T, number][]>,
    test: (value) => {
      if (!Array.isArray(value)) return false;
      for (let i = 0; i < value.length; i++) {
        const run: unknown = value[i];
        if (!Array.isArray(run) || run.length !== 2 || !test(run[0])) return false;
        if (!Number.isSafeInteger(run[1]) || run[1] <= 0) return false;
      }
      return true;
    },
    isOptional: false,
  };
}

/** An object of exactly these fields. */
export function objectOf<const S extends Shape>(shape: S): Plain<Shaped<S>> & { readonly schema: z.ZodObject } {
  const fields = Object.entries(shape);
  const schema = z.strictObject(
    Object.fromEntries(fields.map(([name, kind]) => [name, kind.isOptional ? kind.schema.optional() : kind.schema])),
  );
  const names = fields.map(([name]) => name);
  const tests = fields.map(([, kind]) => kind.test);
  const optionals = fields.map(([, kind]) => kind.isOptional);
  const test = (value: unknown): boolean => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
    const record = value as Readonly<Record<string, unknown>>;
    let known = 0;
    for (let i = 0; i < names.length; i++) {
      const field = record[names[i]!];
      if (field !== undefined) {
        if (!tests[i]!(field)) return false;
        known++;
      } else if (!optionals[i]) {
        return false;
      }
    }
    // As many fields as were tested: there are no others.
    let present = 0;
    for (const _ in record) present++;
    return present === known;
  };
  return { schema: schema as unknown as z.ZodObject & z.ZodType<Shaped<S>>, test, isOptional: false };
}
