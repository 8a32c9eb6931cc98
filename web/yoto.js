// Decoding from a page: `for await (const part of decode(bytes).parts) …`, or `await decodeWhole(bytes)`.

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
   * @param {Uint8Array} data the file.
   * @param options first: a region { x, y, width, height } whose parts come before the others; only: decode nothing
   *   else; maxPixels: refuse larger images; signal: an AbortSignal.
   * @param {(header) => void} onHeader called once, with width, height, quality, colour, alpha.
   * @param {(part) => void} onPart called for each { left, top, width, height, pixels }, RGBA.
   * @returns {Promise<{ header, backend }>} when all is done; rejects with CodecError.
   */
  decode(data, { signal = null, ...options } = {}, onHeader = () => {}, onPart = () => {}) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      let header = null;
      const end = (settle, value) => {
        this.#jobs.delete(id);
        settle(value);
      };
      signal?.addEventListener("abort", () => {
        this.#worker.postMessage({ stop: id });
        end(reject, signal.reason);
      });
      this.#jobs.set(id, (answer) => {
        if (answer.error) end(reject, new CodecError(answer.error.name, answer.error.message));
        else if (answer.header) onHeader((header = answer.header));
        else if (answer.part) onPart(answer.part);
        else end(resolve, { header, backend: answer.backend });
      });
      this.#worker.postMessage({ id, data, options });
    });
  }

  close() {
    this.#worker.terminate();
  }
}

let shared = null;

/** The decoder that the page's elements share. */
export const sharedDecoder = () => (shared ??= new YotoDecoder());
