// Decodes one file after the other, and says what comes of it: { id, header }, { id, part } …, then { id, done }, or
// { id, error }.

import { Decoder, Models } from "./decoder.js";

const KERNEL = new URL("../vendor/kernel.wasm", import.meta.url).href;
let models = null;
const stopped = new Set();

async function decode(id, data, options) {
  const decoder = await Decoder.open(data, models, options);
  postMessage({ id, header: decoder.header });
  for await (const part of decoder.parts(options)) {
    if (stopped.has(id)) return;
    postMessage({ id, part }, [part.pixels.buffer]);
    await new Promise((resolve) => setTimeout(resolve)); // lets a stop come in
  }
  postMessage({ id, done: true, backend: (await decoder.synthesis)?.provider ?? "none" });
}

let last = Promise.resolve();
onmessage = ({ data: { id, data, options, configure, stop } }) => {
  if (configure) models = new Models(configure.models, KERNEL, configure);
  else if (stop) stopped.add(stop);
  else {
    last = last
      .then(() => (stopped.has(id) ? null : decode(id, data, options)))
      .catch(({ name, message }) => postMessage({ id, error: { name, message } }))
      .finally(() => stopped.delete(id));
  }
};
