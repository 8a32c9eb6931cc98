// The viewer: shows a file that is dropped, chosen, or named by ?src=.

import "./yoto-image.js";

const part = (id) => document.getElementById(id);
const seconds = (start) => `${((performance.now() - start) / 1000).toFixed(2)} s`;
let opened = 0;

/** Show what `read` gives, bytes or a stream; the old picture stays if that fails before there is a new one. */
async function show(name, read) {
  const number = ++opened;
  part("error").hidden = true;
  part("status").textContent = `${name} …`;
  const view = document.createElement("yoto-image");
  view.setAttribute("alt", name);
  view.setAttribute("exportparts", "canvas");
  try {
    const data = await read();
    if (number !== opened) return;
    const start = performance.now();
    let first = "";
    view.addEventListener("part", () => (first ||= seconds(start)));
    view.addEventListener("header", () => part("view").replaceChildren(view));
    const { header, backend } = await view.open(data);
    if (number !== opened) return;
    const kind = `${header.colour ? "colour" : "grey"}${header.alpha ? " with alpha" : ""}`;
    const quality = header.lossless ? "lossless" : `quality ${(header.quality / 4096).toFixed(3)}`;
    part("status").textContent =
      `${name} · ${header.width} × ${header.height} px · ${kind} · ${quality} · ` +
      `${header.sizeBytes.toLocaleString("en")} bytes · first part after ${first}, ` +
      `all after ${seconds(start)} (${backend})`;
  } catch (error) {
    if (number !== opened || error.name === "AbortError") return;
    part("status").textContent = "";
    part("error").textContent = `“${name}”: ${error.message}`;
    part("error").hidden = false;
  }
}

const showFile = (file) => show(file.name, async () => new Uint8Array(await file.arrayBuffer()));

function showAddress(address) {
  const name = new URL(address, location).pathname.split("/").pop() || address;
  show(name, async () => {
    const answer = await fetch(address).catch(() => {
      throw new Error("it cannot be fetched");
    });
    if (!answer.ok) throw new Error(`it cannot be fetched: status ${answer.status}`);
    return answer.body;
  });
}

part("file").addEventListener("change", ({ target }) => {
  if (target.files.length) showFile(target.files[0]);
  target.value = "";
});
part("link").addEventListener("submit", (event) => {
  event.preventDefault();
  showAddress(part("address").value);
});
part("full").addEventListener("change", ({ target }) => part("view").classList.toggle("full", target.checked));
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) showFile(event.dataTransfer.files[0]);
  });
}
const linked = new URLSearchParams(location.search).get("src");
if (linked) showAddress(linked);
