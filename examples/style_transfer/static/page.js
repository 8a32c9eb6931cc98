// One request at a time; whatever moved meanwhile is in the next.
const SIDE = 256;
const SLIDERS = {
  content: ["Content", 0.3],
  style1: ["Style: colours and grain (relu1_2)", 0.7],
  style2: ["Style: lines (relu2_2)", 0.7],
  style3: ["Style: strokes (relu3_3)", 0.7],
  style4: ["Style: figures (relu4_3)", 0.7],
  blend: ["The Great Wave … Village Street in Auvers", 0],
};
const element = (id) => document.getElementById(id);
const inputs = {};
let picture = null;
let busy = false;
let again = false;

for (const [name, [label, value]] of Object.entries(SLIDERS)) {
  const input = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 1, step: 0.01, value });
  const line = document.createElement("label");
  line.append(input, ` ${label}`);
  element("sliders").append(line, document.createElement("br"));
  input.addEventListener("input", update);
  inputs[name] = input;
}

element("file").addEventListener("change", async (event) => {
  try {
    const bitmap = await createImageBitmap(event.target.files[0]);
    const scale = SIDE / Math.max(bitmap.width, bitmap.height);
    const canvas = element("before");
    canvas.width = Math.max(8, Math.round(bitmap.width * scale));
    canvas.height = Math.max(8, Math.round(bitmap.height * scale));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    picture = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    update();
  } catch (error) {
    element("status").textContent = `This cannot be opened: ${error.message}`;
  }
});

async function update() {
  if (!picture) return;
  again = true;
  if (busy) return;
  busy = true;
  try {
    while (again) {
      again = false;
      const start = performance.now();
      const query = new URLSearchParams(Object.entries(inputs).map(([name, input]) => [name, input.value]));
      const response = await fetch(`/stylise?${query}`, { method: "POST", body: picture });
      if (!response.ok) throw new Error(await response.text());
      const bitmap = await createImageBitmap(await response.blob());
      const canvas = element("after");
      canvas.width = bitmap.width;
      canvas.height = bitmap.height;
      canvas.getContext("2d").drawImage(bitmap, 0, 0);
      element("status").textContent = `${Math.round(performance.now() - start)} ms`;
    }
  } catch (error) {
    element("status").textContent = error.message;
  } finally {
    busy = false;
  }
}
