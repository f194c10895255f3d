// From feature maps to tokens and back, channels-last: the 1x1 projection without BatchNorm, 2x2 patches, LayerNorm.

#include <algorithm>
#include <vector>

#include "layer_norm.h"
#include "matmul.h"
#include "operator.h"
#include "parallel.h"

namespace mvit {
namespace {

// One side of a map, resized bilinearly without aligned corners: value i is (1 - weight[i]) low[i] + weight[i] high[i].
struct Side {
  std::vector<long> low, high;
  std::vector<float> weight;

  Side(long from, long to) {
    for (long i = 0; i < to; ++i) {
      float place = std::max((i + 0.5f) * from / to - 0.5f, 0.0f);
      low.push_back((long)place);
      high.push_back(std::min((long)place + 1, from - 1));
      weight.push_back(place - low.back());
    }
  }
};

// Maps (B, H, W, D) and their tokens (B * 4, N, D), N = H' W' / 4, where H' and W' are the sides made even.
// Pixel (h, w) of H' x W' lies in patch (h / 2, w / 2), at place (h % 2, w % 2) of it; tokens of one place make a
// sequence.
struct Patches {
  long batch, height, width, even_height, even_width;
  int features;

  Patches(const Arguments &in, int map)
      : batch(in.dim(map, 0)), height(in.dim(map, 1)), width(in.dim(map, 2)), even_height(height + height % 2),
        even_width(width + width % 2), features((int)in.dim(map, 3)) {}
  bool even() const { return height == even_height && width == even_width; }
  long pixel(long b, long h, long w) const { return ((b * height + h) * width + w) * features; }
  long token(long b, long h, long w) const {
    long sequence = b * 4 + h % 2 * 2 + w % 2, place = h / 2 * (even_width / 2) + w / 2;
    return (sequence * (even_height * even_width / 4) + place) * features;
  }

  // Between a map with even sides and its tokens.
  template <bool TO_TOKENS> void move(const float *source, float *target) const {
    parallel(batch * height, [&](int, Range range) {
      for (long row = range.begin; row < range.end; ++row)
        for (long w = 0; w < width; ++w) {
          long at = pixel(0, row, w), place = token(row / height, row % height, w);
          const float *p = source + (TO_TOKENS ? at : place);
          float *q = target + (TO_TOKENS ? place : at);
          for_lanes(features, [&](int i, int lanes) { store(q + i, load(p + i, lanes), lanes); });
        }
    });
  }

  // Calls body(target, source and weight of its four neighbours) for each value of a resized map, image by image.
  template <class From, class To, class Body>
  void for_neighbours(long b, const Side &rows, const Side &columns, From from, To to, Body body) const {
    for (size_t h = 0; h < rows.low.size(); ++h)
      for (size_t w = 0; w < columns.low.size(); ++w) {
        float down = rows.weight[h], right = columns.weight[w];
        const long sources[4] = {from(b, rows.low[h], columns.low[w]), from(b, rows.low[h], columns.high[w]),
                                 from(b, rows.high[h], columns.low[w]), from(b, rows.high[h], columns.high[w])};
        const float weights[4] = {(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right};
        body(to(b, h, w), sources, weights);
      }
  }
  template <class From, class To>
  void resize(Side rows, Side columns, const float *source, From from, float *target, To to) const {
    parallel(batch, [&](int, Range range) {
      for (long b = range.begin; b < range.end; ++b)
        for_neighbours(b, rows, columns, from, to, [&](long at, const long *sources, const float *weights) {
          for_lanes(features, [&](int i, int lanes) {
            Vec value{};
            for (int n = 0; n < 4; ++n) value += weights[n] * load(source + sources[n] + i, lanes);
            store(target + at + i, value, lanes);
          });
        });
    });
  }
  // Its gradient: of the sources, `size` floats an image, from that of the targets.
  template <class From, class To>
  void resize_grad(Side rows, Side columns, float *source, long size, From from, const float *target, To to) const {
    parallel(batch, [&](int, Range range) {
      for (long b = range.begin; b < range.end; ++b) {
        std::fill_n(source + b * size, size, 0.0f);
        for_neighbours(b, rows, columns, from, to, [&](long at, const long *sources, const float *weights) {
          for (int n = 0; n < 4; ++n)
            for_lanes(features, [&](int i, int lanes) {
              float *p = source + sources[n] + i;
              store(p, load(p, lanes) + weights[n] * load(target + at + i, lanes), lanes);
            });
        });
      }
    });
  }

  auto pixels() const {
    return [this](long b, long h, long w) { return pixel(b, h, w); };
  }
  auto tokens() const {
    return [this](long b, long h, long w) { return token(b, h, w); };
  }
};

}  // namespace

// x (B, H, W, D) -> tokens (B * 4, N, D)
OPERATOR(mvit_to_patches) {
  Patches p(in, 0);
  if (p.even()) return p.move<true>(in.floats(0), in.floats(1));
  p.resize(Side(p.height, p.even_height), Side(p.width, p.even_width), in.floats(0), p.pixels(), in.floats(1),
           p.tokens());
}

// dtokens, like (B, H, W, D) -> dx; of `like`, the shape alone counts
OPERATOR(mvit_to_patches_grad) {
  Patches p(in, 1);
  if (p.even()) return p.move<false>(in.floats(0), in.floats(2));
  p.resize_grad(Side(p.height, p.even_height), Side(p.width, p.even_width), in.floats(2),
                p.height * p.width * p.features, p.pixels(), in.floats(0), p.tokens());
}

// tokens, like (B, H, W, D) -> x
OPERATOR(mvit_from_patches) {
  Patches p(in, 1);
  if (p.even()) return p.move<false>(in.floats(0), in.floats(2));
  p.resize(Side(p.even_height, p.height), Side(p.even_width, p.width), in.floats(0), p.tokens(), in.floats(2),
           p.pixels());
}

// dx -> dtokens
OPERATOR(mvit_from_patches_grad) {
  Patches p(in, 0);
  if (p.even()) return p.move<true>(in.floats(0), in.floats(1));
  p.resize_grad(Side(p.even_height, p.height), Side(p.even_width, p.width), in.floats(1),
                p.even_height * p.even_width * p.features, p.tokens(), in.floats(0), p.pixels());
}

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

// x gamma beta constants mean rstd dy -> dx (dgamma dbeta)
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
  std::copy_n(sums.total(), 2 * norm.features, in.floats(8));
}

}  // namespace mvit
