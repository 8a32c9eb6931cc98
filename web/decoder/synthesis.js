// g_s in ONNX Runtime: on the GPU where the browser has WebGPU, else in WebAssembly. Pixels need not be exact.

const VENDOR = new URL("../vendor/", import.meta.url).href;

/** Whether there is a GPU; one that software plays ("fallback") is slower than WebAssembly. */
async function hasGpu(software) {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    const fallback = adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter;
    return Boolean(adapter) && (software || !fallback);
  } catch {
    return false;
  }
}

export class Synthesis {
  /** `graph` is the ONNX file; `gpu` may be true, false, or "software" for tests. */
  static async create(graph, { gpu = true } = {}) {
    if (gpu && (await hasGpu(gpu === "software"))) {
      try {
        return await Synthesis.#with("webgpu", graph);
      } catch (error) {
        console.warn(`WebGPU cannot be used: ${error.message}`);
      }
    }
    return Synthesis.#with("wasm", graph);
  }

  static async #with(provider, graph) {
    const runtime = await import(`${VENDOR}ort.${provider}.min.mjs`);
    runtime.env.wasm.wasmPaths = VENDOR;
    runtime.env.wasm.numThreads = globalThis.crossOriginIsolated ? navigator.hardwareConcurrency : 1;
    runtime.env.logLevel = "error";
    const session = await runtime.InferenceSession.create(graph.slice(0), { executionProviders: [provider] });
    const synthesis = new Synthesis(runtime, session, provider);
    await synthesis.run(new Float32Array(16 * synthesis.channels), 4, 4, 0); // what is compiled late is compiled
    return synthesis;
  }

  constructor(runtime, session, provider) {
    Object.assign(this, { runtime, session, provider });
    this.channels = session.inputMetadata[0].shape[2];
  }

  /** Pixels, Float32Array (16h, 16w, 3), about [0, 1], of latents (h, w, M) in quantiser steps. */
  async run(yHat, h, w, quality) {
    const { Tensor } = this.runtime;
    const feeds = {
      y_hat: new Tensor("float32", yHat, [h, w, this.channels]),
      condition: new Tensor("float32", [(2 * quality) / 4096 - 1], [1, 1]),
    };
    const { pixels } = await this.session.run(feeds);
    return pixels.getData();
  }
}
