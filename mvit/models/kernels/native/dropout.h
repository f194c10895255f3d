// Stateless dropout, bit for bit the mask of `layers.Dropout`: element (row, column) is kept if the square of the
// exclusive or of both hashes, as a signed integer, reaches a threshold.

#pragma once

#include <cstdint>
#include <vector>

#include "vector.h"

namespace mvit {

class DropoutMask {
 public:
  // salts: (row salt, column salt) of the cell.
  DropoutMask(int32_t key, const int32_t *salts, int32_t threshold, float factor, long columns)
      : row_key_((uint32_t)key ^ (uint32_t)salts[0]), threshold_(threshold), factor_(factor), columns_(columns) {
    for (long j = 0; j < columns; ++j) columns_[j] = hash((uint32_t)j * GOLDEN + (uint32_t)salts[1]);
  }
  // out = residual + the kept elements of x, divided by the share kept; columns [first, first + count) of a row.
  INLINE void apply(long row, long first, long count, const float *x, const float *residual, float *out) const {
    uint32_t of_row = hash((uint32_t)row * GOLDEN + row_key_);
    const uint32_t *of_column = &columns_[first];
    for_lanes((int)count, [&](int j, int lanes) {
      WordVec mixed = (WordVec)load((const float *)of_column + j, lanes) ^ of_row;
      IntVec kept = (IntVec)(mixed * mixed) >= threshold_;
      Vec v = (Vec)((IntVec)(load(x + j, lanes) * factor_) & kept);
      store(out + j, residual ? load(residual + j, lanes) + v : v, lanes);
    });
  }

 private:
  static constexpr uint32_t GOLDEN = 0x9E3779B1u;
  static INLINE uint32_t hash(uint32_t h) {  // lowbias32
    h = (h ^ (h >> 16)) * 0x7FEB352Du;
    h = (h ^ (h >> 15)) * 0x846CA68Bu;
    return h ^ (h >> 16);
  }
  uint32_t row_key_;
  int32_t threshold_;
  float factor_;
  std::vector<uint32_t> columns_;
};

}  // namespace mvit
