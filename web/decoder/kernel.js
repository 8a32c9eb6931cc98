// What kernel.ts becomes.

/** kernel.wasm and its memory, of which pieces are taken from the start and given back together. */
export class Kernel {
  static async create(bytes) {
    return new Kernel((await WebAssembly.instantiate(bytes)).instance);
  }

  constructor({ exports }) {
    this.exports = exports;
    this.memory = exports.memory;
    this.top = 0;
  }

  /** The address of `length` numbers. */
  take(length) {
    const address = this.top;
    this.top += 16 * Math.ceil(length / 4);
    const missing = this.top - this.memory.buffer.byteLength;
    if (missing > 0 && this.memory.grow(Math.ceil(missing / 65536)) < 0) throw new RangeError("out of memory");
    return address;
  }

  put(values) {
    const address = this.take(values.length);
    this.view(address, values.length).set(values);
    return address;
  }

  /** Valid until something more is taken. */
  view(address, length) {
    return new Float32Array(this.memory.buffer, address, length);
  }
}
