// The container of a `.yoto` file: codec/format/bitstream.py specifies it.

import { CodecError, corrupt } from "./errors.js";
import { crc32 } from "./crc32.js";

const MAGIC = [0xd9, 0x59, 0x54, 0x4f];
const FIXED_BYTES = 23;
const SECTION_BYTES = 8;
const TILE_BYTES = 12;
const QUALITY_MAX = 4096;
const SIDE_MAX = 2 ** 24;
const [ALPHA, COLOUR, METADATA, LOSSLESS] = [1, 2, 4, 8];
const FLAGS = { 1: ALPHA | COLOUR | METADATA, 2: ALPHA | COLOUR | METADATA | LOSSLESS }; // that each version knows
const NO_MODEL = "000000000000";
const INFLATE_STEP = 4096; // compressed bytes at a time, of which at most 4 MiB come

export const DEFAULT_MAX_PIXELS = 128e6;
const truncated = (wanted, found) =>
  new CodecError("TruncatedError", `the file should have ${wanted} bytes and has ${found}; it is cut short`);

/** Bytes of fixed part, section table and header CRC; of the fixed part as long as that is not there. */
export function headerBytes(data, maxPixels = DEFAULT_MAX_PIXELS) {
  if (data.length < FIXED_BYTES) return FIXED_BYTES;
  const { version, metadata, alpha, width, height, tile } = unpackFixed(data, maxPixels);
  const tiles = Math.ceil(width / tile) * Math.ceil(height / tile);
  return FIXED_BYTES + SECTION_BYTES * (metadata + alpha) + TILE_BYTES * tiles * version + 4;
}

/**
 * Check and read the header; sections are checked when they are read. Throws CodecError.
 *
 * With `whole` the file must end where it should; else `checkEnd` is to be called when all of it is there.
 */
export function unpack(data, { maxPixels = DEFAULT_MAX_PIXELS, whole = true } = {}) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const header = unpackFixed(data, maxPixels);
  const extra = [header.metadata, header.alpha];
  const tableEnd = headerBytes(data, maxPixels) - 4;
  if (data.length < tableEnd + 4) throw truncated(tableEnd + 4, data.length);
  if (crc32(data.subarray(0, tableEnd)) !== view.getUint32(tableEnd, true)) {
    throw corrupt("the checksum of the header is wrong");
  }
  let [entry, start] = [FIXED_BYTES, tableEnd + 4];
  const section = (bytes) => {
    const found = { start, length: view.getUint32(entry, true), crc: view.getUint32(entry + 4, true) };
    if (bytes === TILE_BYTES) found.content = view.getUint32(entry + 8, true);
    else if (found.length === 0) throw corrupt("a section is empty");
    entry += bytes;
    start += found.length;
    return found;
  };
  [header.metadata, header.alpha] = extra.map((present) => (present ? section(SECTION_BYTES) : null));
  header.tiles = [];
  header.plain = [];
  while (entry < tableEnd) {
    header.tiles.push(section(TILE_BYTES));
    if (header.version === 2) header.plain.push(section(TILE_BYTES));
  }
  header.sizeBytes = start;
  if (whole) checkEnd(header, data.length);
  if (header.version === 2) checkAbsent(header);
  header.learned = header.model !== NO_MODEL || header.version === 1;
  return header;
}

/** Check that a file ends where its header says. */
export function checkEnd({ sizeBytes }, length) {
  if (length < sizeBytes) throw truncated(sizeBytes, length);
  if (length > sizeBytes) throw corrupt(`the file should have ${sizeBytes} bytes and has ${length}`);
}

/** Every tile of version 2 has something, and what is absent leaves no trace. */
function checkAbsent({ tiles, plain, model, lossless }) {
  const traceless = (section) => section.length || !(section.crc || section.content);
  tiles.forEach((symbols, tile) => {
    if (!symbols.length && !plain[tile].length) throw corrupt(`tile ${tile} has neither symbols nor a plain section`);
    if (![symbols, plain[tile]].every(traceless)) throw corrupt(`tile ${tile} has a checksum of what it does not have`);
  });
  const symbols = tiles.some(({ length }) => length);
  if (symbols === (model === NO_MODEL) || (symbols && lossless)) {
    throw corrupt("a file with symbols names a model and is not lossless, others name none");
  }
}

function unpackFixed(data, maxPixels) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (!data.length || MAGIC.some((byte, i) => i < data.length && data[i] !== byte)) {
    throw new CodecError("NotYotoError", "this is not a .yoto file: it does not start with its magic bytes");
  }
  if (data.length > 4 && !FLAGS[data[4]]) {
    throw new CodecError("UnsupportedVersionError", `the format version is ${data[4]}, this decoder knows 1 and 2`);
  }
  if (data.length < FIXED_BYTES) throw truncated(FIXED_BYTES, data.length);
  const flags = data[5];
  const quality = view.getUint16(6, true);
  const [width, height] = [view.getUint32(8, true), view.getUint32(12, true)];
  if (flags & ~FLAGS[data[4]]) throw corrupt(`the flags are ${flags}`);
  if (quality > QUALITY_MAX) throw corrupt(`quality is ${quality}`);
  for (const side of [width, height]) {
    if (side < 1 || side > SIDE_MAX) throw corrupt(`the image has ${width}×${height} px`);
  }
  if (data[22] === 0) throw corrupt("the tile size is 0");
  const padded = Math.ceil(width / 64) * Math.ceil(height / 64) * 64 ** 2;
  if (padded > maxPixels) {
    const size = `${width}×${height} px`;
    throw new CodecError("TooLargeError", `the image has ${size}, with padding more than the limit of ${maxPixels}`);
  }
  return {
    version: data[4],
    width,
    height,
    quality,
    model: Array.from(data.subarray(16, 22), (byte) => byte.toString(16).padStart(2, "0")).join(""),
    colour: Boolean(flags & COLOUR),
    alpha: Boolean(flags & ALPHA),
    metadata: Boolean(flags & METADATA),
    lossless: Boolean(flags & LOSSLESS),
    tile: 64 * data[22],
  };
}

/** The bytes of a section, which `name` names in the error. */
export function readSection(data, section, name) {
  const part = data.subarray(section.start, section.start + section.length);
  if (crc32(part) !== section.crc) throw corrupt(`the checksum of ${name} is wrong`);
  return part;
}

/** Metadata is not used, but must be sound. */
export function checkMetadata(data, section) {
  const part = readSection(data, section, "the metadata");
  const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
  let [position, last] = [0, 0];
  while (position < part.length) {
    if (position + 5 > part.length) throw corrupt("a metadata item is cut short");
    const [kind, length] = [part[position], view.getUint32(position + 1, true)];
    position += 5;
    if (kind <= last || kind > 3 || length < 1 || length > part.length - position) {
      throw corrupt(`a metadata item has type ${kind} and ${length} bytes`);
    }
    [position, last] = [position + length, kind];
  }
}

/** The alpha plane, height × width bytes. */
export async function readAlpha(data, section, pixels) {
  const packed = readSection(data, section, "the alpha channel");
  const plane = new Uint8Array(pixels);
  let length = 0;
  try {
    for await (const chunk of inflated(packed)) {
      if (length + chunk.length > pixels) throw new RangeError();
      plane.set(chunk, length);
      length += chunk.length;
    }
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof RangeError)) throw error;
    length = -1;
  }
  if (length !== pixels) throw corrupt("the alpha channel does not decompress to its size");
  return plane;
}

/** What a zlib stream holds, piece by piece, fed slowly so that little of a bomb is ever in memory. */
async function* inflated(packed) {
  let position = 0;
  const source = new ReadableStream(
    {
      pull(controller) {
        if (position >= packed.length) controller.close();
        else controller.enqueue(packed.slice(position, (position += INFLATE_STEP)));
      },
    },
    { highWaterMark: 0 },
  );
  const reader = source.pipeThrough(new DecompressionStream("deflate")).getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}
