// <yoto-image src="picture.yoto" alt="…"></yoto-image>: a picture that is decoded here.
//
// Attributes: src; alt; region="x,y,width,height", what is decoded first. Without it, that is what can be seen.
// Events: "header" (detail: width, height, …), "part", "load", "error" (detail: CodecError). `open(data)` shows bytes,
// or what comes from a stream.

import { CodecError, sharedDecoder } from "./yoto.js";

const MAX_SIDE_PX = 32767; // of a canvas in any browser; areas are limited by maxPixels
const MAX_PIXELS = 128e6;

export class YotoImage extends HTMLElement {
  static observedAttributes = ["src", "alt"];

  #canvas = document.createElement("canvas");
  #abort = null;

  constructor() {
    super();
    const style = document.createElement("style");
    style.textContent = ":host { display: inline-block } canvas { display: block; max-width: 100% }";
    this.#canvas.setAttribute("role", "img");
    this.#canvas.setAttribute("part", "canvas");
    this.attachShadow({ mode: "open" }).append(style, this.#canvas);
  }

  attributeChangedCallback(name, _, value) {
    if (name === "alt") this.#canvas.setAttribute("aria-label", value ?? "");
    else if (value) this.#fetch(value);
    else this.#abort?.abort();
  }

  /** Out of the page, and not only moved in it: decoding ends. */
  async disconnectedCallback() {
    await null;
    if (!this.isConnected) this.#abort?.abort();
  }

  get canvas() {
    return this.#canvas;
  }

  /** Show a file, Uint8Array or ReadableStream. Resolves when all of it is there, to { header, backend }. */
  async open(data) {
    this.#abort?.abort();
    const { signal } = (this.#abort = new AbortController());
    return this.#show(data, signal);
  }

  async #fetch(address) {
    this.#abort?.abort();
    const { signal } = (this.#abort = new AbortController());
    const answer = await fetch(address, { signal }).catch(() => null);
    if (signal.aborted) return;
    if (answer?.ok) this.#show(answer.body, signal).catch(() => {}); // told of
    else this.#tell("error", new CodecError("LoadError", `${address} cannot be fetched`));
  }

  async #show(data, signal) {
    try {
      const context = this.#canvas.getContext("2d");
      const onPart = (part) => {
        context.putImageData(new ImageData(part.pixels, part.width, part.height), part.left, part.top);
        this.#tell("part", part);
      };
      const options = { first: (header) => this.#first(header), maxPixels: MAX_PIXELS, signal };
      const result = await sharedDecoder().decode(data, options, (header) => this.#prepare(header), onPart);
      this.#tell("load", result);
      return result;
    } catch (error) {
      if (!signal.aborted) this.#tell("error", error);
      throw error;
    }
  }

  /** Make room for the picture. */
  #prepare(header) {
    const { width, height } = header;
    if (Math.max(width, height) > MAX_SIDE_PX) {
      const size = `${width}×${height} px`;
      throw new CodecError("TooLargeError", `the image has ${size}, a browser shows ${MAX_SIDE_PX} a side`);
    }
    [this.#canvas.width, this.#canvas.height] = [width, height];
    this.#tell("header", header);
  }

  /** The region that is decoded first: the attribute's, else what of the picture can be seen; null if nothing can. */
  #first({ width, height }) {
    const named = (this.getAttribute("region") ?? "").split(",").map(Number);
    if (named.length === 4 && named.every(Number.isInteger)) {
      const [x, y, w, h] = named;
      return inside(x, y, x + w, y + h, width, height);
    }
    const { left, top, width: shown } = this.#canvas.getBoundingClientRect();
    const scale = width / shown;
    if (!Number.isFinite(scale)) return null;
    return inside(-left * scale, -top * scale, (innerWidth - left) * scale, (innerHeight - top) * scale, width, height);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** The region from x, y to right, bottom, as far as it lies in a picture; null if nothing does. */
function inside(x, y, right, bottom, width, height) {
  [x, y] = [Math.max(0, Math.floor(x)), Math.max(0, Math.floor(y))];
  [right, bottom] = [Math.min(width, Math.ceil(right)), Math.min(height, Math.ceil(bottom))];
  return x < right && y < bottom ? { x, y, width: right - x, height: bottom - y } : null;
}

customElements.define("yoto-image", YotoImage);
