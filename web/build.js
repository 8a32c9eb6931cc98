// Fills vendor/: the kernel, compiled, and what of ONNX Runtime a browser loads. `npm ci && npm run build`

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

const RUNTIME = [
  "ort.wasm.min.mjs",
  "ort-wasm-simd-threaded.mjs",
  "ort-wasm-simd-threaded.wasm",
  "ort.webgpu.min.mjs",
  "ort-wasm-simd-threaded.asyncify.mjs",
  "ort-wasm-simd-threaded.asyncify.wasm",
];

process.chdir(fileURLToPath(new URL(".", import.meta.url)));
mkdirSync("vendor", { recursive: true });
for (const name of RUNTIME) copyFileSync(`node_modules/onnxruntime-web/dist/${name}`, `vendor/${name}`);
execFileSync("node_modules/.bin/asc", [
  "decoder/kernel.ts",
  ...["--outFile", "vendor/kernel.wasm", "-O3", "--enable", "simd"],
  ...["--runtime", "stub", "--noAssert", "--use", "abort="],
]);
