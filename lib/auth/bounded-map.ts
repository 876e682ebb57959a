/**
 * A Map of bounded size: the entry that was set longest ago is evicted first. Rate limits, the token cache and the
 * password cache use it, so that no client can fill the memory. It knows no time: an entry stays until it is evicted.
 */

export class BoundedMap<Value> {
  readonly #entries = new Map<string, Value>();
  readonly #entriesMax: number;

  constructor(entriesMax: number) {
    this.#entriesMax = entriesMax;
  }

  get(key: string): Value | undefined {
    return this.#entries.get(key);
  }

  set(key: string, value: Value): void {
    // Deleted first, so that it is the newest.
    if (!this.#entries.delete(key) && this.#entries.size >= this.#entriesMax) {
      for (const oldest of this.#entries.keys()) {
        this.#entries.delete(oldest);
        break;
      }
    }
    this.#entries.set(key, value);
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }
}
