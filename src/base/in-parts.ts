/** Long work in parts: a generator that yields wherever its caller may have something else to do. */

/** All of it at once. */
export function finish<T>(parts: Generator<unknown, T, void>): T {
  for (;;) {
    const part = parts.next();
    if (part.done) return part.value;
  }
}
