// The entropy model's layers on integers that float32 carries: no sum exceeds 2^24, so all of them are exact in any
// order. AssemblyScript; arrays lie in the module's memory, row by row, and are passed as addresses.

// @ts-ignore: decorator
@inline
function dot4x8(a: usize, weight: usize, out: usize, inputs: usize, outputs: usize): void {
  const row = outputs << 2, step = inputs << 2;
  let c0 = v128.load(out), c1 = v128.load(out, 16);
  let c2 = v128.load(out + row), c3 = v128.load(out + row, 16);
  let c4 = v128.load(out + 2 * row), c5 = v128.load(out + 2 * row, 16);
  let c6 = v128.load(out + 3 * row), c7 = v128.load(out + 3 * row, 16);
  for (const end = a + step; a < end; a += 4, weight += row) {
    const w0 = v128.load(weight), w1 = v128.load(weight, 16);
    let x = v128.load32_splat(a);
    c0 = f32x4.add(c0, f32x4.mul(x, w0));
    c1 = f32x4.add(c1, f32x4.mul(x, w1));
    x = v128.load32_splat(a + step);
    c2 = f32x4.add(c2, f32x4.mul(x, w0));
    c3 = f32x4.add(c3, f32x4.mul(x, w1));
    x = v128.load32_splat(a + 2 * step);
    c4 = f32x4.add(c4, f32x4.mul(x, w0));
    c5 = f32x4.add(c5, f32x4.mul(x, w1));
    x = v128.load32_splat(a + 3 * step);
    c6 = f32x4.add(c6, f32x4.mul(x, w0));
    c7 = f32x4.add(c7, f32x4.mul(x, w1));
  }
  v128.store(out, c0);
  v128.store(out, c1, 16);
  v128.store(out + row, c2);
  v128.store(out + row, c3, 16);
  v128.store(out + 2 * row, c4);
  v128.store(out + 2 * row, c5, 16);
  v128.store(out + 3 * row, c6);
  v128.store(out + 3 * row, c7, 16);
}

// @ts-ignore: decorator
@inline
function dot1(a: usize, weight: usize, out: usize, inputs: usize, outputs: usize): void {
  let sum = load<f32>(out);
  for (const end = a + (inputs << 2); a < end; a += 4, weight += outputs << 2) sum += load<f32>(a) * load<f32>(weight);
  store<f32>(out, sum);
}

/** out (rows, outputs) += a (rows, inputs) · weight (inputs, outputs). */
export function multiply(
  a: usize, weight: usize, out: usize, rows: usize, inputs: usize, outputs: usize,
): void {
  const wholeRows = rows & ~3, wholeColumns = outputs & ~7;
  for (let column: usize = 0; column < wholeColumns; column += 8) {
    for (let row: usize = 0; row < wholeRows; row += 4) {
      const place = (row * outputs + column) << 2;
      dot4x8(a + ((row * inputs) << 2), weight + (column << 2), out + place, inputs, outputs);
    }
  }
  for (let row: usize = 0; row < rows; row++) {
    for (let column = row < wholeRows ? wholeColumns : 0; column < outputs; column++) {
      const place = (row * outputs + column) << 2;
      dot1(a + ((row * inputs) << 2), weight + (column << 2), out + place, inputs, outputs);
    }
  }
}

/** out = clamp(floor((sums + bias) · scale), low, high), each (rows, channels), bias and scale (channels). */
export function requantise(
  sums: usize, bias: usize, scale: usize, out: usize, rows: usize, channels: usize, low: f32, high: f32,
): void {
  for (let row: usize = 0; row < rows; row++) {
    for (let c: usize = 0; c < channels; c++) {
      const place = (row * channels + c) << 2;
      const scaled = (load<f32>(sums + place) + load<f32>(bias + (c << 2))) * load<f32>(scale + (c << 2));
      store<f32>(out + place, min(max(floor(scaled), low), high));
    }
  }
}

/** out = sums of a 3×3 depthwise convolution of a, each (h, w, channels), zeros beyond the edge; taps (9, channels). */
export function depthwise(a: usize, taps: usize, out: usize, h: i32, w: i32, channels: usize): void {
  memory.fill(out, 0, ((<usize>(h * w)) * channels) << 2);
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const target = out + ((<usize>(y * w + x) * channels) << 2);
      for (let i = 0; i < 9; i++) {
        const v = y + i / 3 - 1, u = x + i % 3 - 1;
        if (v < 0 || v >= h || u < 0 || u >= w) continue;
        const source = a + ((<usize>(v * w + u) * channels) << 2), tap = taps + ((<usize>i * channels) << 2);
        for (let c: usize = 0; c < channels << 2; c += 16) {
          const product = f32x4.mul(v128.load(source + c), v128.load(tap + c));
          v128.store(target + c, f32x4.add(v128.load(target + c), product));
        }
      }
    }
  }
}
