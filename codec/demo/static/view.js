// The view: two pictures of one size, one over the other, cut at a divider; zoom, pan and loupe.

const DIVIDER_STEP = 0.02; // of the view's width, per press of an arrow key
const ZOOM_STEP = 1.5; // per press of a key or button
const MAX_SCALE = 32; // device pixels per pixel of the picture
const PAN_STEP_PX = 60;
const LOUPE_SCALE = 4; // times the view's, at least device pixels per pixel

const $ = (id) => document.getElementById(id);
const [view, stage, canvas, divider, loupe] = ["view", "stage", "canvas", "divider", "loupe"].map($);
const state = { width: 0, height: 0, fit: true, scale: 1, x: 0, y: 0, divider: 0.5, loupe: false, pointer: null };
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// What is shown

export function showPicture(width, height, transparent) {
  const same = width === state.width && height === state.height;
  Object.assign(state, { width, height });
  canvas.classList.toggle("transparent", transparent);
  if (same) place();
  else fit();
}

/** Fill a side, "left" or "right"; the left one is put away without a picture. */
export function show(side, picture) {
  $(side).replaceChildren(...(picture ? [picture] : []));
  divider.hidden = $("left").childElementCount === 0;
  place();
}

/** Lay a part over the right picture until that is shown anew. */
export function showPart({ x, y, width, height }, picture) {
  for (const old of document.querySelectorAll("#right .part")) old.remove();
  picture.className = "part";
  const share = (length, whole) => `${(100 * length) / whole}%`;
  Object.assign(picture.style, {
    left: share(x, state.width),
    top: share(y, state.height),
    width: share(width, state.width),
    height: share(height, state.height),
  });
  picture.region = { x, y, width, height };
  $("right").append(picture);
  drawLoupe();
}

/** What can be seen of the right picture, px, at most `side` wide and high, around the middle. */
export function visiblePart(side) {
  const cutAt = state.divider < 0.9 ? state.divider * view.clientWidth : 0; // where hardly any is seen: of both
  const [left, top] = [(cutAt - state.x) / state.scale, -state.y / state.scale];
  const span = (start, shown, whole) => {
    const [from, to] = [clamp(start, 0, whole - 1), clamp(start + shown, 1, whole)];
    const length = Math.max(1, Math.min(side, Math.ceil(to - from)));
    return [clamp(Math.round((from + to - length) / 2), 0, whole - length), length];
  };
  const [x, width] = span(left, (view.clientWidth - cutAt) / state.scale, state.width);
  const [y, height] = span(top, view.clientHeight / state.scale, state.height);
  return { x, y, width, height };
}

// Zoom and pan; `scale` is CSS pixels per pixel of the picture

const fitting = () => {
  const style = getComputedStyle(stage);
  const across = view.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  const down = view.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
  return Math.max(Math.min(across / state.width, down / state.height), 1e-4);
};

export function fit() {
  if (!state.width) return;
  state.fit = true;
  state.scale = fitting();
  place();
}

/** Zoom so that the point at (x, y) of the view stays. */
function zoom(scale, x = view.clientWidth / 2, y = view.clientHeight / 2) {
  if (!state.width) return;
  const next = clamp(scale, Math.min(fitting(), 1 / devicePixelRatio), MAX_SCALE / devicePixelRatio);
  state.x = x - ((x - state.x) * next) / state.scale;
  state.y = y - ((y - state.y) * next) / state.scale;
  state.scale = next;
  state.fit = false;
  place();
}

function pan(dx, dy) {
  state.x += dx;
  state.y += dy;
  state.fit = false;
  place();
}

function place() {
  const [width, height] = [state.width * state.scale, state.height * state.scale];
  // A side that has room is centred, one that has none covers the view.
  const held = (start, length, room) => (length <= room ? (room - length) / 2 : clamp(start, room - length, 0));
  state.x = held(state.x, width, view.clientWidth);
  state.y = held(state.y, height, view.clientHeight);
  Object.assign(canvas.style, {
    width: `${width}px`,
    height: `${height}px`,
    transform: `translate(${state.x}px, ${state.y}px)`,
  });
  const percent = 100 * state.scale * devicePixelRatio;
  canvas.classList.toggle("enlarged", percent >= 200);
  $("scale").textContent = `${percent.toFixed(percent < 10 ? 1 : 0)} %`;
  cut();
  drawLoupe();
}

// The left picture is cut where the divider stands, wherever the two are moved to.
function cut(fraction = state.divider) {
  const x = fraction * view.clientWidth;
  divider.style.left = `${x}px`;
  divider.setAttribute("aria-valuenow", Math.round(100 * fraction));
  const width = state.width * state.scale;
  $("left").style.clipPath = `inset(0 ${width - clamp(x - state.x, 0, width)}px 0 0)`;
}

function moveDivider(fraction) {
  state.divider = clamp(fraction, 0, 1);
  cut();
}

divider.addEventListener("pointerdown", (event) => {
  divider.setPointerCapture(event.pointerId);
  divider.focus({ focusVisible: false });
  event.preventDefault();
  event.stopPropagation();
});
divider.addEventListener("pointermove", (event) => {
  if (!divider.hasPointerCapture(event.pointerId)) return;
  const box = view.getBoundingClientRect();
  moveDivider((event.clientX - box.left) / box.width);
});
divider.addEventListener("keydown", (event) => {
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

// Pointers on the picture: one moves it (or the loupe, by touch), two zoom

const pointers = new Map();
const inView = (event) => {
  const box = view.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
};

stage.addEventListener("pointerdown", (event) => {
  if (event.button) return;
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, inView(event));
  if (event.pointerType === "touch") moveLoupe(event);
});
stage.addEventListener("pointermove", (event) => {
  if (event.pointerType !== "touch" || pointers.size === 1) moveLoupe(event);
  const before = pointers.get(event.pointerId);
  if (!before) return;
  const now = inView(event);
  pointers.set(event.pointerId, now);
  const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
  if (other) {
    const distance = (a, b) => Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
    zoom((state.scale * distance(now, other)) / distance(before, other), (now.x + other.x) / 2, (now.y + other.y) / 2);
    pan((now.x - before.x) / 2, (now.y - before.y) / 2);
  } else if (!(state.loupe && event.pointerType === "touch")) pan(now.x - before.x, now.y - before.y);
});
for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => pointers.delete(event.pointerId));
stage.addEventListener("pointerleave", () => {
  state.pointer = null;
  drawLoupe();
});
stage.addEventListener("dblclick", (event) => {
  if (state.fit) zoom(1 / devicePixelRatio, inView(event).x, inView(event).y);
  else fit();
});
view.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    const lines = event.deltaMode ? 16 : 1;
    const { x, y } = inView(event);
    zoom(state.scale * Math.exp((-event.deltaY * lines) / (event.ctrlKey ? 100 : 400)), x, y); // ctrl: a pinch
  },
  { passive: false },
);

// The loupe: the left picture in its left half, the right one in the other, both around the point under the pointer

function toggleLoupe(on = !state.loupe) {
  state.loupe = on;
  $("loupe-switch").setAttribute("aria-pressed", on);
  stage.classList.toggle("looking", on);
  if (on) state.pointer ??= { x: view.clientWidth / 2, y: view.clientHeight / 2, touch: false };
  drawLoupe();
}

function moveLoupe(event) {
  state.pointer = { ...inView(event), touch: event.pointerType === "touch" };
  drawLoupe();
}

function drawLoupe() {
  loupe.hidden = !(state.loupe && state.pointer && state.width);
  if (loupe.hidden) return;
  const { x, y, touch } = state.pointer;
  const side = loupe.clientWidth * devicePixelRatio;
  if (loupe.width !== side) [loupe.width, loupe.height] = [side, side];
  loupe.style.transform = `translate(${x}px, ${touch ? Math.max(y - 120, 0) : y}px) translate(-50%, -50%)`;
  const scale = Math.max(LOUPE_SCALE, LOUPE_SCALE * state.scale * devicePixelRatio); // device pixels per pixel
  const [u, v] = [(x - state.x) / state.scale, (y - state.y) / state.scale];
  const context = loupe.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.fillStyle = getComputedStyle(view).backgroundColor;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillRect(0, 0, side, side);
  const both = $("left").childElementCount > 0;
  for (const [name, from, to] of both ? [["left", 0, side / 2], ["right", side / 2, side]] : [["right", 0, side]]) {
    context.save();
    context.beginPath();
    context.rect(from, 0, to - from, side);
    context.clip();
    context.setTransform(scale, 0, 0, scale, (from + to) / 2 - u * scale, side / 2 - v * scale);
    for (const picture of $(name).children) {
      const part = picture.region ?? { x: 0, y: 0, width: state.width, height: state.height };
      context.drawImage(picture, part.x, part.y, part.width, part.height);
    }
    context.restore();
  }
  if (both) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#fff";
    context.fillRect(side / 2 - devicePixelRatio, 0, 2 * devicePixelRatio, side);
  }
}

// Buttons and keys

$("fit").addEventListener("click", fit);
$("actual").addEventListener("click", () => zoom(1 / devicePixelRatio));
$("closer").addEventListener("click", () => zoom(state.scale * ZOOM_STEP));
$("farther").addEventListener("click", () => zoom(state.scale / ZOOM_STEP));
$("loupe-switch").addEventListener("click", () => toggleLoupe());

const KEYS = {
  "+": () => zoom(state.scale * ZOOM_STEP),
  "=": () => zoom(state.scale * ZOOM_STEP),
  "-": () => zoom(state.scale / ZOOM_STEP),
  0: fit,
  1: () => zoom(1 / devicePixelRatio),
  l: () => toggleLoupe(),
};
const PANS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const idle = () => document.activeElement === document.body || document.activeElement === stage;

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (key in KEYS) KEYS[key]();
  else if (event.key in PANS && idle()) pan(...PANS[event.key].map((way) => way * PAN_STEP_PX));
  else if (event.key === " " && idle()) cut(1); // the left picture alone, as long as the key is held
  else if (event.key === "Escape") toggleLoupe(false);
  else return;
  if (event.key !== "Escape") event.preventDefault();
});
addEventListener("keyup", (event) => event.key === " " && cut());
addEventListener("blur", () => cut());
new ResizeObserver(() => (state.fit ? fit() : place())).observe(view);
