// The bytes of a file as they come.

import { CodecError } from "./errors.js";

export class Source {
  #bytes = new Uint8Array(1 << 16);
  #waiting = [];
  length = 0;
  ended = false;
  failed = null;
  limit = Infinity; // bytes, behind which nothing is kept but that there is something

  /** A source that holds a whole file. */
  static of(data) {
    const source = new Source();
    source.#bytes = data;
    source.length = data.length;
    source.ended = true;
    return source;
  }

  push(chunk) {
    chunk = chunk.subarray(0, Math.max(0, this.limit + 1 - this.length));
    if (this.length + chunk.length > this.#bytes.length) {
      const larger = new Uint8Array(2 * (this.length + chunk.length));
      larger.set(this.data);
      this.#bytes = larger;
    }
    this.#bytes.set(chunk, this.length);
    this.length += chunk.length;
    this.#wake();
  }

  /** Nothing more comes; because of a failure if a message says so. */
  end(failure = null) {
    this.ended = true;
    this.failed = failure;
    this.#wake();
  }

  /** What is there. */
  get data() {
    return this.#bytes.subarray(0, this.length);
  }

  /** What is there, when at least `length` bytes are, or all. */
  async upTo(length) {
    while (this.length < length && !this.ended) await new Promise((resolve) => this.#waiting.push(resolve));
    if (this.failed) throw new CodecError("LoadError", this.failed);
    return this.data;
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
