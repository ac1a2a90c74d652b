/** Seeded randomness, the only source of it: SplitMix32 to spread the seed, then sfc32. */

/** Seeds are whole numbers from 0 to this. */
export const SEED_MAX = 2 ** 32 - 1;

export interface Random {
  /** An integer in [0, 2^32). */
  next(): number;
  /** An integer in [0, n), n in 1..2^32. */
  below(n: number): number;
  /** A float in [0, 1). */
  unit(): number;
}

export function createRandom(seed: number): Random {
  let mix = seed >>> 0;
  const splitmix = (): number => {
    mix = (mix + 0x9e3779b9) | 0;
    let z = mix ^ (mix >>> 16);
    z = Math.imul(z, 0x21f0aaad);
    z ^= z >>> 15;
    z = Math.imul(z, 0x735a2d97);
    return (z ^ (z >>> 15)) | 0;
  };
  let a = splitmix();
  let b = splitmix();
  let c = splitmix();
  let counter = 1;
  const next = (): number => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return t >>> 0;
  };
  return {
    next,
    below: (n) => Math.floor((next() / 0x1_0000_0000) * n),
    unit: () => next() / 0x1_0000_0000,
  };
}
