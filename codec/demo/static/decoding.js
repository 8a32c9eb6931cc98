// Pictures to show: decoded here, by the decoder in web/ that the server may offer, or loaded as the server's PNG.

let decoder = null;
let warm = null; // the first decoding, for which model and runtime are loaded
let ready = false;

/** Load the decoder; without it, all is as before. */
export async function start() {
  try {
    const { YotoDecoder } = await import("./web/yoto.js");
    decoder = new YotoDecoder({ models: new URL("web/models/", location).href });
  } catch (error) {
    giveUp(error);
  }
}

/** Whether decoding here is as fast as it will be. */
export const possible = () => decoder !== null && ready;

/** Load what decoding a file needs, so that the next ones are fast; until then the server's pictures are shown. */
export function warmUp(read) {
  if (decoder === null || warm) return;
  const load = async () => {
    await decoder.decode(await read());
    ready = true;
  };
  warm = load().catch(giveUp);
}

function giveUp(error) {
  console.warn(`pictures are decoded by the server: ${error.message}`);
  decoder = null;
  return null;
}

/** Decode a file: { picture: a canvas, seconds, data }; null if this browser cannot, which then is not tried again. */
export async function decode(data, description, signal) {
  const canvas = document.createElement("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", description);
  let context = null;
  const onHeader = ({ width, height }) => {
    [canvas.width, canvas.height] = [width, height];
    context = canvas.getContext("2d");
  };
  const onPart = ({ pixels, width, height, left, top }) => {
    context.putImageData(new ImageData(pixels, width, height), left, top);
  };
  const begun = performance.now();
  try {
    await decoder.decode(data, { signal }, onHeader, onPart);
  } catch (error) {
    signal.throwIfAborted();
    return giveUp(error);
  }
  signal.throwIfAborted();
  return { picture: canvas, seconds: (performance.now() - begun) / 1000, data };
}

/** Load a picture of the server's. */
export async function loadImage(path, description, signal) {
  const image = new Image();
  image.alt = description;
  image.draggable = false;
  image.src = path;
  const stop = () => (image.src = "");
  signal.addEventListener("abort", stop);
  try {
    await image.decode();
  } catch {
    signal.throwIfAborted();
    throw new Error("the server sent no picture; try again");
  } finally {
    signal.removeEventListener("abort", stop);
  }
  signal.throwIfAborted();
  return image;
}
