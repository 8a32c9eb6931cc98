// The page: one picture, uploaded once; what the slider asks for is fetched, and answers that come too late are dropped.

const SLIDER_PAUSE_MS = 80; // as long as the slider moves faster than this, nothing is asked for
const DIVIDER_STEP = 0.02; // of the view's width, per press of an arrow key
const PEER_NAMES = { jpeg: "JPEG", webp: "WebP", avif: "AVIF" };

const $ = (id) => document.getElementById(id);
const state = { about: null, picture: null, divider: 0.5, request: new AbortController(), timer: 0 };

// Words for numbers

const count = new Intl.NumberFormat("en");
const grouped = (value) => count.format(value);
const decibels = (value) => (value === null ? "lossless" : `${value.toFixed(2)} dB`);

function size(bytes) {
  if (bytes < 1000) return [grouped(bytes), "B"];
  return bytes < 1e6 ? [(bytes / 1e3).toPrecision(bytes < 1e5 ? 3 : 4).replace(/\.$/, ""), "kB"] : [(bytes / 1e6).toFixed(2), "MB"];
}

function setFigure(id, value, unit) {
  const small = document.createElement("small");
  small.textContent = unit ? ` ${unit}` : "";
  $(id).replaceChildren(value, small);
}

// Talking to the server

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is it still running?");
  }
  const answer = await response.json();
  if (!response.ok) {
    const error = new Error(answer.error);
    error.status = response.status;
    throw error;
  }
  return answer;
}

const address = (what, form) => `pictures/${state.picture.id}/${what}?quality=${$("quality").value}&form=${form}`;

async function loadImage(path, description, signal) {
  const image = new Image();
  image.alt = description;
  image.draggable = false;
  image.src = path;
  await image.decode();
  signal.throwIfAborted();
  return image;
}

function showError(error) {
  if (error.name === "AbortError") return;
  const text = error.message;
  $("error").firstElementChild.textContent = `${text[0].toUpperCase()}${text.slice(1)}.`;
  $("error").hidden = false;
}

const hideError = () => ($("error").hidden = true);

// Opening a picture

async function openFile(file) {
  await open(file.name, () => {
    const limit = state.about.max_bytes; // the server says so too, but cuts the connection before it has all of the file
    if (file.size > limit) throw new Error(`the file has ${size(file.size).join(" ")}, the limit is ${size(limit).join(" ")}`);
    return ask("pictures", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
  });
}

const openSample = () => open("astronaut (sample)", () => ask("sample", { method: "POST" }));

// `upload` gives the server the picture; it is kept, to give it again should the server have forgotten it.
async function open(name, upload) {
  const signal = restart();
  hideError();
  $("busy").hidden = false;
  try {
    const picture = await upload();
    signal.throwIfAborted();
    const original = await loadImage(`pictures/${picture.id}/original.png`, "Original", signal);
    Object.assign(state, { picture, name, upload, original });
    showPicture();
    if (picture.yoto) showFile();
    else await recode(signal);
  } catch (error) {
    if (signal.aborted) return;
    showError(new Error(`“${name}”: ${error.message}`));
    if (state.picture && !state.picture.yoto) changed(); // what this interrupted
  } finally {
    if (!signal.aborted) $("busy").hidden = true;
  }
}

function showPicture() {
  const { picture, name, original } = state;
  $("source").textContent = `${name} · ${picture.width} × ${picture.height} px · ${size(picture.bytes).join(" ")}`;
  document.title = `${name} – yoto-codec`;
  for (const part of document.querySelectorAll("#coding, #comparing")) part.hidden = Boolean(picture.yoto);
  $("quality").disabled = Boolean(picture.yoto);
  $("canvas").classList.toggle("transparent", picture.alpha);
  $("right").replaceChildren(original);
  $("left").replaceChildren();
  for (const part of ["divider", "left-name", "right-name", "download"]) $(part).hidden = Boolean(picture.yoto);
  $("third").textContent = picture.yoto ? "Quality" : "PSNR";
  layOut();
}

function showFile() {
  const { picture, name } = state;
  setFigure("bytes", ...size(picture.bytes));
  setFigure("bpp", picture.yoto.bpp.toFixed(3), "bpp");
  setFigure("psnr", picture.yoto.quality.toFixed(3));
  $("ratio").textContent = "Decoded from this file. Open a picture to code it.";
  setDownload("download-png", `pictures/${picture.id}/original.png`, "png");
}

// Coding it

function restart() {
  clearTimeout(state.timer);
  state.request.abort();
  state.request = new AbortController();
  return state.request.signal;
}

function changed() {
  if (!state.picture) return;
  const signal = restart();
  $("quality-value").textContent = Number($("quality").value).toFixed(3);
  $("figures").classList.add("stale");
  $("table").classList.add("stale");
  state.timer = setTimeout(async () => {
    $("busy").hidden = false;
    try {
      await recode(signal);
    } catch (error) {
      showError(error);
    } finally {
      if (!signal.aborted) $("busy").hidden = true;
    }
  }, SLIDER_PAUSE_MS);
}

async function recode(signal) {
  try {
    await code(signal);
  } catch (error) {
    if (error.status !== 404) throw error;
    await state.upload();
    signal.throwIfAborted();
    await code(signal);
  }
}

async function code(signal) {
  const against = document.querySelector("[name=against]:checked").value;
  const ours = await ask(address("encode", "yoto"), { signal });
  const decoded = await loadImage(address("decoded.png", "yoto"), "Decoded from the .yoto file", signal);
  showOurs(ours, decoded);
  if (against === "original") {
    showSides("Original", ours, state.original);
    $("table").hidden = true;
    $("verdict").textContent = "";
    return;
  }
  const peer = await ask(address("encode", against), { signal });
  const image = await loadImage(address("decoded.png", against), `Decoded from ${PEER_NAMES[against]}`, signal);
  showSides(`${PEER_NAMES[against]} · ${decibels(peer.psnr_db)}`, ours, image);
  showPeer(PEER_NAMES[against], ours, peer);
}

function showOurs(ours, decoded) {
  const { width, height, alpha } = state.picture;
  $("right").replaceChildren(decoded);
  setFigure("bytes", ...size(ours.bytes));
  setFigure("bpp", ours.bpp.toFixed(3), "bpp");
  setFigure("psnr", ...decibels(ours.psnr_db).split(" "));
  const times = (3 + alpha) * width * height / ours.bytes;
  $("ratio").textContent = `${grouped(ours.bytes)} bytes, ${times.toFixed(times < 10 ? 1 : 0)} times smaller than raw.`;
  $("figures").classList.remove("stale");
  setDownload("download", address("file", "yoto"), "yoto");
  setDownload("download-png", address("decoded.png", "yoto"), "png");
}

function showSides(leftName, ours, left) {
  $("left").replaceChildren(left);
  $("left-name").textContent = leftName;
  $("right-name").textContent = `yoto · ${decibels(ours.psnr_db)}`;
  cut();
}

function showPeer(name, ours, peer) {
  const rows = $("table").tBodies[0].rows;
  $("peer").cells[0].textContent = `${name}, quality ${peer.quality}`;
  for (const [row, figures] of [[rows[0], ours], [rows[1], peer]]) {
    row.cells[1].textContent = grouped(figures.colour_bytes);
    row.cells[2].textContent = (8 * figures.colour_bytes / state.picture.width / state.picture.height).toFixed(3);
    row.cells[3].textContent = decibels(figures.psnr_db);
  }
  $("table").hidden = false;
  $("table").classList.remove("stale");
  const gain = ours.psnr_db === null || peer.psnr_db === null ? null : ours.psnr_db - peer.psnr_db;
  const sign = gain < 0 ? "below" : "above";
  let verdict = gain === null ? "" : `yoto is ${Math.abs(gain).toFixed(2)} dB ${sign} ${name}.`;
  if (!peer.fits) verdict = `${name} has no file this small: its smallest is shown. ${verdict}`;
  if (ours.colour_bytes < ours.bytes) verdict += " Alpha and metadata are not counted.";
  $("verdict").textContent = verdict;
  $("verdict").classList.toggle("ahead", gain > 0);
}

function setDownload(id, path, suffix) {
  $(id).href = path;
  $(id).download = `${state.name.replace(/ \(sample\)$|\.[^.]*$/, "")}.${suffix}`;
}

// The view: zoom and divider

function layOut() {
  if (!state.picture) return;
  const { width, height } = state.picture;
  const zoom = document.querySelector("[name=zoom]:checked").value;
  const style = getComputedStyle($("scroller"));
  const room = [
    $("view").clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight),
    $("view").clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom),
  ];
  const scale = zoom === "fit" ? Math.min(room[0] / width, room[1] / height) : Number(zoom) / devicePixelRatio;
  $("canvas").style.width = `${Math.max(1, Math.floor(width * scale))}px`;
  $("canvas").style.height = `${Math.max(1, Math.floor(height * scale))}px`;
  $("canvas").classList.toggle("enlarged", scale * devicePixelRatio >= 2);
  cut();
}

// The left picture is cut where the divider stands, wherever the two are scrolled to.
function cut() {
  const x = state.divider * $("view").clientWidth;
  $("divider").style.left = `${x}px`;
  $("divider").setAttribute("aria-valuenow", Math.round(100 * state.divider));
  const box = $("canvas").getBoundingClientRect();
  const kept = Math.min(box.width, Math.max(0, x + $("view").getBoundingClientRect().left - box.left));
  $("left").style.clipPath = `inset(0 ${box.width - kept}px 0 0)`;
}

function moveDivider(fraction) {
  state.divider = Math.min(1, Math.max(0, fraction));
  cut();
}

$("divider").addEventListener("pointerdown", (event) => {
  $("divider").setPointerCapture(event.pointerId);
  $("divider").focus({ focusVisible: false });
  event.preventDefault();
});
$("divider").addEventListener("pointermove", (event) => {
  if (!$("divider").hasPointerCapture(event.pointerId)) return;
  const box = $("view").getBoundingClientRect();
  moveDivider((event.clientX - box.left) / box.width);
});
$("divider").addEventListener("keydown", (event) => {
  const positions = {
    ArrowLeft: state.divider - DIVIDER_STEP,
    ArrowDown: state.divider - DIVIDER_STEP,
    ArrowRight: state.divider + DIVIDER_STEP,
    ArrowUp: state.divider + DIVIDER_STEP,
    PageDown: state.divider - 5 * DIVIDER_STEP,
    PageUp: state.divider + 5 * DIVIDER_STEP,
    Home: 0,
    End: 1,
  };
  if (!(event.key in positions)) return;
  moveDivider(positions[event.key]);
  event.preventDefault();
});
$("scroller").addEventListener("scroll", cut);
$("zoom").addEventListener("change", layOut);
new ResizeObserver(layOut).observe($("view"));

// What the user does

for (const [id, event] of [["quality", "input"], ["against", "change"]]) {
  $(id).addEventListener(event, () => {
    hideError();
    changed();
  });
}
$("sample").addEventListener("click", openSample);
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) openFile($("file").files[0]);
  $("file").value = ""; // so that the same file can be opened again
});
$("error").lastElementChild.addEventListener("click", hideError);

let depth = 0; // dragenter and dragleave come for every element on the way
const dragsFile = (event) => event.dataTransfer.types.includes("Files");
addEventListener("dragenter", (event) => dragsFile(event) && ($("drop").hidden = ++depth === 0));
addEventListener("dragleave", (event) => dragsFile(event) && ($("drop").hidden = --depth === 0));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  $("drop").hidden = true;
  if (state.about && event.dataTransfer.files.length) openFile(event.dataTransfer.files[0]);
});

async function start() {
  try {
    state.about = await ask("about");
    for (const id of ["sample", "open"]) $(id).disabled = false;
    for (const input of document.querySelectorAll("#against input")) {
      input.disabled = input.value !== "original" && !state.about.peers.includes(input.value);
    }
    await openSample();
  } catch (error) {
    showError(error);
  }
}

start();
