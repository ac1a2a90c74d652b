/**
 * The declaration language of everything that two threads must agree on.
 *
 * A word of bit fields or a record of fields is declared once; the declaration yields shifts, masks and offsets, and checks that run
 * when the module is loaded (no overlap, everything inside, alignment). What a field is for is said there, for who reads it.
 */
import { assert } from '../base/errors.js';

/** One field of a 64-bit word: bits `low..high`, both included. */
export interface BitField {
  readonly low: number;
  readonly high: number;
  readonly doc: string;
}

export interface BitFieldLayout extends Pick<BitField, 'low' | 'high'> {
  readonly shift: bigint;
  /** Mask of the field in place. */
  readonly mask: bigint;
  /** Mask of the field's value, before it is shifted into place. */
  readonly valueMask: bigint;
}

export type BitsLayout<Fields extends Record<string, BitField>> = { readonly [K in keyof Fields]: BitFieldLayout } & {
  readonly $name: string;
};

export const bit = (at: number, doc: string): BitField => ({ low: at, high: at, doc });
export const bits = (low: number, high: number, doc: string): BitField => ({ low, high, doc });

/**
 * Declare a word of `width` bits. Fields that belong to different forms of the same word go into different declarations.
 * @throws InvariantViolation when fields overlap or leave the word
 */
export function defineBits<const Fields extends Record<string, BitField>>(
  name: string,
  width: number,
  fields: Fields,
): BitsLayout<Fields> {
  let used = 0n;
  const layout: Record<string, unknown> = {};
  for (const [field, { low, high }] of Object.entries(fields)) {
    assert(low >= 0 && low <= high && high < width, `${name}.${field}: bits ${low}..${high} leave a word of ${width}`);
    const valueMask = (1n << BigInt(high - low + 1)) - 1n;
    const mask = valueMask << BigInt(low);
    assert((used & mask) === 0n, `${name}.${field}: bits ${low}..${high} overlap another field`);
    used |= mask;
    layout[field] = Object.freeze({ low, high, shift: BigInt(low), mask, valueMask });
  }
  layout.$name = name;
  return Object.freeze(layout) as BitsLayout<Fields>;
}

type FieldType = 'i32' | 'u32' | 'f64' | 'u64';
const FIELD_BYTES: Readonly<Record<FieldType, number>> = { i32: 4, u32: 4, f64: 8, u64: 8 };

/** One field of a record at a fixed byte offset. */
export interface RecordField {
  readonly at: number;
  readonly type: FieldType;
  readonly doc: string;
}

export type RecordLayout<Fields extends Record<string, RecordField>> = {
  /** Index of the field in units of its own size (an `i32` at byte 12 has word 3, an `f64` at byte 16 has word 2). */
  readonly word: { readonly [K in keyof Fields]: number };
  /** Byte offset of the field. */
  readonly offset: { readonly [K in keyof Fields]: number };
  readonly name: string;
  readonly bytes: number;
};

export const field = (at: number, type: FieldType, doc: string): RecordField => ({ at, type, doc });

/**
 * Declare a record of `bytes` bytes.
 * @throws InvariantViolation when fields overlap, are not aligned to their size, or leave the record
 */
export function defineRecord<const Fields extends Record<string, RecordField>>(
  name: string,
  bytes: number,
  fields: Fields,
): RecordLayout<Fields> {
  const used = new Set<number>();
  const word: Record<string, number> = {};
  const offset: Record<string, number> = {};
  for (const [key, { at, type }] of Object.entries(fields)) {
    const size = FIELD_BYTES[type];
    assert(at % size === 0, `${name}.${key}: byte ${at} is not aligned for ${type}`);
    assert(at + size <= bytes, `${name}.${key}: byte ${at} leaves a record of ${bytes}`);
    for (let byte = at; byte < at + size; byte++) {
      assert(!used.has(byte), `${name}.${key}: byte ${byte} is already taken`);
      used.add(byte);
    }
    word[key] = at / size;
    offset[key] = at;
  }
  return Object.freeze({
    word: Object.freeze(word),
    offset: Object.freeze(offset),
    name,
    bytes,
  }) as RecordLayout<Fields>;
}
