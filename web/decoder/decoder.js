// A `.yoto` file to pixels, part by part. Runs in a worker, but knows nothing of that.

import { checkEnd, checkMetadata, headerBytes, readAlpha, readSection, unpack } from "./container.js";
import { CodecError } from "./errors.js";
import { areaOf, cut, Grid, isEmpty, onLatents } from "./grid.js";
import { load, readTensors } from "./model.js";
import { PlainTile } from "./plain.js";
import { Prior } from "./prior.js";
import { Synthesis } from "./synthesis.js";

const MAX_TILE_PX = 2048; // as in Python: memory goes with it
const PART_PX = 1024; // what is synthesised at once

/** Models by id, loaded at the first file that names them. */
export class Models {
  #loaded = new Map();

  /** Addresses of what `python -m training.browser` writes and of kernel.wasm; `gpu` as for `Synthesis.create`. */
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
    synthesis.catch(() => this.#loaded.delete(id)); // thrown where it is awaited
    const [integers, kernel] = await Promise.all([
      load(`${this.folder}${id}.safetensors`, `model ${id}, which the file needs,`),
      load(this.kernel, "the decoder"),
    ]);
    return { prior: await Prior.create(readTensors(integers), kernel), synthesis };
  }
}

/** One file, whose bytes may still be coming. Throws CodecError. */
export class Decoder {
  static async open(source, models, { maxPixels } = {}) {
    const fixed = await source.upTo(headerBytes(new Uint8Array()));
    const data = await source.upTo(headerBytes(fixed, maxPixels));
    const header = unpack(data, { maxPixels, whole: source.ended });
    source.limit = header.sizeBytes;
    const decoder = new Decoder(source, header, header.learned ? await models.get(header.model) : null);
    if (header.metadata) checkMetadata(await decoder.#bytesOf(header.metadata), header.metadata);
    if (header.alpha) {
      const bytes = await decoder.#bytesOf(header.alpha);
      decoder.alpha = await readAlpha(bytes, header.alpha, header.width * header.height);
    }
    return decoder;
  }

  constructor(source, header, model) {
    this.grid = new Grid(header, model?.prior.config.margin_px ?? 0);
    const { bottom, right } = this.grid.tile(0);
    if (bottom * right > MAX_TILE_PX ** 2) {
      throw new CodecError("TooLargeError", `the file has tiles of ${right}×${bottom} px, more than ${MAX_TILE_PX}²`);
    }
    Object.assign(this, { source, header }, model);
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
    if (!only) checkEnd(this.header, (await this.source.upTo(this.header.sizeBytes + 1)).length);
  }

  /** The file as far as a section of it. */
  async #bytesOf({ start, length }) {
    const data = await this.source.upTo(start + length);
    if (data.length < start + length) checkEnd(this.header, data.length);
    return data;
  }

  /** How many pieces need the latents of each tile, so that they are not held longer. */
  #countUses(pieces) {
    this.uses = new Map();
    for (const { box } of pieces) {
      const needed = this.grid.touching(this.grid.withMargin(box));
      for (const tile of needed) this.uses.set(tile, (this.uses.get(tile) ?? 0) + 1);
    }
  }

  async #part(tile, box) {
    const { grid, header } = this;
    const inside = grid.common(box, grid.picture);
    const outer = grid.withMargin(box);
    const pixels = this.#hasSymbols(tile) ? await this.#synthesised(tile, outer) : null;
    this.#release(grid.touching(outer));
    const part = this.#levels(pixels, outer, inside);
    if (header.plain[tile]?.length) {
      const [plain, { top, left }] = [await this.#plainTile(tile), grid.tile(tile)];
      plain.paste(part.pixels, part.left - left, part.top - top, part.width, part.height);
    }
    return part;
  }

  /** In version 1 every tile has. */
  #hasSymbols(tile) {
    return this.header.version === 1 || this.header.tiles[tile].length > 0;
  }

  /** Pixels (…, 3) of a box around a part of a tile. */
  async #synthesised(tile, outer) {
    const [h, w] = [(outer.bottom - outer.top) / 16, (outer.right - outer.left) / 16];
    const yHat = new Float32Array(h * w * this.prior.config.M);
    const around = this.grid.touching(outer);
    const learned = around.filter((number) => this.#hasSymbols(number));
    for (const number of learned) await this.#holdLatents(number);
    if (learned.length < around.length) this.#extend(tile, outer, yHat);
    for (const number of learned) this.#copyLatents(number, outer, yHat);
    return (await this.synthesis).run(yHat, h, w, this.header.quality);
  }

  #release(tiles) {
    for (const tile of tiles) {
      this.uses.set(tile, this.uses.get(tile) - 1);
      if (!this.uses.get(tile)) this.latents.delete(tile);
    }
  }

  async #holdLatents(number) {
    if (!this.latents.has(number)) this.latents.set(number, await this.#decodeLatents(number));
  }

  /** Fill `target`, the latents of `outer`, with a tile's, those beyond it being those at its nearest edge. */
  #extend(number, outer, target) {
    const { M } = this.prior.config;
    const [source, box] = [this.latents.get(number), this.grid.tile(number)];
    const columns = (box.right - box.left) / 16;
    let to = 0;
    for (let y = outer.top; y < outer.bottom; y += 16) {
      for (let x = outer.left; x < outer.right; x += 16) {
        const row = (Math.min(Math.max(y, box.top), box.bottom - 16) - box.top) / 16;
        const column = (Math.min(Math.max(x, box.left), box.right - 16) - box.left) / 16;
        const from = (row * columns + column) * M;
        for (let c = 0; c < M; c++) target[to++] = source[from + c] / 16;
      }
    }
  }

  #copyLatents(number, outer, target) {
    const { grid } = this;
    const { M } = this.prior.config;
    const [source, box] = [this.latents.get(number), grid.tile(number)];
    const shared = grid.common(box, outer);
    const length = ((shared.right - shared.left) / 16) * M;
    const place = (y, x, { top, left, right }) => (((y - top) / 16) * ((right - left) / 16) + (x - left) / 16) * M;
    for (let y = shared.top; y < shared.bottom; y += 16) {
      const [from, to] = [place(y, shared.left, box), place(y, shared.left, outer)];
      for (let i = 0; i < length; i++) target[to + i] = source[from + i] / 16;
    }
  }

  async #plainTile(number) {
    if (this.held?.number === number) return this.held.tile;
    const [section, name] = [this.header.plain[number], `the plain section of tile ${number}`];
    const { top, left, bottom, right } = this.grid.common(this.grid.tile(number), this.grid.picture);
    const tile = await PlainTile.read(readSection(await this.#bytesOf(section), section, name), {
      width: right - left,
      height: bottom - top,
      colour: this.header.colour,
      masked: this.#hasSymbols(number),
      crc: section.content,
      name,
    });
    this.held = { number, tile };
    return tile;
  }

  async #decodeLatents(number) {
    const [section, box] = [this.header.tiles[number], this.grid.tile(number)];
    const name = `tile ${number}`;
    return this.prior.decode(readSection(await this.#bytesOf(section), section, name), {
      h: (box.bottom - box.top) / 16,
      w: (box.right - box.left) / 16,
      quality: this.header.quality,
      crc: section.content,
      name,
    });
  }

  /** RGBA of `box`, from pixels (…, 3) of `outer`; black if there are none. */
  #levels(pixels, outer, box) {
    const [width, height] = [box.right - box.left, box.bottom - box.top];
    const out = new Uint8ClampedArray(4 * width * height); // rounds half to even and clamps when it is written
    for (let y = 0, to = 0; y < height; y++) {
      let from = 3 * ((box.top + y - outer.top) * (outer.right - outer.left) + box.left - outer.left);
      let at = (box.top + y) * this.header.width + box.left;
      for (let x = 0; x < width; x++, from += 3, to += 4) {
        if (pixels) this.#writePixel(out, to, pixels[from], pixels[from + 1], pixels[from + 2]);
        out[to + 3] = this.alpha ? this.alpha[at++] : 255;
      }
    }
    return { left: box.left, top: box.top, width, height, pixels: out };
  }

  #writePixel(out, to, r, g, b) {
    if (!this.header.colour) r = g = b = (r + g + b) / 3;
    out[to] = 255 * r;
    out[to + 1] = 255 * g;
    out[to + 2] = 255 * b;
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
