/**
 * Objects by small number, as words of shared memory name them. Id 0 means none; freed ids are used again, the lowest first: so
 * the next id depends only on which objects there are, not on how it came to that.
 */
export class IdTable<T> {
  readonly #items: (T | undefined)[] = [undefined];
  /** Descending. */
  readonly #free: number[] = [];

  /** Store what `make` builds from the new id. */
  add<U extends T>(make: (id: number) => U): U {
    const id = this.#free.pop() ?? this.#items.length;
    const item = make(id);
    this.#items[id] = item;
    return item;
  }

  get(id: number): T | undefined {
    return this.#items[id];
  }

  remove(id: number): void {
    this.#items[id] = undefined;
    let at = this.#free.length;
    while (at > 0 && this.#free[at - 1]! < id) at--;
    this.#free.splice(at, 0, id);
  }

  *[Symbol.iterator](): Generator<T, void, void> {
    for (const item of this.#items) if (item !== undefined) yield item;
  }
}
