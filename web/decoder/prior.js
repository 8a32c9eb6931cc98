// The entropy model in integers: codec/format/SPECIFICATION.md. Its layers run in kernel.wasm, on float32 that carries
// the integers exactly; what lies between them is float64 here.

import { crc32 } from "./crc32.js";
import { CodecError, corrupt } from "./errors.js";
import { Kernel } from "./kernel.js";
import { SymbolDecoder, SymbolTables } from "./symbols.js";

const PASSES = 4;
const QUALITY_MAX = 4096;
const A = 1023; // limit of activations
const MEAN_LIMIT = 8192;
const LATENT_LIMIT = 1 << 14;
const Z_LIMIT = 127;
const DENSE = ["h_s.up1", "h_s.up2", "h_s.out", "embed"];
const DEPTHWISE = ["h_s.spatial1", "h_s.spatial2"];
for (let k = 0; k < PASSES; k++) {
  DENSE.push(`passes.${k}.mix`, `passes.${k}.hidden`);
  DEPTHWISE.push(`passes.${k}.spatial`);
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** A model's entropy half: tables, and layers at the quality that was used last. */
export class Prior {
  static async create({ config, tensors }, kernelBytes) {
    return new Prior(config, tensors, await Kernel.create(kernelBytes));
  }

  constructor(config, tensors, kernel) {
    this.config = config;
    this.tensors = tensors;
    this.kernel = kernel;
    this.tables = new SymbolTables(tensors["tables.radii"], tensors["tables.frequencies"]);
    this.magnitudes = magnitudeTable();
  }

  /** y_hat of a tile, Int16Array (h, w, M), checked against its CRC. */
  decode(stream, { h, w, quality, crc, name }) {
    try {
      this.#setQuality(quality);
      return this.#decode(new SymbolDecoder(stream, this.tables), h, w, crc, name);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new CodecError("TooLargeError", `there is no memory for ${name}`);
    }
  }

  #decode(symbols, h, w, crc, name) {
    const { Z, M } = this.config;
    const z = symbols.read(Uint8Array.from({ length: ((h * w) / 16) * Z }, (_, i) => this.zIndex[i % Z]));
    if (z.some((value) => Math.abs(value) > Z_LIMIT)) throw corrupt(`${name} holds a symbol out of range`);
    this.kernel.top = this.mark;
    const yHat = new Int16Array(h * w * M);
    const run = new Run(this, h, w);
    run.hyper(z);
    for (let k = 0; k < PASSES; k++) run.pass(k, symbols, yHat);
    symbols.finish();
    if (crc32(new Uint8Array(yHat.buffer), crc32(Int8Array.from(z))) !== crc) {
      throw new CodecError("CorruptError", `${name} decoded to other integers than were encoded`);
    }
    return yHat;
  }

  #setQuality(quality) {
    if (this.quality === quality) return;
    this.quality = null; // until all is there
    this.kernel.top = 0;
    const { M } = this.config;
    [this.zIndex, this.norm, this.reciprocal] = ["z_index", "norm", "reciprocal"].map((name) => this.#at(name, quality));
    this.dense = Object.fromEntries(DENSE.map((name) => [name, this.#denseLayer(name, quality)]));
    this.depthwise = Object.fromEntries(DEPTHWISE.map((name) => [name, this.#depthwiseLayer(name)]));
    const groups = (k, start) =>
      Array.from({ length: 4 }, (_, g) => this.#denseLayer(`passes.${k}.head`, quality, start + (g * M) / 4, M / 4));
    this.means = Array.from({ length: PASSES }, (_, k) => groups(k, 0));
    this.indexes = Array.from({ length: PASSES }, (_, k) => groups(k, M));
    const contextBias = (_, k) => this.kernel.put(this.tensors[`passes.${k}.context_bias`]);
    this.contextBias = Array.from({ length: PASSES }, contextBias);
    this.mark = this.kernel.top;
    this.quality = quality;
  }

  /** A table's row at a quality. */
  #at(name, quality) {
    const table = this.tensors[name];
    const { knots } = this.config;
    const [columns, spacing] = [table.length / knots, Math.floor(QUALITY_MAX / (knots - 1))];
    const knot = Math.min(Math.floor(quality / spacing), knots - 2);
    const part = quality - knot * spacing;
    return Float64Array.from({ length: columns }, (_, i) => {
      const [low, high] = [table[knot * columns + i], table[(knot + 1) * columns + i]];
      return Math.floor((low * (spacing - part) + high * part) / spacing);
    });
  }

  /** Weights as (in, out) for the given outputs. */
  #denseLayer(name, quality, start = 0, count = null) {
    const [factor, bias] = [this.#at(`${name}.factor`, quality), this.#at(`${name}.bias`, quality)];
    const { [`${name}.weight`]: weight, [`${name}.fold`]: fold, [`${name}.shift`]: shift } = this.tensors;
    const inputs = weight.length / factor.length;
    const outputs = count ?? factor.length;
    const address = this.kernel.take(inputs * outputs);
    const folded = this.kernel.view(address, inputs * outputs);
    for (let o = 0; o < outputs; o++) {
      const [f, scale] = [factor[start + o], 2 ** fold[start + o]];
      const half = Math.floor(scale / 2);
      const row = (start + o) * inputs;
      for (let i = 0; i < inputs; i++) folded[i * outputs + o] = Math.floor((weight[row + i] * f + half) / scale);
    }
    return {
      inputs,
      outputs,
      weight: address,
      bias: this.kernel.put(bias.subarray(start, start + outputs)),
      scale: this.kernel.put(Float32Array.from(shift.subarray(start, start + outputs), (s) => 2 ** -s)),
    };
  }

  #depthwiseLayer(name) {
    const [taps, bias, shift] = ["weight", "bias", "shift"].map((key) => this.tensors[`${name}.${key}`]);
    return {
      taps: this.kernel.put(taps),
      bias: this.kernel.put(bias),
      scale: this.kernel.put(Float32Array.from(shift, (s) => 2 ** -s)),
    };
  }
}

/** One tile on its way through the layers; its buffers are (h, w, channels) in the kernel's memory. */
class Run {
  constructor(prior, h, w) {
    const { D, M, Z } = prior.config;
    const n = h * w;
    this.prior = prior;
    this.kernel = prior.kernel;
    Object.assign(this, { h, w, n });
    const take = (length) => this.kernel.take(length);
    this.z = take((n / 16) * Z);
    [this.one, this.two] = [take(n * D), take(n * D)];
    [this.hyperFeatures, this.embedded, this.context] = [take(n * D), take(n * D), take(n * D)];
    this.both = take(2 * n * D);
    const quarter = n / 4;
    [this.part, this.mean, this.index] = [take(quarter * D), take((quarter * M) / 4), take((quarter * M) / 4)];
    this.features = take((quarter * M) / 2);
    this.group = M / 4;
    this.added = take(quarter * D);
    this.embedRows = take((M / 2) * D);
    this.zeros = this.kernel.put(new Float32Array(D));
  }

  hyper(z) {
    const { D } = this.prior.config;
    const { h, w, n, one, two, prior } = this;
    this.kernel.view(this.z, z.length).set(z);
    this.dense(prior.dense["h_s.up1"], this.z, one, n / 16, 0, A);
    this.shuffle(one, two, h / 4, w / 4);
    this.depthwise("h_s.spatial1", two, one, h / 2, w / 2);
    this.dense(prior.dense["h_s.up2"], one, two, n / 4, 0, A);
    this.shuffle(two, one, h / 2, w / 2);
    this.depthwise("h_s.spatial2", one, two, h, w);
    this.dense(prior.dense["h_s.out"], two, this.hyperFeatures, n, 0, A);
    const sums = this.kernel.view(this.embedded, n * D);
    const bias = this.kernel.view(prior.dense.embed.bias, D);
    for (let i = 0; i < n; i++) sums.set(bias, i * D);
  }

  pass(k, symbols, yHat) {
    const { config } = this.prior;
    const count = this.n * this.group;
    const [means, rows] = [new Int16Array(count), new Uint8Array(count)];
    this.contextFeatures(k);
    for (let phase = 0; phase < 4; phase++) this.parameters(k, phase, means, rows, config.scales_levels - 1);
    const decoded = symbols.read(rows);
    for (let i = 0; i < count; i++) decoded[i] = clamp(16 * decoded[i] + means[i], -LATENT_LIMIT, LATENT_LIMIT);
    for (let phase = 0; phase < 4; phase++) this.scatter(k, phase, decoded, yHat);
  }

  /** Activations of the pass at every position, into `one`. */
  contextFeatures(k) {
    const { D } = this.prior.config;
    const { n, prior } = this;
    const [biased, both] = [this.one, this.both];
    this.kernel.view(biased, n * D).set(this.kernel.view(this.embedded, n * D));
    this.kernel.exports.requantise(biased, prior.contextBias[k], prior.dense.embed.scale, biased, n, D, 0, A);
    this.depthwise(`passes.${k}.spatial`, biased, this.context, this.h, this.w);
    const [joined, context, hyper] = [
      this.kernel.view(both, 2 * n * D),
      this.kernel.view(this.context, n * D),
      this.kernel.view(this.hyperFeatures, n * D),
    ];
    for (let i = 0; i < n; i++) {
      joined.set(context.subarray(i * D, (i + 1) * D), 2 * i * D);
      joined.set(hyper.subarray(i * D, (i + 1) * D), (2 * i + 1) * D);
    }
    this.dense(prior.dense[`passes.${k}.mix`], both, this.two, n, 0, A);
    this.dense(prior.dense[`passes.${k}.hidden`], this.two, this.one, n, 0, A);
  }

  /** Means and table rows of one phase, whose part of `means` and `rows` they fill. */
  parameters(k, phase, means, rows, topRow) {
    const { D } = this.prior.config;
    const { group, prior } = this;
    const g = (k + phase) % 4;
    const [features, part] = [this.kernel.view(this.one, this.n * D), this.kernel.view(this.part, (this.n / 4) * D)];
    this.eachOfPhase(phase, (position, i) => part.set(features.subarray(position * D, (position + 1) * D), i * D));
    this.dense(prior.means[k][g], this.part, this.mean, this.n / 4, -MEAN_LIMIT, MEAN_LIMIT);
    this.dense(prior.indexes[k][g], this.part, this.index, this.n / 4, 0, topRow);
    const length = (this.n / 4) * group;
    const [mean, index] = [this.kernel.view(this.mean, length), this.kernel.view(this.index, length)];
    rows.set(index, phase * length);
    for (let i = 0; i < length; i++) {
      const scaled = Math.floor((mean[i] * prior.norm[g * group + (i % group)] + 8192) / 16384);
      means[phase * length + i] = clamp(scaled, -LATENT_LIMIT, LATENT_LIMIT);
    }
  }

  /** Write the decoded latents of one phase, and add them to the embedded context. */
  scatter(k, phase, decoded, yHat) {
    const { D, M, feature_limit: limit } = this.prior.config;
    const { group, prior } = this;
    const [quarter, first] = [this.n / 4, ((k + phase) % 4) * group];
    const part = decoded.subarray(phase * quarter * group, (phase + 1) * quarter * group);
    this.eachOfPhase(phase, (position, i) => {
      yHat.set(part.subarray(i * group, (i + 1) * group), position * M + first);
    });
    if (k === PASSES - 1) return;
    const features = this.kernel.view(this.features, 2 * part.length);
    for (let i = 0; i < part.length; i++) {
      const [row, channel] = [Math.floor(i / group), i % group];
      const scaled = Math.floor((part[i] * prior.reciprocal[first + channel] + 2048) / 4096);
      features[2 * row * group + channel] = clamp(scaled, -limit, limit);
      features[(2 * row + 1) * group + channel] = prior.magnitudes[Math.abs(part[i])];
    }
    const weight = this.kernel.view(prior.dense.embed.weight, 2 * M * D);
    const rows = this.kernel.view(this.embedRows, 2 * group * D);
    rows.set(weight.subarray(first * D, (first + group) * D));
    rows.set(weight.subarray((M + first) * D, (M + first + group) * D), group * D);
    const added = this.kernel.view(this.added, quarter * D).fill(0);
    this.kernel.exports.multiply(this.features, this.embedRows, this.added, quarter, 2 * group, D);
    const sums = this.kernel.view(this.embedded, this.n * D);
    this.eachOfPhase(phase, (position, i) => {
      for (let c = 0; c < D; c++) sums[position * D + c] += added[i * D + c];
    });
  }

  /** Call with each position of a phase, and its number among them. */
  eachOfPhase(phase, call) {
    let i = 0;
    for (let y = phase >> 1; y < this.h; y += 2) {
      for (let x = phase & 1; x < this.w; x += 2) call(y * this.w + x, i++);
    }
  }

  dense({ inputs, outputs, weight, bias, scale }, a, out, rows, low, high) {
    this.kernel.view(out, rows * outputs).fill(0);
    this.kernel.exports.multiply(a, weight, out, rows, inputs, outputs);
    this.kernel.exports.requantise(out, bias, scale, out, rows, outputs, low, high);
  }

  depthwise(name, a, out, h, w) {
    const { D } = this.prior.config;
    const { taps, bias, scale } = this.prior.depthwise[name];
    this.kernel.exports.depthwise(a, taps, out, h, w, D);
    this.kernel.exports.requantise(out, bias, scale, out, h * w, D, -A, A);
  }

  /** (h, w, 4D) → (2h, 2w, D). */
  shuffle(from, to, h, w) {
    const { D } = this.prior.config;
    const [a, out] = [this.kernel.view(from, 4 * h * w * D), this.kernel.view(to, 4 * h * w * D)];
    for (let y = 0; y < 2 * h; y++) {
      for (let x = 0; x < 2 * w; x++) {
        const source = ((y >> 1) * w + (x >> 1)) * 4 * D + 2 * (y & 1) + (x & 1);
        const target = (2 * w * y + x) * D;
        for (let c = 0; c < D; c++) out[target + c] = a[source + 4 * c];
      }
    }
  }
}

/** log2(1 + |y_hat| / 16) in steps of 1/16, rounded as the specification says, by exact powers. */
function magnitudeTable() {
  const table = new Uint8Array(LATENT_LIMIT + 1);
  const exponent = (v) => BigInt(16 + v) ** 32n;
  for (let level = 1, start = 1; start <= LATENT_LIMIT; level++) {
    // The first v with ⌊32 · log2(1 + v / 16)⌋ ≥ 2 · level - 1.
    const bound = 1n << BigInt(128 + 2 * level - 1);
    let [low, high] = [start - 1, LATENT_LIMIT + 1];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (exponent(middle) >= bound) high = middle;
      else low = middle;
    }
    table.fill(level, high);
    start = high;
  }
  return table;
}
