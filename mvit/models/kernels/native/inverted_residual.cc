// MobileNetV2's inverted residual block (arXiv 1801.04381) as one operator, channels-last: (B, H, W, I) -> (B, H', W', O).
//
//   y1 = x w1 (1x1),   y2 = depthwise 3x3 of silu(u1),   y3 = silu(u2) w3 (1x1),   z = u3 (+ x if the shape is kept)
//   u = a y + shift for each of the three (see batch_norm.h)
//
// y1, y2 and y3 are kept; what follows from them element by element - u, silu(u), silu'(u), dy - is made in the cache
// where it is used, once. So the hidden maps, the largest of the network, are written and read once in the forward
// pass, and read twice and written once in the backward pass:
//
//   A  dy3 from dz;   dw3 = dy3^T silu(u2);   du2 = (dy3 w3^T) silu'(u2)
//   B  dy2 from du2;   dw2 = dy2 * silu(u1) by taps;   du1 = (dy2 * taps reversed) silu'(u1)
//   C  dy1 from du1;   dw1 = dy1^T x;   dx = dy1 w1^T (+ dz)

#include <tuple>

#include "batch_norm.h"
#include "bfloat16.h"
#include "matmul.h"
#include "operator.h"

namespace mvit {
namespace {

struct Block {
  long batch, height, width, out_height, out_width;
  int inputs, hidden, outputs, stride;
  bool residual;

  // constants: eps, kept, stride
  Block(const Arguments &in, int x, int w1, int constants, int z)
      : batch(in.dim(x, 0)), height(in.dim(x, 1)), width(in.dim(x, 2)), out_height(in.dim(z, 1)),
        out_width(in.dim(z, 2)), inputs(in.dim(x, 3)), hidden(in.dim(w1, 0)), outputs(in.dim(z, 3)),
        stride((int)in.floats(constants)[2]), residual(stride == 1 && inputs == outputs) {}
  long rows() const { return batch * height * width; }
  long out_rows() const { return batch * out_height * out_width; }
};

// Depthwise weights (channels, 9) as (9, channels), each channel scaled.
std::vector<float> taps_of(const float *w, int channels, const float *scale = nullptr) {
  std::vector<float> taps(9 * channels);
  for (int c = 0; c < channels; ++c)
    for (int tap = 0; tap < 9; ++tap) taps[tap * channels + c] = w[c * 9 + tap] * (scale ? scale[c] : 1.0f);
  return taps;
}

// A window that slides down an image: the last rows of a map, with a zero pixel at both ends of each, and zero rows
// above and below the image.
class Window {
 public:
  Window(int slot, long height, long width, int channels)
      : height_(height), row_((width + 2) * channels), channels_(channels), next_(LONG_MIN),
        rows_(scratch.get(slot, HELD * row_)) {
    for (int i = 0; i < HELD; ++i) {
      std::fill_n(rows_ + i * row_, channels, 0.0f);
      std::fill_n(rows_ + (i + 1) * row_ - channels, channels, 0.0f);
    }
  }
  // Forget all rows: another image begins, or another place in it.
  void restart(long first) { next_ = first; }
  // Make rows up to and including `last`; fill(h, out) writes the pixels of row h.
  template <class Fill> void advance(long last, Fill fill) {
    for (; next_ <= last; ++next_) {
      float *out = row(next_) + channels_;
      if (next_ < 0 || next_ >= height_)
        std::fill_n(out, row_ - 2 * channels_, 0.0f);
      else
        fill(next_, out);
    }
  }
  // Row h, from the zero pixel before its first one.
  float *row(long h) const { return rows_ + ((h + HELD) % HELD) * row_; }

 private:
  static constexpr long HELD = 4;
  long height_, row_;
  int channels_;
  long next_;
  float *rows_;
};

// out[o] = the 3x3 window around pixel o * stride, for each channel; finish(c, lanes, o, value) takes it.
template <class Finish>
INLINE void depthwise_row(const float *above, const float *at, const float *below, int stride, long out_width,
                          int channels, const float *taps, bool reversed, Finish finish) {
  for_lanes(channels, [&](int c, int lanes) {
    Vec w[9];
    for (int tap = 0; tap < 9; ++tap) w[tap] = load(taps + (reversed ? 8 - tap : tap) * channels + c, lanes);
    const float *p0 = above + c, *p1 = at + c, *p2 = below + c;
    long step = (long)stride * channels;
    for (long o = 0; o < out_width; ++o, p0 += step, p1 += step, p2 += step) {
      Vec v0 = w[0] * load(p0, lanes), v1 = w[3] * load(p1, lanes), v2 = w[6] * load(p2, lanes);
      v0 += w[1] * load(p0 + channels, lanes);
      v1 += w[4] * load(p1 + channels, lanes);
      v2 += w[7] * load(p2 + channels, lanes);
      v0 += w[2] * load(p0 + 2 * channels, lanes);
      v1 += w[5] * load(p1 + 2 * channels, lanes);
      v2 += w[8] * load(p2 + 2 * channels, lanes);
      finish(c, lanes, o, v0 + v1 + v2);
    }
  });
}

// dtaps += the products of a row of dy with the three rows of its windows.
INLINE void add_taps(const float *dy, const float *above, const float *at, const float *below, int stride,
                     long out_width, int channels, float *dtaps) {
  for_lanes(channels, [&](int c, int lanes) {
    Vec sums[9];
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) sums[tap] = load(dtaps + tap * channels + c, lanes);
    const float *p0 = above + c, *p1 = at + c, *p2 = below + c, *g = dy + c;
    long step = (long)stride * channels;
    for (long o = 0; o < out_width; ++o, p0 += step, p1 += step, p2 += step, g += channels) {
      Vec d = load(g, lanes);
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) {
        sums[j] += d * load(p0 + j * channels, lanes);
        sums[3 + j] += d * load(p1 + j * channels, lanes);
        sums[6 + j] += d * load(p2 + j * channels, lanes);
      }
    }
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) store(dtaps + tap * channels + c, sums[tap], lanes);
  });
}

// The gradient of a depthwise convolution of stride 2: rows 2 h and, if the image has it, 2 h + 1 of dx from rows h and
// h + 1 of dy. Each pixel is reached by the taps of its parity: (1, 1) for even
// pixels of even rows, four corners for odd pixels of odd rows.
template <class Finish>
INLINE void depthwise_row_transposed(const float *dy, const float *dy_below, long width, int channels,
                                     const float *taps, bool has_odd, Finish finish) {
  for_lanes(channels, [&](int c, int lanes) {
    Vec w[9];
    for (int tap = 0; tap < 9; ++tap) w[tap] = load(taps + tap * channels + c, lanes);
    const float *p = dy + channels + c, *q = dy_below + channels + c;
    Vec here = load(p, lanes), below = load(q, lanes);
    for (long i = 0; i < width; i += 2) {
      p += channels;
      q += channels;
      Vec right = load(p, lanes), below_right = load(q, lanes);
      finish(c, lanes, 0, i, w[4] * here);
      if (has_odd) finish(c, lanes, 1, i, w[7] * here + w[1] * below);
      if (i + 1 < width) {
        finish(c, lanes, 0, i + 1, w[5] * here + w[3] * right);
        if (has_odd) finish(c, lanes, 1, i + 1, (w[8] * here + w[6] * right) + (w[2] * below + w[0] * below_right));
      }
      here = right;
      below = below_right;
    }
  });
}

// x, three times (w gamma beta moving_mean moving_variance), constants(eps, kept)
enum { X = 0, EXPAND = 1, DEPTHWISE = 6, PROJECT = 11, CONSTANTS = 16 };

BatchNorm norm_at(const Arguments &in, int conv, int channels) {
  return BatchNorm(channels, in.floats(conv + 1), in.floats(conv + 2));
}

}  // namespace

// -> z y1 y2 y3 saved(mean and rstd of each norm). The running statistics move in place.
OPERATOR(mvit_inverted_residual) {
  Block b(in, X, EXPAND, CONSTANTS, 17);
  const float *x = in.floats(X), eps = in.floats(CONSTANTS)[0], kept = in.floats(CONSTANTS)[1];
  float *z = in.floats(17), *saved = in.floats(21);
  Kept *y1 = in.as<Kept>(18), *y2 = in.as<Kept>(19), *y3 = in.as<Kept>(20);
  int hidden = b.hidden, outputs = b.outputs;
  auto of_batch = [&](BatchNorm &norm, std::vector<Moments> &moments, int conv, float *to) {
    norm.of_batch(moments, eps, kept, to, in.floats(conv + 3), in.floats(conv + 4));
  };

  Packed w1 = transposed(in.floats(EXPAND), hidden, b.inputs);
  std::vector<Moments> moments1(num_threads, Moments(hidden));
  parallel(b.rows(), [&](int part, Range range) {
    Made<Kept> made(0, y1, CHUNK * hidden);
    for_chunks(range, [&](long r, long rows) {
      float *out = made.at(r * hidden);
      multiply(rows, {x + r * b.inputs, b.inputs, b.inputs}, w1.data(), hidden, nullptr, out, hidden);
      made.done(r * hidden, rows * hidden);
      moments1[part].add(rows, y1 + r * hidden);
    });
  });
  BatchNorm norm1 = norm_at(in, EXPAND, hidden);
  of_batch(norm1, moments1, EXPAND, saved);

  auto taps = taps_of(in.floats(DEPTHWISE), hidden);
  std::vector<Moments> moments2(num_threads, Moments(hidden));
  parallel(b.batch * b.out_height, [&](int part, Range range) {
    Window window(0, b.height, b.width, hidden);
    Made<Kept> made(1, y2, b.out_width * hidden);
    Chunks chunks(range.begin * b.out_width,
                  [&](long begin, long rows) { moments2[part].add(rows, y2 + begin * hidden); });
    for (long at = range.begin; at < range.end; ++at) {
      long image = at / b.out_height, h = at % b.out_height, top = h * b.stride - 1;
      if (h == 0 || at == range.begin) window.restart(top);
      window.advance(top + 2, [&](long row, float *out) {
        activate(norm1, b.width, y1 + (image * b.height + row) * b.width * hidden, out, nullptr);
      });
      float *out = made.at(at * b.out_width * hidden);
      depthwise_row(window.row(top), window.row(top + 1), window.row(top + 2), b.stride, b.out_width, hidden,
                    taps.data(), false,
                    [&](int c, int lanes, long o, Vec v) { store(out + o * hidden + c, v, lanes); });
      made.done(at * b.out_width * hidden, b.out_width * hidden);
      chunks.complete((at + 1) * b.out_width, at + 1 == range.end);
    }
  });
  BatchNorm norm2 = norm_at(in, DEPTHWISE, hidden);
  of_batch(norm2, moments2, DEPTHWISE, saved + 2 * hidden);

  Packed w3 = transposed(in.floats(PROJECT), outputs, hidden);
  std::vector<Moments> moments3(num_threads, Moments(outputs));
  parallel(b.out_rows(), [&](int part, Range range) {
    float *active = scratch.get(0, CHUNK * hidden);
    Made<Kept> made(1, y3, CHUNK * outputs);
    for_chunks(range, [&](long r, long rows) {
      activate(norm2, rows, y2 + r * hidden, active, nullptr);
      multiply(rows, {active, hidden, hidden}, w3.data(), outputs, nullptr, made.at(r * outputs), outputs);
      made.done(r * outputs, rows * outputs);
      moments3[part].add(rows, y3 + r * outputs);
    });
  });
  BatchNorm norm3 = norm_at(in, PROJECT, outputs);
  of_batch(norm3, moments3, PROJECT, saved + 4 * hidden);

  parallel(b.out_rows(), [&](int, Range range) {
    for_chunks(range, [&](long r, long rows) {
      for_lanes(outputs, [&](int c, int lanes) {
        Vec a = load(&norm3.a[c], lanes), shift = load(&norm3.shift[c], lanes);
        for (long i = r * outputs + c; i < (r + rows) * outputs; i += outputs) {
          Vec u = a * load(y3 + i, lanes) + shift;
          store(z + i, b.residual ? u + load(x + i, lanes) : u, lanes);
        }
      });
    });
  });
}

// x, three times (w gamma beta), y1 y2 y3 saved constants dz -> dx, (three times dw dgamma dbeta)
OPERATOR(mvit_inverted_residual_grad) {
  Block b(in, 0, 1, 14, 15);
  int hidden = b.hidden, outputs = b.outputs;
  const float *x = in.floats(0);
  const Kept *y1 = in.as<Kept>(10), *y2 = in.as<Kept>(11), *y3 = in.as<Kept>(12);
  const float *saved1 = in.floats(13), *saved2 = saved1 + 2 * hidden, *saved3 = saved2 + 2 * hidden;
  const float *dz = in.floats(15);
  float *dx = in.floats(16);
  Pieces gradients{in.floats(17)};
  auto of_conv = [&](int weights, int channels) {
    float *dw = gradients.take(in.size(weights)), *dgamma = gradients.take(channels);
    return std::make_tuple(dw, dgamma, gradients.take(channels));
  };
  auto [of_w1, dgamma1, dbeta1] = of_conv(1, hidden);
  auto [of_w2, dgamma2, dbeta2] = of_conv(4, hidden);
  auto [of_w3, dgamma3, dbeta3] = of_conv(7, outputs);
  BatchNorm norm1(hidden, in.floats(2), in.floats(3)), norm2(hidden, in.floats(5), in.floats(6));
  BatchNorm norm3(outputs, in.floats(8), in.floats(9));
  norm1.of_saved(saved1);
  norm2.of_saved(saved2);
  norm3.of_saved(saved3);
  BatchNormGradient gradient1(hidden), gradient2(hidden), gradient3(outputs);

  parallel(b.out_rows(), [&](int part, Range range) {
    for_chunks(range, [&](long r, long rows) {
      gradient3.add(part, rows, y3 + r * outputs, dz + r * outputs, saved3);
    });
  });
  gradient3.finish((double)b.out_rows(), norm3, saved3, dgamma3, dbeta3);

  // A: projection
  float *du2 = scratch.get(20, b.out_rows() * hidden);
  Packed w3 = as_is(in.floats(7), outputs, hidden);
  Partials dw3((size_t)outputs * hidden);
  parallel(b.out_rows(), [&](int part, Range range) {
    float *dy3 = scratch.get(0, CHUNK * outputs);
    float *active = scratch.get(1, CHUNK * hidden), *slope = scratch.get(2, CHUNK * hidden);
    for_chunks(range, [&](long r, long rows) {
      norm_gradient(norm3, gradient3, rows, y3 + r * outputs, dz + r * outputs, dy3);
      activate(norm2, rows, y2 + r * hidden, active, slope);
      add_outer(rows, dy3, outputs, active, hidden, hidden, dw3.of(part));
      float *du = du2 + r * hidden;
      multiply(rows, {dy3, outputs, outputs}, w3.data(), hidden, nullptr, du, hidden);
      for_lanes((int)rows * hidden,
                [&](int i, int lanes) { store(du + i, load(du + i, lanes) * load(slope + i, lanes), lanes); });
      gradient2.add(part, rows, y2 + r * hidden, du, saved2);
    });
  });
  std::copy_n(dw3.total(), (long)outputs * hidden, of_w3);
  gradient2.finish((double)b.out_rows(), norm2, saved2, dgamma2, dbeta2);

  // B: depthwise
  float *du1 = scratch.get(21, b.rows() * hidden);
  auto taps = taps_of(in.floats(4), hidden);
  Partials dtaps(9 * hidden);
  parallel(b.batch * b.out_height, [&](int part, Range range) {
    Window active(0, b.height, b.width, hidden), slope(1, b.height, b.width, hidden);  // slope is filled beside active
    Window dy2(2, b.out_height, b.out_width, hidden);
    for (long at = range.begin; at < range.end; ++at) {
      long image = at / b.out_height, h = at % b.out_height, top = h * b.stride - 1;
      if (h == 0 || at == range.begin) {
        active.restart(top);
        dy2.restart(b.stride == 1 ? h - 1 : h);
      }
      active.advance(top + 2, [&](long row, float *out) {
        activate(norm1, b.width, y1 + (image * b.height + row) * b.width * hidden, out, slope.row(row) + hidden);
      });
      dy2.advance(h + 1, [&](long row, float *out) {
        long first = (image * b.out_height + row) * b.out_width * hidden;
        norm_gradient(norm2, gradient2, b.out_width, y2 + first, du2 + first, out);
      });
      add_taps(dy2.row(h) + hidden, active.row(top), active.row(top + 1), active.row(top + 2), b.stride, b.out_width,
               hidden, dtaps.of(part));

      long first_row = h * b.stride, num_rows = std::min<long>(b.stride, b.height - first_row);
      long first = (image * b.height + first_row) * b.width * hidden;
      const float *slopes[2] = {slope.row(first_row) + hidden, slope.row(first_row + 1) + hidden};
      auto finish = [&](int c, int lanes, int row, long i, Vec d) {
        long offset = i * hidden + c;
        store(du1 + first + row * b.width * hidden + offset, d * load(slopes[row] + offset, lanes), lanes);
      };
      if (b.stride == 1)
        depthwise_row(dy2.row(h - 1), dy2.row(h), dy2.row(h + 1), 1, b.width, hidden, taps.data(), true,
                      [&](int c, int lanes, long i, Vec d) { finish(c, lanes, 0, i, d); });
      else
        depthwise_row_transposed(dy2.row(h), dy2.row(h + 1), b.width, hidden, taps.data(), num_rows == 2, finish);
      gradient1.add(part, num_rows * b.width, y1 + first, du1 + first, saved1);
    }
  });
  const float *dw2 = dtaps.total();
  for (int c = 0; c < hidden; ++c)
    for (int tap = 0; tap < 9; ++tap) of_w2[c * 9 + tap] = dw2[tap * hidden + c];
  gradient1.finish((double)b.rows(), norm1, saved1, dgamma1, dbeta1);

  // C: expansion
  Packed w1 = as_is(in.floats(1), hidden, b.inputs);
  Partials dw1((size_t)hidden * b.inputs);
  parallel(b.rows(), [&](int part, Range range) {
    float *dy1 = scratch.get(0, CHUNK * hidden);
    for_chunks(range, [&](long r, long rows) {
      norm_gradient(norm1, gradient1, rows, y1 + r * hidden, du1 + r * hidden, dy1);
      add_outer(rows, dy1, hidden, x + r * b.inputs, b.inputs, b.inputs, dw1.of(part));
      float *out = dx + r * b.inputs;
      multiply(rows, {dy1, hidden, hidden}, w1.data(), b.inputs, nullptr, out, b.inputs);
      if (b.residual)
        for_lanes((int)rows * b.inputs, [&](int i, int lanes) {
          store(out + i, load(out + i, lanes) + load(dz + r * b.inputs + i, lanes), lanes);
        });
    });
  });
  std::copy_n(dw1.total(), (long)hidden * b.inputs, of_w1);
}

// -> z, with the running statistics folded into the weights; the hidden maps never leave the cache.
OPERATOR(mvit_inverted_residual_eval) {
  Block b(in, X, EXPAND, CONSTANTS, 17);
  const float *x = in.floats(X), eps = in.floats(CONSTANTS)[0];
  float *z = in.floats(17);
  int hidden = b.hidden, outputs = b.outputs;
  auto folded = [&](int conv, int channels) {
    BatchNorm norm = norm_at(in, conv, channels);
    norm.of_running(eps, in.floats(conv + 3), in.floats(conv + 4));
    return norm;
  };
  BatchNorm norm1 = folded(EXPAND, hidden), norm2 = folded(DEPTHWISE, hidden), norm3 = folded(PROJECT, outputs);
  Packed w1 = transposed(in.floats(EXPAND), hidden, b.inputs, norm1.a.data());
  Packed w3 = transposed(in.floats(PROJECT), outputs, hidden, norm3.a.data());
  auto taps = taps_of(in.floats(DEPTHWISE), hidden, norm2.a.data());
  parallel(b.batch * b.out_height, [&](int, Range range) {
    Window window(0, b.height, b.width, hidden);
    float *active = scratch.get(1, b.out_width * hidden);
    for (long at = range.begin; at < range.end; ++at) {
      long image = at / b.out_height, h = at % b.out_height, top = h * b.stride - 1;
      if (h == 0 || at == range.begin) window.restart(top);
      window.advance(top + 2, [&](long row, float *out) {
        multiply(b.width, {x + (image * b.height + row) * b.width * b.inputs, b.inputs, b.inputs}, w1.data(), hidden,
                 norm1.shift.data(), out, hidden);
        for_lanes((int)b.width * hidden, [&](int i, int lanes) { store(out + i, silu(load(out + i, lanes)), lanes); });
      });
      depthwise_row(window.row(top), window.row(top + 1), window.row(top + 2), b.stride, b.out_width, hidden,
                    taps.data(), false, [&](int c, int lanes, long o, Vec v) {
                      store(active + o * hidden + c, silu(v + load(&norm2.shift[c], lanes)), lanes);
                    });
      float *out = z + at * b.out_width * outputs;
      multiply(b.out_width, {active, hidden, hidden}, w3.data(), outputs, norm3.shift.data(), out, outputs);
      if (b.residual)
        for_lanes((int)b.width * outputs, [&](int i, int lanes) {
          store(out + i, load(out + i, lanes) + load(x + at * b.width * outputs + i, lanes), lanes);
        });
    }
  });
}

}  // namespace mvit
