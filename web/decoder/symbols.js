// The symbol stream of a tile: codec/format/SPECIFICATION.md.

import { corrupt } from "./errors.js";

const LAST_SILENT_ROW = 1;
const MAX_SYMBOL = 1 << 14;

/** The frequency tables, as the limits of each slot's quantiles. */
export class SymbolTables {
  constructor(radii, frequencies) {
    this.radii = radii;
    let start = 0;
    this.limits = Array.from(radii, (radius) => {
      const slots = 2 * radius + 2;
      const limits = new Uint32Array(slots + 1);
      for (let slot = 0, sum = 0; slot <= slots; sum += frequencies[start + slot++]) {
        limits[slot] = Math.floor((sum * (2 ** 24 - slots)) / 2 ** 16) + slot;
      }
      start += slots;
      return limits;
    });
  }
}

/** Reads the stages of one stream, in order. */
export class SymbolDecoder {
  constructor(data, tables) {
    this.tables = tables;
    this.data = data;
    [this.position, this.end] = [0, Math.min(data.length, 5)];
    const doubled = this.#number();
    this.end = this.position + doubled / 2;
    const bytes = data.length - this.end;
    if (doubled % 2 || bytes < 0 || bytes % 4) throw corrupt("the lengths in the symbol stream are wrong");
    this.words = new DataView(data.buffer, data.byteOffset + this.end, bytes);
    this.left = bytes;
    this.high = this.low = 0; // of the state's 64 bits
    if (bytes && this.words.getUint32(bytes - 4, true) === 0) throw corrupt("the symbol stream ends in a zero word");
    this.#refill();
    this.#refill();
  }

  /** The symbols of a stage, Int32Array, for the rows of the tables (bytes). */
  read(rows) {
    const symbols = new Int32Array(rows.length);
    const { order, ends } = byRow(rows);
    for (let row = LAST_SILENT_ROW + 1; row < ends.length; row++) {
      const [limits, radius] = [this.tables.limits[row], this.tables.radii[row]];
      for (let i = ends[row - 1]; i < ends[row]; i++) {
        const slot = this.#slot(limits);
        symbols[order[i]] = slot ? slot - radius - 1 : this.#escape();
      }
    }
    return symbols;
  }

  /** Check that the stream is used up. */
  finish() {
    if (this.high || this.low || this.left || this.position !== this.end) {
      throw corrupt("the symbol stream has data left over");
    }
  }

  #refill() {
    if (!this.left) return;
    this.left -= 4;
    this.high = this.low;
    this.low = this.words.getUint32(this.left, true);
  }

  #slot(limits) {
    const t = this.low & 0xffffff;
    let [first, last] = [0, limits.length - 1];
    while (last - first > 1) {
      const middle = (first + last) >> 1;
      if (limits[middle] <= t) first = middle;
      else last = middle;
    }
    const width = limits[first + 1] - limits[first];
    // state = ⌊state / 2^24⌋ · width + t - limit, in parts whose products stay below 2^53.
    const low = ((this.high & 0xffff) * 256 + (this.low >>> 24)) * width + t - limits[first];
    const high = (this.high >>> 16) * width;
    const sum = (high % 256) * 2 ** 24 + low;
    this.low = sum >>> 0;
    this.high = Math.floor(high / 256) + Math.floor(sum / 2 ** 32);
    if (this.high === 0) this.#refill();
    return first;
  }

  #escape() {
    const number = this.#number();
    const value = number % 2 ? -(number + 1) / 2 : number / 2;
    if (Math.abs(value) > MAX_SYMBOL) throw corrupt("a symbol is out of range");
    return value;
  }

  /** A LEB128 number of at most 5 bytes. */
  #number() {
    for (let value = 0, place = 1; place <= 2 ** 28 && this.position < this.end; place *= 128) {
      const byte = this.data[this.position++];
      value += (byte & 127) * place;
      if (byte < 128) return value;
    }
    throw corrupt("a number in the symbol stream does not end");
  }
}

/** The places of all rows in the order of their row, and where each row's end in it. */
function byRow(rows) {
  const ends = new Uint32Array(256);
  for (let i = 0; i < rows.length; i++) ends[rows[i]]++;
  const next = new Uint32Array(256);
  for (let row = 1; row < 256; row++) {
    next[row] = ends[row - 1];
    ends[row] += ends[row - 1];
  }
  const order = new Uint32Array(rows.length);
  for (let i = 0; i < rows.length; i++) order[next[rows[i]]++] = i;
  return { order, ends };
}
