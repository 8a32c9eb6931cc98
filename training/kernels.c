/* What a residual block does between its matrix products, on one CPU thread; see fused.py.
 *
 * Feature maps are channels last, rows of C values per pixel. bf16 is the upper half of a float. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
enum { TAPS = 9 };

static inline float wide(bf16 v) {
    uint32_t bits = (uint32_t)v << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline bf16 narrow(float f) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &f, sizeof f);
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* The nine neighbours of pixel (i, j), rows first; `zero` stands for those outside. */
#define NEIGHBOURS(T, at, base, zero, i, j)                                            \
    const T *at[TAPS];                                                                 \
    for (int t = 0; t < TAPS; t++) {                                                   \
        long row = (i) + t / 3 - 1, column = (j) + t % 3 - 1;                               \
        at[t] = row < 0 || row >= H || column < 0 || column >= W ? (zero) : (base) + (row * W + column) * C; \
    }

/* out = bias + sum over taps of weight * neighbour; x float (B, H, W, C), weight (B, 9, C), bias (B, C). */
void depthwise(const float *restrict x, const float *restrict weight, const float *restrict bias, bf16 *restrict out,
               long B, long H, long W, long C) {
    float zero[C];
    memset(zero, 0, sizeof zero);
    for (long b = 0; b < B; b++, x += H * W * C, weight += TAPS * C, bias += C)
        for (long i = 0; i < H; i++)
            for (long j = 0; j < W; j++, out += C) {
                NEIGHBOURS(float, at, x, zero, i, j)
#pragma GCC ivdep
                for (long c = 0; c < C; c++) {
                    float sum = bias[c];
                    for (int t = 0; t < TAPS; t++) sum += weight[t * C + c] * at[t][c];
                    out[c] = narrow(sum);
                }
            }
}

/* grad_x = grad_y + what comes back through the depthwise layer; its gradients per sample. */
void depthwise_backward(const float *restrict x, const bf16 *restrict grad, const float *restrict weight,
                        const float *restrict grad_y, float *restrict grad_x, float *restrict grad_weight,
                        float *restrict grad_bias, long B, long H, long W, long C) {
    float zero[C];
    memset(zero, 0, sizeof zero);
    memset(grad_weight, 0, sizeof(float) * B * TAPS * C);
    memset(grad_bias, 0, sizeof(float) * B * C);
    for (long b = 0; b < B; b++) {
        for (long i = 0; i < H; i++)
            for (long j = 0; j < W; j++) {
                const bf16 *g = grad + (i * W + j) * C;
                NEIGHBOURS(float, at, x, zero, i, j)
#pragma GCC ivdep
                for (long c = 0; c < C; c++) {
                    float v = wide(g[c]);
                    grad_bias[c] += v;
                    for (int t = 0; t < TAPS; t++) grad_weight[t * C + c] += v * at[t][c];
                }
            }
        for (long i = 0; i < H; i++)
            for (long j = 0; j < W; j++, grad_x += C, grad_y += C) {
                NEIGHBOURS(bf16, at, grad, (const bf16 *)zero, i, j)
#pragma GCC ivdep
                for (long c = 0; c < C; c++) {
                    float sum = grad_y[c];
                    for (int t = 0; t < TAPS; t++) sum += weight[(TAPS - 1 - t) * C + c] * wide(at[t][c]);
                    grad_x[c] = sum;
                }
            }
        x += H * W * C, grad += H * W * C, weight += TAPS * C, grad_weight += TAPS * C, grad_bias += C;
    }
}

/* out = value * silu(gate), clipped to +-limit; expanded (n, 2C) holds value and gate, both without their bias. */
void gated(const bf16 *restrict expanded, const float *restrict bias, bf16 *restrict out, long n, long C,
           float limit) {
    for (; n--; expanded += 2 * C, out += C)
#pragma GCC ivdep
        for (long c = 0; c < C; c++) {
            float value = wide(expanded[c]) + bias[c], gate = wide(expanded[C + c]) + bias[C + c];
            float u = value * gate / (1.0f + expf(-gate));
            u = u > limit ? limit : u;
            out[c] = narrow(u < -limit ? -limit : u);
        }
}

/* Gradient with regard to value and gate, `grad_bias` (2C) their sum over pixels; `out` as in `gated`. */
void gated_backward(const bf16 *restrict expanded, const float *restrict bias, const bf16 *restrict grad,
                    bf16 *restrict out, bf16 *restrict grad_expanded, float *restrict grad_bias, long n, long C,
                    float limit) {
    for (; n--; expanded += 2 * C, out += C, grad += C, grad_expanded += 2 * C)
#pragma GCC ivdep
        for (long c = 0; c < C; c++) {
            float value = wide(expanded[c]) + bias[c], gate = wide(expanded[C + c]) + bias[C + c];
            float sigmoid = 1.0f / (1.0f + expf(-gate)), silu = gate * sigmoid, u = value * silu;
            float g = fabsf(u) <= limit ? wide(grad[c]) : 0.0f;
            float grad_value = g * silu, grad_gate = g * value * (sigmoid + silu * (1.0f - sigmoid));
            u = u > limit ? limit : u;
            out[c] = narrow(u < -limit ? -limit : u);
            grad_expanded[c] = narrow(grad_value);
            grad_expanded[C + c] = narrow(grad_gate);
            grad_bias[c] += grad_value;
            grad_bias[C + c] += grad_gate;
        }
}

/* out = x + branch + bias. */
void residual(const float *restrict x, const bf16 *restrict branch, const float *restrict bias, float *restrict out,
              long n, long C) {
    for (; n--; x += C, branch += C, out += C)
        for (long c = 0; c < C; c++) out[c] = x[c] + wide(branch[c]) + bias[c];
}

/* out = x in bf16; `sum` (C) over pixels. */
void narrowed(const float *restrict x, bf16 *restrict out, float *restrict sum, long n, long C) {
    for (; n--; x += C, out += C)
        for (long c = 0; c < C; c++) {
            out[c] = narrow(x[c]);
            sum[c] += x[c];
        }
}
