// One activation, alone and behind batch norm, in fp32 and bf16; native.py builds it with -DACT=Mish or another struct below.
//
// Maps are (outer, C, inner): (B, C, H*W), or (B*H*W, C, 1) for channels_last. A map is cut into chunks that stay in a core's
// cache, a chunk into runs, and a run's values into lanes, to each of which belong its channel's constants. Chunks depend on
// the map's shape alone, and their sums are merged in order in double: the number of threads changes no bit.
// Loops are written so that compilers make vectors of them: no calls, no branches, bf16 converted apart.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

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

// exp(min(x, cap)), 0 below -87; 2^k exp(r), |r| <= ln(2) / 2; exp(r) by minimax polynomials, relative error 2e-9, bf16 3e-6
template <bool bf16> static inline float exponential(float x, float cap) {
    const float shift = 12582912.f;  // 1.5 * 2^23: adding it rounds to an integer, which is then in the low bits
    float clamped = x > cap ? cap : x;  // what comes of x < -87 is thrown away below
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

// With e = exp(x) and n = e (e + 2): mish = x n / (n + 2), its slope n / (n + 2) + 4 x e (e + 1) / (n + 2)^2.
// From x = 40 on the fraction is 1 and the second term 0 in fp32; below -87, where |mish| < 1.5e-36, exp(x) counts as 0
struct Mish {
    template <bool bf16> static inline float value(float x) {
        float e = exponential<bf16>(x, 40.f);
        float n = e * (e + 2.f);
        return x * (n / (n + 2.f));
    }
    template <bool bf16> static inline float slope(float x) {
        float e = exponential<bf16>(x, 40.f);
        float n = e * (e + 2.f);
        float r = 1.f / (n + 2.f);
        return n * r + x * (x < 40.f ? 4.f * (e * r) * ((e + 1.f) * r) : 0.f);
    }
};

struct LeakyRelu {
    template <bool> static inline float value(float x) { return x > 0.f ? x : 0.1f * x; }
    template <bool> static inline float slope(float x) { return x > 0.f ? 1.f : 0.1f; }
};

struct Relu {
    template <bool> static inline float value(float x) { return x < 0.f ? 0.f : x; }  // NaN stays
    template <bool> static inline float slope(float x) { return x > 0.f ? 1.f : 0.f; }
};

struct Silu {
    template <bool bf16> static inline float sigmoid(float x) { return 1.f / (1.f + exponential<bf16>(-x, 87.f)); }
    template <bool bf16> static inline float value(float x) { return x * sigmoid<bf16>(x); }
    template <bool bf16> static inline float slope(float x) {
        float s = sigmoid<bf16>(x);
        return s * (1.f + x * (1.f - s));
    }
};

struct Linear {
    template <bool> static inline float value(float x) { return x; }
    template <bool> static inline float slope(float) { return 1.f; }
};

// fp32 is worked on where it lies; bf16 in a buffer of fp32
static inline float widened(float x) { return x; }
static inline float widened(uint16_t x) { return from_bits((uint32_t)x << 16); }

static inline const float *wide(const float *x, float *, int64_t) { return x; }

static inline const float *wide(const uint16_t *x, float *buffer, int64_t n) {
    for (int64_t i = 0; i < n; i++) buffer[i] = widened(x[i]);
    return buffer;
}

static inline float *destination(float *y, float *) { return y; }
static inline float *destination(uint16_t *, float *buffer) { return buffer; }

static inline void narrow(const float *, float *, int64_t) {}

static inline void narrow(const float *buffer, uint16_t *y, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = to_bits(buffer[i]);
        uint32_t nearest = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
        y[i] = (uint16_t)(buffer[i] != buffer[i] ? 0x7fc0u : nearest);
    }
}

template <typename T> constexpr bool is_bf16 = sizeof(T) == 2;

static const int64_t BLOCK = 512, LANES = 256, CHUNK = 16384, GRAIN = 32768;  // below GRAIN values one thread

struct Layout {
    int64_t outer, channels, inner, total, width, size, pieces, chunks, sums, span;
    bool rows;

    Layout(int64_t outer, int64_t channels, int64_t inner) : outer(outer), channels(channels), inner(inner) {
        total = outer * channels * inner;
        rows = inner == 1;
        width = rows ? channels * std::max<int64_t>(1, LANES / channels) : std::min(LANES, inner);  // lanes of a run
        size = width * std::max<int64_t>(16, CHUNK / width);                                        // values of a chunk
        pieces = rows ? 1 : (inner + size - 1) / size;                                              // chunks of a plane
        chunks = rows ? (total + size - 1) / size : outer * channels * pieces;
        sums = rows ? width : 1;     // kept of a chunk
        span = rows ? channels : 1;  // of which so many are of different channels
    }
    // A small plane is one chunk; its divisions would take as long as its values
    int64_t plane(int64_t k) const { return pieces == 1 ? k : k / pieces; }
    int64_t start(int64_t k) const { return rows ? k * size : plane(k) * inner + (k - plane(k) * pieces) * size; }
    int64_t count(int64_t k) const { return std::min(size, (rows ? total : (plane(k) + 1) * inner) - start(k)); }
    int64_t channel(int64_t k) const { return rows ? 0 : plane(k) % channels; }  // of the first lane
    int threads(int wanted) const { return total < GRAIN ? 1 : wanted; }
};

// How many of a chunk's first values each lane's sum holds
struct Counts {
    int64_t split;
    float before, after;
    Counts(const Layout &layout, int64_t count) : split(count % layout.width) {
        before = (float)(layout.rows ? count / layout.width + 1 : count);
        after = layout.rows ? before - 1 : before;
    }
    float operator[](int64_t lane) const { return lane < split ? before : after; }
    float share(float sum, int64_t lane) const { return (*this)[lane] > 0 ? sum / (*this)[lane] : 0.f; }
};

// Arrays of a thread, each as wide as a run
struct Lanes {
    int64_t width;
    std::vector<float> storage;
    Lanes(const Layout &layout, int arrays) : width(layout.width), storage(layout.width * arrays) {}
    float *operator[](int i) { return storage.data() + i * width; }
};

// A channel's constants for each lane, in lanes[0], [1], ...: the same in all chunks of rows
static void spread(const Layout &layout, int64_t k, Lanes &lanes, std::initializer_list<const float *> sources, bool first) {
    if (layout.rows && !first) return;
    int i = 0;
    for (const float *source : sources) {
        float *to = lanes[i++];
        if (layout.rows)
            for (int64_t lane = 0; lane < layout.width; lane += layout.span) std::copy(source, source + layout.span, to + lane);
        else
            std::fill(to, to + layout.width, source[layout.channel(k)]);
    }
}

// The sum of all lanes in each of them, where they are of one channel
static void together(const Layout &layout, float *lanes) {
    if (layout.rows) return;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < layout.width; i++) sum += lanes[i];
    std::fill(lanes, lanes + layout.width, (float)sum);
}

// add(channel, index of the sum, its number of values) for all sums, in order
template <typename Add> static void merge(const Layout &layout, Add add) {
    for (int64_t k = 0; k < layout.chunks; k++) {
        const Counts counts(layout, layout.count(k));
        const int64_t channel = layout.channel(k), sums = layout.sums, span = layout.span;
        for (int64_t lane = 0; lane < sums; lane += span)
            for (int64_t c = 0; c < span; c++) add(channel + c, k * sums + lane + c, (double)counts[lane + c]);
    }
}

// Mean and sum of squares of each chunk, merged as by Chan, Golub and LeVeque. Differences are to the mean of the chunk's first
// four runs: of n runs, sum^2 / count is at most n / 4 - 1 times the sum of squares that remains, so little cancels.
// Moves the running averages where there are some
template <typename T>
static void statistics(const T *x, float *mean, float *variance, float *invstd, float *running_mean, float *running_variance,
                       float momentum, float epsilon, const Layout &layout, int threads) {
    std::vector<float> means(layout.chunks * layout.sums), squares(means.size());
#pragma omp parallel num_threads(layout.threads(threads))
    {
        Lanes lanes(layout, 3);
        float *sum = lanes[0], *square = lanes[1], *middle = lanes[2];
#pragma omp for schedule(static)
        for (int64_t k = 0; k < layout.chunks; k++) {
            const T *from = x + layout.start(k);
            const int64_t count = layout.count(k), width = layout.width, whole = count / (4 * width) * 4 * width;
            const Counts counts(layout, count);
            std::fill(middle, middle + width, 0.f);
            std::fill(sum, sum + width, 0.f);
            std::fill(square, square + width, 0.f);
            const int64_t head = std::min(count, 4 * width);
            for (int64_t r = 0; r < head; r += width)
                for (int64_t i = 0; i < std::min(width, head - r); i++) middle[i] += widened(from[r + i]);
            together(layout, middle);
            const Counts heads(layout, head);
            for (int64_t i = 0; i < width; i++) middle[i] = heads.share(middle[i], i);
            for (int64_t r = 0; r < whole; r += 4 * width) {
                const T *p = from + r, *q = p + width, *s = q + width, *t = s + width;
#pragma omp simd
                for (int64_t i = 0; i < width; i++) {
                    float m = middle[i];
                    float a = widened(p[i]) - m, b = widened(q[i]) - m, c = widened(s[i]) - m, d = widened(t[i]) - m;
                    sum[i] += (a + b) + (c + d);
                    square[i] += (a * a + b * b) + (c * c + d * d);
                }
            }
            for (int64_t r = whole; r < count; r += width) {
                int64_t n = std::min(width, count - r);
#pragma omp simd
                for (int64_t i = 0; i < n; i++) {
                    float away = widened(from[r + i]) - middle[i];
                    sum[i] += away;
                    square[i] += away * away;
                }
            }
            together(layout, sum);
            together(layout, square);
            for (int64_t i = 0; i < layout.sums; i++) {
                float rest = counts.share(sum[i], i);
                means[k * layout.sums + i] = middle[i] + rest;
                squares[k * layout.sums + i] = square[i] - sum[i] * rest;
            }
        }
    }
    const double count = (double)(layout.outer * layout.inner);
    std::vector<double> total(layout.channels), away(layout.channels);
    merge(layout, [&](int64_t c, int64_t at, double n) { total[c] += n * means[at]; });
    for (double &t : total) t /= count;
    merge(layout, [&](int64_t c, int64_t at, double n) {
        double far = means[at] - total[c];
        away[c] += squares[at] + n * far * far;
    });
    for (int64_t c = 0; c < layout.channels; c++) {
        mean[c] = (float)total[c];
        variance[c] = (float)(away[c] < 0 ? 0 : away[c] / count);
        invstd[c] = (float)(1 / std::sqrt(away[c] / count + epsilon));
        if (!running_mean) continue;
        running_mean[c] += momentum * (float)(total[c] - running_mean[c]);
        running_variance[c] += momentum * (float)(away[c] / (count - 1) - running_variance[c]);
    }
}

static std::vector<float> scales(const Layout &layout, const float *weight, const float *invstd) {
    std::vector<float> scale(layout.channels);
    for (int64_t c = 0; c < layout.channels; c++) scale[c] = weight[c] * invstd[c];
    return scale;
}

// y = act((x - mean) scale + bias), where scale is weight times invstd, as below
template <typename T>
static void apply(const T *x, T *y, const float *weight, const float *bias, const float *mean, const float *invstd,
                  const Layout &layout, int threads) {
    const auto scale = scales(layout, weight, invstd);
#pragma omp parallel num_threads(layout.threads(threads))
    {
        Lanes lanes(layout, 5);
        const float *m = lanes[0], *s = lanes[1], *b = lanes[2];
        float *in = lanes[3], *out = lanes[4];
        bool first = true;
#pragma omp for schedule(static)
        for (int64_t k = 0; k < layout.chunks; k++) {
            spread(layout, k, lanes, {mean, scale.data(), bias}, first);
            first = false;
            int64_t start = layout.start(k), count = layout.count(k);
            for (int64_t r = start; r < start + count; r += layout.width) {
                int64_t n = std::min(layout.width, start + count - r);
                const float *v = wide(x + r, in, n);
                float *to = destination(y + r, out);
#pragma omp simd
                for (int64_t i = 0; i < n; i++) to[i] = ACT::value<is_bf16<T>>((v[i] - m[i]) * s[i] + b[i]);
                narrow(to, y + r, n);
            }
        }
    }
}

// sums (2, C): of dz = dy act'(z) and of dz (x - mean); dz itself is kept where there is a place for it
template <typename T>
static void reduce(const T *dy, const T *x, float *kept, const float *weight, const float *bias, const float *mean, const float *invstd,
                   float *sums, const Layout &layout, int threads) {
    const auto scale = scales(layout, weight, invstd);
    std::vector<float> first_parts(layout.chunks * layout.sums), second_parts(first_parts.size());
#pragma omp parallel num_threads(layout.threads(threads))
    {
        Lanes lanes(layout, 8);
        const float *m = lanes[0], *s = lanes[1], *b = lanes[2];
        float *first_sum = lanes[3], *second_sum = lanes[4], *in = lanes[5], *gradient = lanes[6], *out = lanes[7];
        bool first = true;
#pragma omp for schedule(static)
        for (int64_t k = 0; k < layout.chunks; k++) {
            spread(layout, k, lanes, {mean, scale.data(), bias}, first);
            first = false;
            std::fill(first_sum, first_sum + layout.width, 0.f);
            std::fill(second_sum, second_sum + layout.width, 0.f);
            int64_t start = layout.start(k), count = layout.count(k);
            for (int64_t r = start; r < start + count; r += layout.width) {
                int64_t n = std::min(layout.width, start + count - r);
                const float *v = wide(x + r, in, n), *g = wide(dy + r, gradient, n);
                float *to = kept ? kept + r : out;
#pragma omp simd
                for (int64_t i = 0; i < n; i++) {
                    float centred = v[i] - m[i];
                    float dz = g[i] * ACT::slope<is_bf16<T>>(centred * s[i] + b[i]);
                    first_sum[i] += dz;
                    second_sum[i] += dz * centred;
                    to[i] = dz;
                }
            }
            together(layout, first_sum);
            together(layout, second_sum);
            std::copy(first_sum, first_sum + layout.sums, &first_parts[k * layout.sums]);
            std::copy(second_sum, second_sum + layout.sums, &second_parts[k * layout.sums]);
        }
    }
    std::vector<double> merged(2 * layout.channels);
    merge(layout, [&](int64_t c, int64_t at, double) {
        merged[c] += first_parts[at];
        merged[layout.channels + c] += second_parts[at];
    });
    std::copy(merged.begin(), merged.end(), sums);
}

// dx = scale (dz - shares[0] - (x - mean) shares[1]), where dy is dz already if KEPT; it may then be dx
template <bool KEPT, typename T>
static void input_gradient(const T *dy, const T *x, T *dx, const float *weight, const float *bias, const float *mean,
                           const float *invstd, const float *shares, const Layout &layout, int threads) {
    const auto scale = scales(layout, weight, invstd);
#pragma omp parallel num_threads(layout.threads(threads))
    {
        Lanes lanes(layout, 8);
        const float *m = lanes[0], *s = lanes[1], *b = lanes[2], *level = lanes[3], *tilt = lanes[4];
        float *in = lanes[5], *gradient = lanes[6], *out = lanes[7];
        bool first = true;
#pragma omp for schedule(static)
        for (int64_t k = 0; k < layout.chunks; k++) {
            spread(layout, k, lanes, {mean, scale.data(), bias, shares, shares + layout.channels}, first);
            first = false;
            int64_t start = layout.start(k), count = layout.count(k);
            for (int64_t r = start; r < start + count; r += layout.width) {
                int64_t n = std::min(layout.width, start + count - r);
                const float *v = wide(x + r, in, n), *g = wide(dy + r, gradient, n);
                float *to = destination(dx + r, out);
#pragma omp simd
                for (int64_t i = 0; i < n; i++) {
                    float centred = v[i] - m[i];
                    float dz = KEPT ? g[i] : g[i] * ACT::slope<is_bf16<T>>(centred * s[i] + b[i]);
                    to[i] = s[i] * (dz - level[i] - centred * tilt[i]);
                }
                narrow(to, dx + r, n);
            }
        }
    }
}

// All three gradients; those through mean and variance count in training. fp32 keeps dz in dx between the two passes: one more
// pass to write is quicker than the slope again. bf16 would round it
template <typename T>
static void backward(const T *dy, const T *x, T *dx, const float *weight, const float *bias, const float *mean,
                     const float *invstd, float *dweight, float *dbias, bool training, const Layout &layout, int threads) {
    const int64_t channels = layout.channels;
    std::vector<float> sums(2 * channels), shares(2 * channels);
    float *kept = is_bf16<T> ? nullptr : (float *)dx;
    reduce(dy, x, kept, weight, bias, mean, invstd, sums.data(), layout, threads);
    const float count = (float)(layout.outer * layout.inner);
    for (int64_t c = 0; c < channels; c++) {
        dbias[c] = sums[c];
        dweight[c] = sums[channels + c] * invstd[c];
        if (!training) continue;
        shares[c] = sums[c] / count;
        shares[channels + c] = sums[channels + c] / count * invstd[c] * invstd[c];
    }
    if (kept)
        input_gradient<true>(dx, x, dx, weight, bias, mean, invstd, shares.data(), layout, threads);
    else
        input_gradient<false>(dy, x, dx, weight, bias, mean, invstd, shares.data(), layout, threads);
}

// y = act(x), where y may be x
template <typename T> static void value(const T *x, T *y, int64_t total, int threads) {
#pragma omp parallel for num_threads(total < GRAIN ? 1 : threads) schedule(static)
    for (int64_t start = 0; start < total; start += BLOCK) {
        float in[BLOCK], out[BLOCK];
        int64_t n = std::min(BLOCK, total - start);
        const float *v = wide(x + start, in, n);
        float *to = destination(y + start, out);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) to[i] = ACT::value<is_bf16<T>>(v[i]);
        narrow(to, y + start, n);
    }
}

// dx = dy act'(x)
template <typename T> static void slope(const T *dy, const T *x, T *dx, int64_t total, int threads) {
#pragma omp parallel for num_threads(total < GRAIN ? 1 : threads) schedule(static)
    for (int64_t start = 0; start < total; start += BLOCK) {
        float in[BLOCK], gradient[BLOCK], out[BLOCK];
        int64_t n = std::min(BLOCK, total - start);
        const float *v = wide(x + start, in, n), *g = wide(dy + start, gradient, n);
        float *to = destination(dx + start, out);
#pragma omp simd
        for (int64_t i = 0; i < n; i++) to[i] = g[i] * ACT::slope<is_bf16<T>>(v[i]);
        narrow(to, dx + start, n);
    }
}

#define CHANNELS const float *weight, const float *bias, const float *mean, const float *invstd
#define EXPORT(T, name)                                                                                                   \
    void statistics_##name(const T *x, float *mean, float *variance, float *invstd, float *running_mean,                  \
                           float *running_variance, float momentum, float epsilon, int64_t o, int64_t c, int64_t i,       \
                           int threads) {                                                                                 \
        statistics(x, mean, variance, invstd, running_mean, running_variance, momentum, epsilon, Layout(o, c, i), threads); \
    }                                                                                                                     \
    void apply_##name(const T *x, T *y, CHANNELS, int64_t o, int64_t c, int64_t i, int threads) {                         \
        apply(x, y, weight, bias, mean, invstd, Layout(o, c, i), threads);                                                \
    }                                                                                                                     \
    void reduce_##name(const T *dy, const T *x, CHANNELS, float *sums, int64_t o, int64_t c, int64_t i, int threads) {    \
        reduce(dy, x, nullptr, weight, bias, mean, invstd, sums, Layout(o, c, i), threads);                               \
    }                                                                                                                     \
    void input_gradient_##name(const T *dy, const T *x, T *dx, CHANNELS, const float *shares, int64_t o, int64_t c,       \
                               int64_t i, int threads) {                                                                  \
        input_gradient<false>(dy, x, dx, weight, bias, mean, invstd, shares, Layout(o, c, i), threads);                   \
    }                                                                                                                     \
    void backward_##name(const T *dy, const T *x, T *dx, CHANNELS, float *dweight, float *dbias, int64_t o, int64_t c,    \
                         int64_t i, int64_t training, int threads) {                                                      \
        backward(dy, x, dx, weight, bias, mean, invstd, dweight, dbias, training != 0, Layout(o, c, i), threads);         \
    }                                                                                                                     \
    void value_##name(const T *x, T *y, int64_t n, int threads) { value(x, y, n, threads); }                              \
    void slope_##name(const T *dy, const T *x, T *dx, int64_t n, int threads) { slope(dy, x, dx, n, threads); }

extern "C" {
EXPORT(float, float32)
EXPORT(uint16_t, bfloat16)
}
