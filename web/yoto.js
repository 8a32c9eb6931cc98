// Decoding from a page, in a worker:
//
//     const onHeader = ({ width, height }) => Object.assign(canvas, { width, height });
//     const onPart = ({ pixels, width, left, top }) => context.putImageData(new ImageData(pixels, width), left, top);
//     await sharedDecoder().decode(bytes, {}, onHeader, onPart);

import { CodecError } from "./decoder/errors.js";

export { CodecError };

/** A worker that decodes; one serves a whole page. */
export class YotoDecoder {
  #worker;
  #jobs = new Map();
  #next = 1;

  /** Models are read from the folder `models`; `gpu: false` leaves WebGPU alone. */
  constructor({ models = new URL("models/", import.meta.url).href, gpu = true } = {}) {
    this.#worker = new Worker(new URL("decoder/worker.js", import.meta.url), { type: "module" });
    this.#worker.onmessage = ({ data }) => this.#jobs.get(data.id)?.(data);
    this.#worker.onerror = (event) => {
      event.preventDefault();
      const reason = event.message || "it cannot be loaded";
      const error = { name: "LoadError", message: `the decoder does not work here: ${reason}` };
      for (const [id, tell] of this.#jobs) tell({ id, error });
    };
    this.#worker.postMessage({ configure: { models, gpu } });
  }

  /**
   * Decode a file.
   *
   * @param {Uint8Array | ReadableStream} data the file, or where it comes from: tiles are decoded as they come.
   * @param options first: a region { x, y, width, height } whose parts come before the others, or what makes one of the
   *   header; only: decode nothing else; maxPixels: refuse larger images; signal: an AbortSignal.
   * @param {(header) => void} onHeader called once, with width, height, quality, colour, alpha; may throw to end it.
   * @param {(part) => void} onPart called for each { left, top, width, height, pixels }, RGBA.
   * @returns {Promise<{ header, backend }>} when all is done; rejects with CodecError.
   */
  decode(data, { signal = null, first = null, ...options } = {}, onHeader = () => {}, onPart = () => {}) {
    const id = this.#next++;
    const post = (message) => this.#worker.postMessage({ id, ...message });
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const reader = data instanceof ReadableStream ? data.getReader() : null;
      let header = null;
      const end = (settle, value) => {
        this.#jobs.delete(id);
        reader?.cancel().catch(() => {});
        settle(value);
      };
      const stop = (reason) => {
        post({ stop: true });
        end(reject, reason);
      };
      signal?.addEventListener("abort", () => stop(signal.reason));
      const begin = (found) => {
        try {
          onHeader((header = found));
          post({ first: typeof first === "function" ? first(header) : first });
        } catch (error) {
          stop(error);
        }
      };
      this.#jobs.set(id, (answer) => {
        if (answer.error) end(reject, new CodecError(answer.error.name, answer.error.message));
        else if (answer.header) begin(answer.header);
        else if (answer.part) onPart(answer.part);
        else end(resolve, { header, backend: answer.backend });
      });
      post({ data: reader ? null : data, options });
      if (reader) forward(reader, post);
    });
  }

  close() {
    this.#worker.terminate();
  }
}

/** Pass on what comes from a stream. */
async function forward(reader, post) {
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) post({ chunk: next.value });
    post({ end: true });
  } catch {
    post({ end: true, failure: "the file cannot be fetched to its end" });
  }
}

let shared = null;

/** The decoder that the page's elements share. */
export const sharedDecoder = () => (shared ??= new YotoDecoder());
