// Decodes one file after the other, and says what comes of it: { id, header }, which the page answers by { id, first },
// { id, part } …, then { id, done }, or { id, error }. A file comes as { id, data }, or as { id, chunk } … { id, end }.

import { Decoder, Models } from "./decoder.js";
import { Source } from "./source.js";

const KERNEL = new URL("../vendor/kernel.wasm", import.meta.url).href;
let models = null;
const jobs = new Map();

/** A file that is decoded or waits for it. */
class Job {
  stopped = false;

  constructor({ id, data, options }) {
    Object.assign(this, { id, options });
    this.source = data ? Source.of(data) : new Source();
    this.first = new Promise((resolve) => (this.begin = resolve));
  }

  async run() {
    if (this.stopped) return;
    const decoder = await Decoder.open(this.source, models, this.options);
    this.tell({ header: decoder.header });
    const first = await this.first;
    for await (const part of decoder.parts({ ...this.options, first })) {
      if (this.stopped) return;
      this.tell({ part }, [part.pixels.buffer]);
      await new Promise((resolve) => setTimeout(resolve)); // lets a stop come in
    }
    this.tell({ done: true, backend: (await decoder.synthesis)?.provider ?? "none" });
  }

  stop() {
    this.stopped = true;
    this.begin(null);
    this.source.end("withdrawn");
  }

  tell(what, transferred = []) {
    if (!this.stopped) postMessage({ id: this.id, ...what }, transferred);
  }
}

let last = Promise.resolve();
onmessage = ({ data: message }) => {
  const job = jobs.get(message.id);
  if (message.configure) models = new Models(message.configure.models, KERNEL, message.configure);
  else if (message.options) {
    const added = new Job(message);
    jobs.set(message.id, added);
    last = last
      .then(() => added.run())
      .catch(({ name, message: text }) => added.tell({ error: { name, message: text } }))
      .finally(() => jobs.delete(message.id));
  } else if (message.stop) job?.stop();
  else if (message.chunk) job?.source.push(message.chunk);
  else if (message.end) job?.source.end(message.failure);
  else job?.begin(message.first);
};
