// Vectors of floats in the width of the CPU: AVX-512, AVX2 and NEON from one source, on the compiler's own extension.
//
// A row of channels rarely fills whole vectors. `for_lanes` walks one and says how many lanes the last vector has;
// `load` and `store` with that count never touch memory behind it.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

namespace mvit {

// ACCUMULATORS: registers that a tile of a matrix product keeps; the others hold its operands.
// WIDEST: vectors side by side in such a tile.
#if defined(__AVX512F__)
constexpr int LANES = 16, ACCUMULATORS = 24, WIDEST = 4;
#elif defined(__AVX2__)
constexpr int LANES = 8, ACCUMULATORS = 12, WIDEST = 3;
#else
constexpr int LANES = 4, ACCUMULATORS = 24, WIDEST = 4;
#endif

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * LANES)));
typedef uint32_t WordVec __attribute__((vector_size(4 * LANES)));
typedef float UnalignedVec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

INLINE Vec load(const float *p) { return *(const UnalignedVec *)p; }
INLINE void store(float *p, Vec v) { *(UnalignedVec *)p = v; }
INLINE Vec splat(float x) { return x - Vec{}; }  // x + 0 would not fold into a broadcast: it turns -0 into 0

#if defined(__AVX512F__)
INLINE __mmask16 first_lanes(int count) { return (__mmask16)((1u << count) - 1); }
INLINE Vec load_first(const float *p, int count) { return (Vec)_mm512_maskz_loadu_ps(first_lanes(count), p); }
INLINE void store_first(float *p, Vec v, int count) { _mm512_mask_storeu_ps(p, first_lanes(count), (__m512)v); }
#elif defined(__AVX2__)
INLINE __m256i first_lanes(int count) {
  alignas(32) static const int32_t bits[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
  return _mm256_loadu_si256((const __m256i *)(bits + 8 - count));
}
INLINE Vec load_first(const float *p, int count) { return (Vec)_mm256_maskload_ps(p, first_lanes(count)); }
INLINE void store_first(float *p, Vec v, int count) { _mm256_maskstore_ps(p, first_lanes(count), (__m256)v); }
#else
INLINE Vec load_first(const float *p, int count) {
  Vec v{};
  memcpy(&v, p, 4 * count);
  return v;
}
INLINE void store_first(float *p, Vec v, int count) { memcpy(p, &v, 4 * count); }
#endif

// The first `count` lanes, or all of them if there are as many; the others load as 0.
INLINE Vec load(const float *p, int count) { return count >= LANES ? load(p) : load_first(p, count); }
INLINE void store(float *p, Vec v, int count) { count >= LANES ? store(p, v) : store_first(p, v, count); }

// Calls body(offset, lanes) for a row of `count` floats. The two calls are apart so that `lanes` is a constant in the
// first one, where the masks fold away.
template <class Body> INLINE void for_lanes(int count, Body body) {
  int i = 0;
  for (; i + LANES <= count; i += LANES) body(i, LANES);
  if (i < count) body(i, count - i);
}

INLINE float sum(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#else
  float total = 0;
  for (int i = 0; i < LANES; ++i) total += v[i];
  return total;
#endif
}

// Minimum and maximum with a constant; a NaN in x stays one: the instructions return their second operand then.
#if defined(__AVX512F__)
INLINE Vec at_least(Vec x, float low) { return (Vec)_mm512_maskz_max_ps(0xFFFF, (__m512)splat(low), (__m512)x); }
INLINE Vec at_most(Vec x, float high) { return (Vec)_mm512_maskz_min_ps(0xFFFF, (__m512)splat(high), (__m512)x); }
#elif defined(__AVX2__)
INLINE Vec at_least(Vec x, float low) { return (Vec)_mm256_max_ps((__m256)splat(low), (__m256)x); }
INLINE Vec at_most(Vec x, float high) { return (Vec)_mm256_min_ps((__m256)splat(high), (__m256)x); }
#else
INLINE Vec at_least(Vec x, float low) { return x < splat(low) ? splat(low) : x; }
INLINE Vec at_most(Vec x, float high) { return x > splat(high) ? splat(high) : x; }
#endif

// e^x within 2 units in the last place: 2^n e^f with n = round(x / ln 2), e^f by a polynomial (Cephes' expf). The
// argument is limited so that 2^n stays a normal number: results lie in [1e-38, 2e38].
INLINE Vec exponential(Vec x) {
  x = at_most(at_least(x, -87.0f), 88.0f);
  constexpr float round = 12582912.0f;  // 1.5 * 2^23: adding it leaves no room for a fraction
  Vec n = (x * 1.44269504f + round) - round;
  Vec f = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln 2 in two parts
  Vec p = splat(1.9875691500e-4f);
  p = p * f + 1.3981999507e-3f;
  p = p * f + 8.3334519073e-3f;
  p = p * f + 4.1665795894e-2f;
  p = p * f + 1.6666665459e-1f;
  p = p * f + 5.0000001201e-1f;
  p = p * f * f + f + 1.0f;
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_scalef_ps(0xFFFF, (__m512)p, (__m512)n);
#else
  IntVec exponent = (__builtin_convertvector(n, IntVec) + 127) << 23;
  return p * (Vec)exponent;
#endif
}

// 1 / x within 2 units in the last place, for x in the range of `exponential`: the CPU's estimate and Newton's step.
// A division takes 16 cycles with AVX-512.
INLINE Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
  Vec r = (Vec)_mm512_maskz_rcp14_ps(0xFFFF, (__m512)x);
  return r * (2.0f - x * r);
#elif defined(__AVX2__)
  Vec r = (Vec)_mm256_rcp_ps((__m256)x);
  return r * (2.0f - x * r);
#else
  return 1.0f / x;
#endif
}

INLINE Vec square_root(Vec x) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_sqrt_ps(0xFFFF, (__m512)x);
#elif defined(__AVX2__)
  return (Vec)_mm256_sqrt_ps((__m256)x);
#else
  for (int i = 0; i < LANES; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

INLINE Vec sigmoid(Vec x) { return reciprocal(1.0f + exponential(-x)); }

}  // namespace mvit
