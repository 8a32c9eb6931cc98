// A `.yoto` file to pixels, part by part. Runs in a worker, but knows nothing of that.

import { checkMetadata, readAlpha, readSection, unpack } from "./container.js";
import { CodecError } from "./errors.js";
import { areaOf, cut, Grid, isEmpty, onLatents } from "./grid.js";
import { load, readTensors } from "./model.js";
import { Prior } from "./prior.js";
import { Synthesis } from "./synthesis.js";

const MAX_TILE_PX = 2048; // as in Python: memory goes with it
const PART_PX = 1024; // what is synthesised at once

/** Models by id, loaded at the first file that names them. */
export class Models {
  #loaded = new Map();

  /** @param {string} folder address of what `python -m training.browser` writes; @param {string} kernel of kernel.wasm. */
  constructor(folder, kernel, options = {}) {
    Object.assign(this, { folder, kernel, options });
  }

  get(id) {
    if (!this.#loaded.has(id)) {
      const loading = this.#load(id);
      this.#loaded.set(id, loading);
      loading.catch(() => this.#loaded.delete(id));
    }
    return this.#loaded.get(id);
  }

  async #load(id) {
    const graph = load(`${this.folder}${id}.onnx`, `the synthesis of model ${id}`);
    const synthesis = graph.then((data) => Synthesis.create(data, this.options));
    synthesis.catch(() => {}); // thrown where it is awaited
    const [integers, kernel] = await Promise.all([
      load(`${this.folder}${id}.safetensors`, `model ${id}, which the file needs,`),
      load(this.kernel, "the decoder"),
    ]);
    return { prior: await Prior.create(readTensors(integers), kernel), synthesis };
  }
}

/** One file. Throws CodecError. */
export class Decoder {
  static async open(data, models, { maxPixels } = {}) {
    const header = unpack(data, maxPixels);
    const model = await models.get(header.model);
    const decoder = new Decoder(data, header, model);
    if (header.metadata) checkMetadata(data, header.metadata);
    if (header.alpha) decoder.alpha = await readAlpha(data, header.alpha, header.width * header.height);
    return decoder;
  }

  constructor(data, header, { prior, synthesis }) {
    this.grid = new Grid(header, prior.config.margin_px);
    const { bottom, right } = this.grid.tile(0);
    if (bottom * right > MAX_TILE_PX ** 2) {
      throw new CodecError("TooLargeError", `the file has tiles of ${right}×${bottom} px, more than ${MAX_TILE_PX}²`);
    }
    Object.assign(this, { data, header, prior, synthesis });
    this.latents = new Map();
  }

  /**
   * Yield { left, top, width, height, pixels: Uint8ClampedArray (height, width, 4) }, the parts that `first` (a region
   * { x, y, width, height }) touches before the others; only those if `only`.
   */
  async *parts({ first = null, only = false } = {}) {
    const { grid } = this;
    const window = first ? regionBox(first, grid) : grid.picture;
    const [own, rest] = [[], []];
    for (let tile = 0; tile < grid.rows * grid.columns; tile++) {
      const box = grid.tile(tile);
      const share = grid.common(onLatents(window), box);
      if (isEmpty(share)) rest.push({ tile, box });
      else if (only || 2 * areaOf(share) < areaOf(box)) {
        own.push({ tile, box: share });
        rest.push({ tile, box });
      } else own.push({ tile, box });
    }
    const jobs = only ? own : [...own, ...rest];
    const pieces = jobs.flatMap(({ tile, box }) => Array.from(cut(box, PART_PX), (piece) => ({ tile, box: piece })));
    this.#countUses(pieces);
    for (const { tile, box } of pieces) yield await this.#part(tile, box);
  }

  /** How many pieces need the latents of each tile, so that they are not held longer. */
  #countUses(pieces) {
    this.uses = new Map();
    for (const { box } of pieces) {
      for (const tile of this.grid.touching(this.grid.withMargin(box))) this.uses.set(tile, (this.uses.get(tile) ?? 0) + 1);
    }
  }

  async #part(tile, box) {
    const { grid, header } = this;
    const outer = grid.withMargin(box);
    const around = grid.touching(outer);
    const [h, w] = [(outer.bottom - outer.top) / 16, (outer.right - outer.left) / 16];
    const yHat = new Float32Array(h * w * this.prior.config.M);
    for (const number of around) this.#copyLatents(number, outer, yHat);
    for (const number of around) {
      this.uses.set(number, this.uses.get(number) - 1);
      if (!this.uses.get(number)) this.latents.delete(number);
    }
    const pixels = await (await this.synthesis).run(yHat, h, w, header.quality);
    return this.#levels(pixels, outer, grid.common(box, grid.picture));
  }

  #copyLatents(number, outer, target) {
    const { grid } = this;
    const { M } = this.prior.config;
    if (!this.latents.has(number)) this.latents.set(number, this.#decodeLatents(number));
    const source = this.latents.get(number);
    const box = grid.tile(number);
    const shared = grid.common(box, outer);
    const length = ((shared.right - shared.left) / 16) * M;
    const place = (y, x, { top, left, right }) => (((y - top) / 16) * ((right - left) / 16) + (x - left) / 16) * M;
    for (let y = shared.top; y < shared.bottom; y += 16) {
      const [from, to] = [place(y, shared.left, box), place(y, shared.left, outer)];
      for (let i = 0; i < length; i++) target[to + i] = source[from + i] / 16;
    }
  }

  #decodeLatents(number) {
    const [section, box] = [this.header.tiles[number], this.grid.tile(number)];
    const name = `tile ${number}`;
    return this.prior.decode(readSection(this.data, section, name), {
      h: (box.bottom - box.top) / 16,
      w: (box.right - box.left) / 16,
      quality: this.header.quality,
      crc: section.integers,
      name,
    });
  }

  /** RGBA of `box`, from pixels (…, 3) of `outer`. */
  #levels(pixels, outer, box) {
    const [width, height] = [box.right - box.left, box.bottom - box.top];
    const out = new Uint8ClampedArray(4 * width * height); // rounds half to even and clamps when it is written
    for (let y = 0, to = 0; y < height; y++) {
      let from = 3 * ((box.top + y - outer.top) * (outer.right - outer.left) + box.left - outer.left);
      let at = (box.top + y) * this.header.width + box.left;
      for (let x = 0; x < width; x++, from += 3, to += 4) {
        const [r, g, b] = [pixels[from], pixels[from + 1], pixels[from + 2]];
        const grey = this.header.colour ? null : (r + g + b) / 3;
        out[to] = 255 * (grey ?? r);
        out[to + 1] = 255 * (grey ?? g);
        out[to + 2] = 255 * (grey ?? b);
        out[to + 3] = this.alpha ? this.alpha[at++] : 255;
      }
    }
    return { left: box.left, top: box.top, width, height, pixels: out };
  }
}

function regionBox({ x, y, width, height }, grid) {
  const box = { top: y, left: x, bottom: y + height, right: x + width };
  const inside = grid.common(box, grid.picture);
  if (![x, y, width, height].every(Number.isInteger) || isEmpty(inside) || areaOf(inside) !== areaOf(box)) {
    throw new RangeError(`the region ${x},${y},${width},${height} does not lie within the image`);
  }
  return box;
}
