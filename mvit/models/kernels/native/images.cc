// The two ends of the network: bytes to its input, the last feature map to one vector per image.

#include "dropout.h"
#include "operator.h"
#include "parallel.h"
#include "vector.h"

namespace mvit {

// images (.., 3) uint8, scale (3), shift (3), order (3) int32 -> float32: channel c is scale x[order[c]] - shift
OPERATOR(mvit_normalise) {
  const uint8_t *images = (const uint8_t *)in.pointers[0];
  const float *scale = in.floats(1), *shift = in.floats(2);
  const int32_t *order = in.ints(3);
  float *out = in.floats(4);
  parallel(in.rows(0), [&](int, Range range) {
    for (int c = 0; c < 3; ++c) {
      const uint8_t *from = images + order[c];
      float a = scale[c], b = shift[c];
      for (long i = range.begin * 3; i < range.end * 3; i += 3) out[i + c] = from[i] * a - b;
    }
  });
}

// x (B, H, W, C) key salts(row, column, threshold) constants(1 / (1 - rate)) -> dropout(mean over pixels) (B, C)
OPERATOR(mvit_pool) {
  long pixels = in.dim(0, 1) * in.dim(0, 2);
  int channels = in.dim(0, 3);
  const float *x = in.floats(0);
  float *y = in.floats(4);
  DropoutMask mask(in.ints(1)[0], in.ints(2), in.ints(2)[2], in.floats(3)[0], channels);
  parallel(in.dim(0, 0), [&](int, Range range) {
    for (long b = range.begin; b < range.end; ++b) {
      float *out = y + b * channels;
      for_lanes(channels, [&](int c, int lanes) {
        Vec total{};
        for (long i = 0; i < pixels; ++i) total += load(x + (b * pixels + i) * channels + c, lanes);
        store(out + c, total * (1.0f / pixels), lanes);
      });
      mask.apply(b, 0, channels, out, nullptr, out);
    }
  });
}

// x key salts constants dy -> dx
OPERATOR(mvit_pool_grad) {
  long pixels = in.dim(0, 1) * in.dim(0, 2);
  int channels = in.dim(0, 3);
  const float *dy = in.floats(4);
  float *dx = in.floats(5);
  DropoutMask mask(in.ints(1)[0], in.ints(2), in.ints(2)[2], in.floats(3)[0] / pixels, channels);
  parallel(in.dim(0, 0), [&](int, Range range) {
    for (long b = range.begin; b < range.end; ++b) {
      float *first = dx + b * pixels * channels;
      mask.apply(b, 0, channels, dy + b * channels, nullptr, first);
      for (long i = 1; i < pixels; ++i) std::copy_n(first, channels, first + i * channels);
    }
  });
}

}  // namespace mvit
