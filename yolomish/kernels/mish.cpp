// Mish and its derivative over n dense values, in fp32 and bf16, one exponential each; built by native.py.
//
// With e = exp(x) and n = e (e + 2): mish = x n / (n + 2), and the derivative is n / (n + 2) + 4 x e (e + 1) / (n + 2)^2.
// From x = 40 on the fraction is 1 and the second term 0 in fp32; below -87, where |mish| < 1.5e-36, exp(x) counts as 0.
// Loops are written so that compilers make vectors of them: no calls, no branches, bf16 converted in blocks.

#include <cstdint>
#include <cstring>

static inline float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// exp(x) = 2^k exp(r), |r| <= ln(2) / 2; exp(r) by minimax polynomials, relative error 2e-9, and 3e-6 for bf16
template <bool bf16> static inline float exponential(float x) {
    const float shift = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits
    float clamped = x > 40.f ? 40.f : x;  // what comes of x < -87 is thrown away below
    float shifted = clamped * 1.44269504f + shift;
    float k = shifted - shift;
    float p, r;
    if (bf16) {
        r = clamped - k * 0.69314718f;
        p = 4.145856576e-2f;
        p = p * r + 1.679093188e-1f;
        p = p * r + 5.000436041e-1f;
        p = p * r + 9.999633904e-1f;
        p = p * r + 9.999992610e-1f;
    } else {
        r = clamped - k * 0.693359375f + k * 2.12194440e-4f;  // ln(2) in two parts
        p = 1.383683545e-3f;
        p = p * r + 8.374824056e-3f;
        p = p * r + 4.166822619e-2f;
        p = p * r + 1.666642007e-1f;
        p = p * r + 4.999999208e-1f;
        p = p * r + 1.000000036f;
        p = p * r + 1.f;
    }
    float e = from_bits(to_bits(p) + (to_bits(shifted) << 23));
    return x < -87.f ? 0.f : e;
}

template <bool bf16> static inline float value(float x) {
    float e = exponential<bf16>(x);
    float n = e * (e + 2.f);
    return x * (n / (n + 2.f));
}

template <bool bf16> static inline float slope(float x) {
    float e = exponential<bf16>(x);
    float n = e * (e + 2.f);
    float r = 1.f / (n + 2.f);
    return n * r + x * (x < 40.f ? 4.f * (e * r) * ((e + 1.f) * r) : 0.f);
}

static inline float widened(uint16_t bits) { return from_bits((uint32_t)bits << 16); }

static inline uint16_t narrowed(float value) {
    uint32_t bits = to_bits(value);
    uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)(value != value ? 0x7fc0u : nearest);
}

static const int64_t BLOCK = 512;

extern "C" {

// y may be x
void mish_value_float32(const float *x, float *y, int64_t n, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) y[i] = value<false>(x[i]);
}

void mish_slope_float32(const float *dy, const float *x, float *dx, int64_t n, int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * slope<false>(x[i]);
}

void mish_value_bfloat16(const uint16_t *x, uint16_t *y, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t start = 0; start < n; start += BLOCK) {
        float block[BLOCK];
        int64_t count = n - start < BLOCK ? n - start : BLOCK;
        for (int64_t i = 0; i < count; i++) block[i] = value<true>(widened(x[start + i]));
        for (int64_t i = 0; i < count; i++) y[start + i] = narrowed(block[i]);
    }
}

void mish_slope_bfloat16(const uint16_t *dy, const uint16_t *x, uint16_t *dx, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t start = 0; start < n; start += BLOCK) {
        float block[BLOCK];
        int64_t count = n - start < BLOCK ? n - start : BLOCK;
        for (int64_t i = 0; i < count; i++) block[i] = widened(dy[start + i]) * slope<true>(widened(x[start + i]));
        for (int64_t i = 0; i < count; i++) dx[start + i] = narrowed(block[i]);
    }
}
}
