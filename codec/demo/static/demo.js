// The page: one picture, uploaded once; what the slider asks for is fetched, and answers that come too late are dropped.

import * as decoding from "./decoding.js";
import * as view from "./view.js";

const SLIDER_PAUSE_MS = 80; // as long as the slider moves faster than this, nothing is asked for
const QUALITY_STEP = 0.02; // per press of a key
const PREVIEW_FROM_PX = 1_000_000; // larger pictures show the visible part first
const PREVIEW_SIDE_PX = 448; // of that part, at most: about a quarter of a second
const EQUAL = 0.02; // sizes that differ by more are no fair comparison
const PEER_NAMES = { jpeg: "JPEG", webp: "WebP", avif: "AVIF", jpegxl: "JPEG XL", heic: "HEIC" };

const $ = (id) => document.getElementById(id);
const chosen = (name) => document.querySelector(`[name=${name}]:checked`).value;
const state = { about: null, picture: null, file: undefined, request: new AbortController(), timer: 0 };

// Words for numbers

const count = new Intl.NumberFormat("en");
const grouped = (value) => count.format(value);
const decibels = (value) => (value === null ? "lossless" : `${value.toFixed(2)} dB`);
const similarity = { "ms-ssim": (value) => value?.toFixed(4) ?? "–", ssimulacra2: (value) => value?.toFixed(1) ?? "–" };
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

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

async function send(path, options) {
  const response = await fetch(path, options).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("the server does not answer; is it still running?");
  });
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({ error: "the server is busy; try again in a moment" }));
  throw Object.assign(new Error(answer.error), { status: response.status });
}

const ask = async (path, options) => (await send(path, options)).json();
const askBytes = async (path, options) => new Uint8Array(await (await send(path, options)).arrayBuffer());

/** Where a file's figures, its picture or itself are; `setting` adds to quality and effort. */
function address(what, setting = {}) {
  const query = new URLSearchParams({ quality: $("quality").value, effort: chosen("effort"), ...setting });
  return `pictures/${state.picture.id}/${what}?${query}`;
}

/** What a file decodes to, decoded here if that can be: { picture, seconds, data }, the last two only then. */
async function decoded(setting, description, signal) {
  const path = address("file", setting);
  if (decoding.possible() && !state.picture.profile) {
    const file = await decoding.decode(await askBytes(path, { signal }), description, signal);
    if (file) return file;
  } else decoding.warmUp(() => askBytes(path));
  return { picture: await decoding.loadImage(address("decoded.png", setting), description, signal) };
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
    const original = await decoding.loadImage(`pictures/${picture.id}/original.png`, "Original", signal);
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
  const viewed = Boolean(picture.yoto);
  $("source").textContent = `${name} · ${picture.width} × ${picture.height} px · ${size(picture.bytes).join(" ")}`;
  document.title = `${name} – yoto-codec`;
  for (const part of document.querySelectorAll("#coding, #comparing, .coded, .name, #download")) part.hidden = viewed;
  $("quality").disabled = viewed;
  $("third").textContent = viewed ? "Quality" : "PSNR";
  $("left-name").textContent = "Original";
  $("right-name").textContent = "yoto";
  view.show("left", viewed ? null : original);
  view.show("right", viewed ? original : original.cloneNode());
  view.showPicture(picture.width, picture.height, picture.alpha);
}

function showFile() {
  const { picture } = state;
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
  $("duel").classList.add("stale");
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
  const { width, height } = state.picture;
  if (width * height > PREVIEW_FROM_PX) await preview(signal);
  const ours = await ask(address("encode"), { signal });
  const file = await decoded({}, "Decoded from the .yoto file", signal);
  showOurs(ours, file);
  showSides(["Original", state.original], [`yoto · ${decibels(ours.psnr_db)}`, file.picture]);
  const against = chosen("against");
  if (against === "original") {
    $("duel").hidden = true;
    judge([{}], signal);
  } else await duel(against, signal);
}

// Much of a picture is not needed to see what a quality does.
async function preview(signal) {
  const part = view.visiblePart(PREVIEW_SIDE_PX);
  const region = `${part.x},${part.y},${part.width},${part.height}`;
  const figures = await ask(address("encode", { region }), { signal });
  const { picture } = await decoded({ region }, "A part, decoded", signal);
  view.showPart(part, picture);
  $("right-name").textContent = "yoto · a part";
  const [value, unit] = size((figures.bpp * state.picture.width * state.picture.height) / 8);
  setFigure("bytes", `≈${value}`, unit);
  setFigure("bpp", `≈${figures.bpp.toFixed(2)}`, "bpp");
  setFigure("psnr", ...decibels(figures.psnr_db).split(" "));
  $("ratio").textContent = "The outlined part; the whole follows.";
}

function showOurs(ours, { seconds, data }) {
  const { width, height, alpha, bytes, sample } = state.picture;
  setFigure("bytes", ...size(ours.bytes));
  setFigure("bpp", ours.bpp.toFixed(3), "bpp");
  setFigure("psnr", ...decibels(ours.psnr_db).split(" "));
  const saved = 1 - ours.bytes / bytes;
  setFigure("saved", sample ? "–" : saved < 0 ? `−${percent(-saved)}` : percent(saved));
  for (const id of Object.keys(similarity)) setFigure(id, "…");
  const times = ((3 + alpha) * width * height) / ours.bytes;
  const upload = sample ? "" : `; the upload has ${grouped(bytes)}`;
  const here = seconds ? ` Decoded in this browser in ${seconds.toFixed(2)} s.` : "";
  $("ratio").textContent =
    `${grouped(ours.bytes)} bytes${upload}. ${times.toFixed(times < 10 ? 1 : 0)} times smaller than raw.${here}`;
  $("figures").classList.remove("stale");
  if (state.file) URL.revokeObjectURL(state.file);
  state.file = data && URL.createObjectURL(new Blob([data], { type: "image/x-yoto" }));
  setDownload("download", state.file ?? address("file"), "yoto");
  setDownload("download-png", address("decoded.png"), "png");
}

function showSides([leftName, left], [rightName, right]) {
  view.show("left", left);
  view.show("right", right);
  $("left-name").textContent = leftName;
  $("right-name").textContent = rightName;
}

/** A format's file that is nearest in size, and ours made as large as that. */
async function duel(peer, signal) {
  const name = PEER_NAMES[peer];
  const settings = [{ against: peer }, { form: peer }];
  const theirs = await ask(address("encode", settings[1]), { signal });
  const ours = await ask(address("encode", settings[0]), { signal });
  const left = await decoding.loadImage(address("decoded.png", settings[1]), `Decoded from ${name}`, signal);
  const { picture: right } = await decoded(settings[0], "Decoded from a .yoto file of as many bytes", signal);
  showSides([`${name} · ${decibels(theirs.psnr_db)}`, left], [`yoto · ${decibels(ours.psnr_db)}`, right]);
  showDuel(name, ours, theirs);
  judge([{}, ...settings], signal);
}

function showDuel(name, ours, theirs) {
  $("peer").textContent = name;
  for (const [column, figures] of [[1, ours], [2, theirs]]) {
    $("duel-bytes").cells[column].textContent = grouped(figures.colour_bytes);
    $("duel-psnr").cells[column].textContent = decibels(figures.psnr_db);
    for (const id of Object.keys(similarity)) $(`duel-${id}`).cells[column].textContent = "…";
  }
  for (const id of Object.keys(similarity)) markBest(`duel-${id}`, []);
  $("duel").hidden = false;
  $("duel").classList.remove("stale");
  const gain = ours.psnr_db === null || theirs.psnr_db === null ? null : ours.psnr_db - theirs.psnr_db;
  const apart = ours.colour_bytes / theirs.colour_bytes - 1;
  const fair = Math.abs(apart) <= EQUAL;
  let verdict = gain === null ? "" : `yoto is ${Math.abs(gain).toFixed(2)} dB ${gain < 0 ? "below" : "above"} ${name}.`;
  if (!fair) verdict = `No two files of equal size: yoto’s has ${percent(Math.abs(apart))} ${apart < 0 ? "fewer" : "more"} bytes.`;
  $("verdict").textContent = verdict;
  markBest("duel-psnr", [ours.psnr_db ?? Infinity, theirs.psnr_db ?? Infinity]);
  const whole = state.picture.alpha ? " Alpha is not counted." : "";
  $("terms").textContent =
    `${theirs.encoder}, quality ${theirs.quality}: its size nearest to the file above. ` +
    `${ours.encoder}, quality ${ours.quality.toFixed(3)}: made as large.${whole}`;
}

/** Make the better of two values of a row, ours and theirs, stand out. */
function markBest(row, [ours, theirs]) {
  $(row).cells[1].classList.toggle("best", ours > theirs);
  $(row).cells[2].classList.toggle("best", theirs > ours);
}

/** Fill in, one after the other, what takes longer: of the file, and of the two compared. Nothing waits for it. */
async function judge(settings, signal) {
  const values = Object.fromEntries(Object.keys(similarity).map((id) => [id, []]));
  for (const [column, setting] of settings.entries()) {
    const found = await ask(address("metrics", setting), { signal }).catch(() => ({}));
    if (signal.aborted) return;
    for (const [id, words] of Object.entries(similarity)) {
      const value = found[id.replace("-", "_")];
      if (column) {
        $(`duel-${id}`).cells[column].textContent = words(value);
        values[id].push(value);
        markBest(`duel-${id}`, values[id]);
      } else setFigure(id, words(value));
    }
  }
}

function setDownload(id, path, suffix) {
  $(id).href = path;
  $(id).download = `${state.name.replace(/ \(sample\)$|\.[^.]*$/, "")}.${suffix}`;
}

// What the user does

for (const [id, event] of [["quality", "input"], ["effort", "change"], ["against", "change"]]) {
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
addEventListener("paste", ({ clipboardData }) => {
  if (state.about && clipboardData.files.length) openFile(clipboardData.files[0]);
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { "[": -QUALITY_STEP, "]": QUALITY_STEP }[event.key];
  if (step && !$("quality").disabled) {
    $("quality").value = Number($("quality").value) + step;
    $("quality").dispatchEvent(new Event("input"));
  } else if (event.key.toLowerCase() === "o" && !$("open").disabled) $("file").click();
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
  const { request } = state;
  try {
    state.about = await ask("about");
    if (state.about.decoder) await decoding.start();
    for (const id of ["sample", "open"]) $(id).disabled = false;
    for (const input of document.querySelectorAll("#against input")) {
      input.disabled = input.value !== "original" && !state.about.peers.includes(input.value);
    }
    if (state.request === request) await openSample(); // else something was dropped or pasted in the meantime
  } catch (error) {
    showError(error);
  }
}

start();
