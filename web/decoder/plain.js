// Plain sections, see codec/format/bitstream.py: a mask of blocks, and lossless WebP, which the browser decodes.

import { crc32 } from "./crc32.js";
import { corrupt } from "./errors.js";

const UNIT_PX = 32; // side of a mask's blocks

/** Pixels of a tile, and which of them hold. */
export class PlainTile {
  /** Read a section; `masked` says that it starts with a mask, `crc` what its pixels must have. Throws CodecError. */
  static async read(data, { width, height, colour, masked, crc, name }) {
    const [rows, columns] = [Math.ceil(height / UNIT_PX), Math.ceil(width / UNIT_PX)];
    const size = masked ? Math.ceil((rows * columns) / 8) : 0;
    const mask = masked ? data.subarray(0, size) : null;
    const filled = 8 * size - (masked ? rows * columns : 0);
    if (data.length < size || (mask && mask[size - 1] & ((1 << filled) - 1))) {
      throw corrupt(`the mask of ${name} is cut short or has bits behind its end`);
    }
    const pixels = await decodeWebp(data.subarray(size), width, height, name);
    if (crc32(samples(pixels, colour)) !== crc) throw corrupt(`${name} decoded to other pixels than were encoded`);
    return new PlainTile(pixels, width, columns, mask, colour);
  }

  constructor(pixels, width, columns, mask, colour) {
    Object.assign(this, { pixels, width, columns, mask, colour });
  }

  holds(x, y) {
    const block = Math.floor(y / UNIT_PX) * this.columns + Math.floor(x / UNIT_PX);
    return !this.mask || Boolean((this.mask[block >> 3] >> (7 - (block & 7))) & 1);
  }

  /** Write what holds into RGBA pixels `width` px wide, which start at x, y of the tile; alpha stays. */
  paste(target, x0, y0, width, height) {
    for (let y = 0, to = 0; y < height; y++) {
      for (let x = 0; x < width; x++, to += 4) {
        if (!this.holds(x0 + x, y0 + y)) continue;
        const from = 4 * ((y0 + y) * this.width + x0 + x);
        for (let c = 0; c < 3; c++) target[to + c] = this.pixels[from + (this.colour ? c : 1)];
      }
    }
  }
}

/** What the CRC of the pixels covers: three bytes each, or the green one if grey. */
function samples(pixels, colour) {
  const count = pixels.length / 4;
  const out = new Uint8Array(colour ? 3 * count : count);
  for (let i = 0, to = 0; i < pixels.length; i += 4) {
    if (colour) out[to++] = pixels[i];
    out[to++] = pixels[i + 1];
    if (colour) out[to++] = pixels[i + 2];
  }
  return out;
}

/** RGBA of VP8L data whose five first bytes are left out. */
async function decodeWebp(data, width, height, name) {
  const head = new DataView(new ArrayBuffer(25));
  const ascii = (at, text) => [...text].forEach((letter, i) => head.setUint8(at + i, letter.charCodeAt(0)));
  const length = data.length + 5;
  const fill = length % 2;
  ascii(0, "RIFF");
  head.setUint32(4, 12 + length + fill, true);
  ascii(8, "WEBPVP8L");
  head.setUint32(16, length, true);
  head.setUint8(20, 0x2f);
  head.setUint32(21, ((width - 1) | ((height - 1) << 14)) >>> 0, true);
  const file = new Blob([head.buffer, data, new Uint8Array(fill)], { type: "image/webp" });
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw corrupt(`${name} does not decode`);
  }
  if (bitmap.width !== width || bitmap.height !== height) throw corrupt(`${name} has other dimensions`);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, width, height).data;
}
