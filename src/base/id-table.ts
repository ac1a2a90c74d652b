/** Objects by small number, as words of shared memory name them. Id 0 means none; freed ids are used again, latest first. */
export class IdTable<T> {
  readonly #items: (T | undefined)[] = [undefined];
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
    this.#free.push(id);
  }

  *[Symbol.iterator](): Generator<T, void, void> {
    for (const item of this.#items) if (item !== undefined) yield item;
  }
}
