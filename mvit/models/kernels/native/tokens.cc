// From feature maps to tokens and back, channels-last: the 1x1 projection without BatchNorm, 2x2 patches, LayerNorm.

#include "layer_norm.h"
#include "matmul.h"
#include "operator.h"
#include "parallel.h"

namespace mvit {
namespace {

// Pixel (h, w) of an image lies in patch (h / 2, w / 2), at place (h % 2, w % 2) of it. Tokens of one place make a
// sequence: (B, H, W, D) <-> (B * 4, H W / 4, D).
template <bool TO_PATCHES>
void move_patches(const Arguments &in, int image, int from, int to) {
  long batch = in.dim(image, 0), height = in.dim(image, 1), width = in.dim(image, 2), features = in.dim(image, 3);
  const float *source = in.floats(from);
  float *target = in.floats(to);
  parallel(batch * height, [&](int, Range range) {
    for (long row = range.begin; row < range.end; ++row) {
      long b = row / height, h = row % height;
      for (long w = 0; w < width; ++w) {
        long pixel = (row * width + w) * features;
        long sequence = b * 4 + h % 2 * 2 + w % 2, token = h / 2 * (width / 2) + w / 2;
        long place = (sequence * (height * width / 4) + token) * features;
        const float *p = source + (TO_PATCHES ? pixel : place);
        float *q = target + (TO_PATCHES ? place : pixel);
        for_lanes((int)features, [&](int i, int lanes) { store(q + i, load(p + i, lanes), lanes); });
      }
    }
  });
}

}  // namespace

// x (B, H, W, D) -> (B * 4, H W / 4, D); H and W even
OPERATOR(mvit_to_patches) { move_patches<true>(in, 0, 0, 1); }

// y (B * 4, H W / 4, D), like (B, H, W, D) -> (B, H, W, D); of `like`, the shape alone counts
OPERATOR(mvit_from_patches) { move_patches<false>(in, 1, 0, 2); }

// x (.., I), w (O, I, 1, 1) -> y (.., O)
OPERATOR(mvit_project) {
  int inputs = in.dim(1, 1), outputs = in.dim(1, 0);
  const float *x = in.floats(0), *w = in.floats(1);
  float *y = in.floats(2);
  Packed weights = transposed(w, outputs, inputs);
  parallel(in.rows(0), [&](int, Range range) {
    for_chunks(range, [&](long r, long rows) {
      multiply(rows, {x + r * inputs, inputs, inputs}, weights.data(), outputs, nullptr, y + r * outputs, outputs);
    });
  });
}

// x w dy -> dx dw
OPERATOR(mvit_project_grad) {
  int inputs = in.dim(1, 1), outputs = in.dim(1, 0);
  const float *x = in.floats(0), *w = in.floats(1), *dy = in.floats(2);
  float *dx = in.floats(3);
  Packed weights = as_is(w, outputs, inputs);
  Partials dw((size_t)outputs * inputs);
  parallel(in.rows(0), [&](int part, Range range) {
    for_chunks(range, [&](long r, long rows) {
      add_outer(rows, dy + r * outputs, outputs, x + r * inputs, inputs, inputs, dw.of(part));
      multiply(rows, {dy + r * outputs, outputs, outputs}, weights.data(), inputs, nullptr, dx + r * inputs, inputs);
    });
  });
  std::copy_n(dw.total(), (long)outputs * inputs, in.floats(4));
}

// x (.., D) gamma beta constants(eps) -> y mean rstd
OPERATOR(mvit_layer_norm) {
  LayerNorm norm{(int)in.last_dim(0), in.floats(1), in.floats(2), in.floats(3)[0]};
  parallel(in.rows(0), [&](int, Range range) {
    long first = range.begin * norm.features;
    norm.forward(range.end - range.begin, in.floats(0) + first, in.floats(4) + first, in.floats(5) + range.begin,
                 in.floats(6) + range.begin);
  });
}

// x gamma beta constants mean rstd dy -> dx dgamma dbeta
OPERATOR(mvit_layer_norm_grad) {
  LayerNorm norm{(int)in.last_dim(0), in.floats(1), in.floats(2), in.floats(3)[0]};
  Partials sums(2 * norm.features);
  parallel(in.rows(0), [&](int part, Range range) {
    long first = range.begin * norm.features;
    float *dgamma = sums.of(part);
    norm.backward(range.end - range.begin, in.floats(0) + first, in.floats(4) + range.begin,
                  in.floats(5) + range.begin, in.floats(6) + first, nullptr, in.floats(7) + first, dgamma,
                  dgamma + norm.features);
  });
  const float *total = sums.total();
  std::copy_n(total, norm.features, in.floats(8));
  std::copy_n(total + norm.features, norm.features, in.floats(9));
}

}  // namespace mvit
