// What `python -m training.browser` writes: the entropy model's integers, a safetensors file.

import { CodecError } from "./errors.js";

const ARRAYS = { I16: Int16Array, I32: Int32Array };

/** Config and tensors of a safetensors file. */
export function readTensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__: notes, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = {};
  for (const [name, { dtype, data_offsets: offsets }] of Object.entries(entries)) {
    const [first, last] = offsets.map((offset) => 8 + length + offset);
    tensors[name] = new ARRAYS[dtype](buffer.slice(first, last));
  }
  return { config: JSON.parse(notes.config), tensors };
}

/** Fetch a file, or throw what a user understands. */
export async function load(address, what) {
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    throw new CodecError("LoadError", `${what} cannot be fetched`);
  }
  if (!answer.ok) throw new CodecError("LoadError", `${what} cannot be fetched: status ${answer.status}`);
  return answer.arrayBuffer();
}
