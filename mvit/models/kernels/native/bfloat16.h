// bfloat16, the upper half of a float: what a library may keep feature maps as. All arithmetic is on floats.

#pragma once

#include <cstring>

#include "parallel.h"
#include "vector.h"

namespace mvit {

// Rounded to nearest, ties to even; a NaN stays one.
struct Bf16 {
  uint16_t half;
};
typedef uint16_t HalfVec __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE Vec load(const Bf16 *p, int count) {
  HalfVec halves{};
  if (count >= LANES)
    halves = *(const HalfVec *)p;
  else
    memcpy(&halves, p, 2 * count);
  return (Vec)(__builtin_convertvector(halves, WordVec) << 16);
}
INLINE void store(Bf16 *p, Vec v, int count) {
  WordVec word = (WordVec)v, rounded = word + 0x7FFF + ((word >> 16) & 1);
  WordVec is_number = (WordVec)(v == v);
  word = (rounded & is_number) | ((word | 0x400000) & ~is_number);
  HalfVec halves = __builtin_convertvector(word >> 16, HalfVec);
  if (count >= LANES)
    *(HalfVec *)p = halves;
  else
    memcpy(p, &halves, 2 * count);
}

// What this library keeps.
#if defined(MVIT_BF16)
using Kept = Bf16;
#else
using Kept = float;
#endif

// Where one thread makes parts of an array: floats where they stay, others in the cache, to be converted.
template <class T> class Made {
 public:
  Made(int slot, T *array, size_t part) : array_(array), part_(scratch.get(slot, part)) {}
  float *at(long) const { return part_; }
  void done(long offset, long count) const {
    for_lanes((int)count, [&](int i, int lanes) { store(array_ + offset + i, load(part_ + i, lanes), lanes); });
  }

 private:
  T *array_;
  float *part_;
};
template <> class Made<float> {
 public:
  Made(int, float *array, size_t) : array_(array) {}
  float *at(long offset) const { return array_ + offset; }
  void done(long, long) const {}

 private:
  float *array_;
};

}  // namespace mvit
