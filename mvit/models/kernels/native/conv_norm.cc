// Convolution (1x1, or 3x3 with padding 1), BatchNorm, SiLU, channels-last: (B, H, W, I) -> (B, H', W', O).
//
//   y = conv(x, w),   u = a y + shift (see batch_norm.h),   z = silu(u)
//
// The backward makes dy = a du + c1 y + c0, du = silu'(u) dz, chunk by chunk and never writes it to memory; from it
// dw = dy^T x over all windows, and dx = the convolution of dy with w transposed, its taps reversed.

#include "batch_norm.h"
#include "bfloat16.h"
#include "matmul.h"
#include "operator.h"

namespace mvit {
namespace {

struct Geometry {
  long batch, height, width, out_height, out_width;
  int inputs, outputs, kernel, stride;

  Geometry(const Arguments &in, int x, int w, int z)
      : batch(in.dim(x, 0)), height(in.dim(x, 1)), width(in.dim(x, 2)), out_height(in.dim(z, 1)),
        out_width(in.dim(z, 2)), inputs(in.dim(x, 3)), outputs(in.dim(w, 0)), kernel(in.dim(w, 2)),
        stride(height == out_height && width == out_width ? 1 : 2) {}
  int taps() const { return kernel * kernel; }
  int window() const { return taps() * inputs; }
  long rows() const { return batch * out_height * out_width; }
};

// The weights as (taps x inputs, outputs), each output scaled.
Packed forward_weights(const Geometry &g, const float *w, const float *scale = nullptr) {
  return Packed(g.window(), g.outputs, [&](int row, int o) {
    float weight = w[((long)o * g.inputs + row % g.inputs) * g.taps() + row / g.inputs];
    return scale ? weight * scale[o] : weight;
  });
}

// The weights as (taps reversed x outputs, inputs).
Packed backward_weights(const Geometry &g, const float *w) {
  return Packed(g.taps() * g.outputs, g.inputs, [&](int row, int i) {
    return w[((long)(row % g.outputs) * g.inputs + i) * g.taps() + g.taps() - 1 - row / g.outputs];
  });
}

// Copies rows [first, first + count) of an image with a border of zeros; rows outside of the image are zero.
// fill(row, out) writes one row of pixels.
template <class Fill> void pad(float *out, long first, long count, long height, long width, int channels, Fill fill) {
  long row = (width + 2) * channels;
  for (long i = 0; i < count; ++i, out += row) {
    long h = first + i;
    if (h < 0 || h >= height) {
      std::fill(out, out + row, 0.0f);
      continue;
    }
    std::fill(out, out + channels, 0.0f);
    fill(h, out + channels);
    std::fill(out + row - channels, out + row, 0.0f);
  }
}

// Images cut into strips of output rows whose padded input fits the second-level cache.
struct Strips {
  const Geometry &g;
  long height, per_image;

  explicit Strips(const Geometry &g) : g(g) {
    constexpr long budget = 1 << 16;  // floats
    long row = (g.width + 2) * std::max(g.inputs, g.outputs) * g.stride;
    height = std::min(g.out_height, std::max<long>(4, budget / row));
    per_image = (g.out_height + height - 1) / height;
  }
  long count() const { return g.batch * per_image; }
  long padded_row() const { return (g.width + 2) * g.inputs; }
  long padded_rows() const { return (height - 1) * g.stride + 3; }

  struct Strip {
    long image, first, rows;
  };
  Strip at(long i) const {
    long first = i % per_image * height;
    return {i / per_image, first, std::min(height, g.out_height - first)};
  }
  // The padded input of a strip.
  const float *input(const Strip &strip, const float *x, float *out) const {
    const float *image = x + strip.image * g.height * g.width * g.inputs;
    pad(out, strip.first * g.stride - 1, (strip.rows - 1) * g.stride + 3, g.height, g.width, g.inputs,
        [&](long h, float *to) { memcpy(to, image + h * g.width * g.inputs, 4 * g.width * g.inputs); });
    return out;
  }
};

// y = conv(x) + bias; calls done(part, begin, rows) for rows of y that are complete, still in the cache.
template <class T, class Done>
void convolve(const Geometry &g, const float *x, const Packed &weights, const float *bias, T *y, Done done) {
  if (g.kernel == 1) {
    parallel(g.rows(), [&](int part, Range range) {
      Made<T> made(1, y, CHUNK * g.outputs);
      for_chunks(range, [&](long r, long rows) {
        multiply(rows, {x + r * g.inputs, g.inputs, g.inputs}, weights.data(), g.outputs, bias, made.at(r * g.outputs),
                 g.outputs);
        made.done(r * g.outputs, rows * g.outputs);
        done(part, r, rows);
      });
    });
    return;
  }
  Strips strips(g);
  parallel(strips.count(), [&](int part, Range range) {
    float *padded = scratch.get(0, strips.padded_rows() * strips.padded_row());
    Made<T> made(1, y, g.out_width * g.outputs);
    for (long i = range.begin; i < range.end; ++i) {
      auto strip = strips.at(i);
      const float *input = strips.input(strip, x, padded);
      for (long h = 0; h < strip.rows; ++h) {
        long row = (strip.image * g.out_height + strip.first + h) * g.out_width;
        multiply(g.out_width,
                 {input + h * g.stride * strips.padded_row(), (long)g.stride * g.inputs, 3 * g.inputs, 3,
                  strips.padded_row()},
                 weights.data(), g.outputs, bias, made.at(row * g.outputs), g.outputs);
        made.done(row * g.outputs, g.out_width * g.outputs);
      }
      long begin = (strip.image * g.out_height + strip.first) * g.out_width, end = begin + strip.rows * g.out_width;
      for_chunks({begin, end}, [&](long r, long rows) { done(part, r, rows); });
    }
  });
}

// dw (O, taps, I) as the sums over windows leave it, to the (O, I, taps) of the weights.
void reorder(const Geometry &g, const float *sums, float *dw) {
  for (long o = 0; o < g.outputs; ++o)
    for (int i = 0; i < g.inputs; ++i)
      for (int tap = 0; tap < g.taps(); ++tap)
        *dw++ = sums[(o * g.taps() + tap) * g.inputs + i];
}

// T is what y is kept as.
void forward(const Arguments &in) {
  // x w gamma beta moving_mean moving_variance constants(eps, kept) -> z y saved(mean, rstd)
  Geometry g(in, 0, 1, 7);
  float *z = in.floats(7);
  Kept *y = in.as<Kept>(8);
  BatchNorm norm(g.outputs, in.floats(2), in.floats(3));
  std::vector<Moments> moments(num_threads, Moments(g.outputs));
  convolve(g, in.floats(0), forward_weights(g, in.floats(1)), nullptr, y,
           [&](int part, long begin, long rows) { moments[part].add(rows, y + begin * g.outputs); });
  norm.of_batch(moments, in.floats(6)[0], in.floats(6)[1], in.floats(9), in.floats(4), in.floats(5));
  parallel(g.rows(), [&](int, Range range) {
    for_chunks(range, [&](long r, long rows) {
      activate(norm, rows, y + r * g.outputs, z + r * g.outputs, nullptr);
    });
  });
}

void backward(const Arguments &in, bool with_dx) {
  // x w gamma beta y saved dz -> (dw dgamma dbeta) [dx]
  Geometry g(in, 0, 1, 4);
  const float *x = in.floats(0), *w = in.floats(1), *saved = in.floats(5), *dz = in.floats(6);
  const Kept *y = in.as<Kept>(4);
  float *dx = with_dx ? in.floats(8) : nullptr;
  int outputs = g.outputs;
  Pieces gradients{in.floats(7)};
  float *of_w = gradients.take(in.size(1)), *dgamma = gradients.take(outputs), *dbeta = gradients.take(outputs);
  BatchNorm norm(outputs, in.floats(2), in.floats(3));
  norm.of_saved(saved);
  BatchNormGradient gradient(outputs);

  parallel(g.rows(), [&](int part, Range range) {
    for_chunks(range, [&](long begin, long rows) {
      for_lanes(outputs, [&](int c, int lanes) {
        Vec s1{}, s2{}, mean = load(saved + c, lanes);
        for (long r = begin; r < begin + rows; ++r) {
          Vec at = load(y + r * outputs + c, lanes);
          Vec du = load(dz + r * outputs + c, lanes) * Silu(norm.apply(at, c, lanes)).slope;
          s1 += du;
          s2 += du * (at - mean);
        }
        gradient.add(part, c, lanes, s1, s2);
      });
    });
  });
  gradient.finish((double)g.rows(), norm, saved, dgamma, dbeta);

  auto make_dy = [&](long begin, long rows, float *dy) {
    for_lanes(outputs, [&](int c, int lanes) {
      Vec a = load(&norm.a[c], lanes), c0 = load(&gradient.c0[c], lanes), c1 = load(&gradient.c1[c], lanes);
      for (long r = 0; r < rows; ++r) {
        Vec at = load(y + (begin + r) * outputs + c, lanes);
        Vec du = load(dz + (begin + r) * outputs + c, lanes) * Silu(norm.apply(at, c, lanes)).slope;
        store(dy + r * outputs + c, a * du + c1 * at + c0, lanes);
      }
    });
  };

  Partials dw((size_t)outputs * g.window());
  Packed weights = with_dx ? backward_weights(g, w) : Packed(0, 0, [](int, int) { return 0.0f; });
  if (g.kernel == 1) {
    parallel(g.rows(), [&](int part, Range range) {
      float *dy = scratch.get(1, CHUNK * outputs);
      for_chunks(range, [&](long r, long rows) {
        make_dy(r, rows, dy);
        add_outer(rows, dy, outputs, x + r * g.inputs, g.inputs, g.inputs, dw.of(part));
        if (with_dx)
          multiply(rows, {dy, outputs, outputs}, weights.data(), g.inputs, nullptr, dx + r * g.inputs, g.inputs);
      });
    });
  } else {
    Strips strips(g);
    long dy_row = (g.out_width + 2) * outputs;
    parallel(strips.count(), [&](int part, Range range) {
      float *padded = scratch.get(0, strips.padded_rows() * strips.padded_row());
      float *dy = scratch.get(1, (strips.height + 2) * dy_row);
      for (long i = range.begin; i < range.end; ++i) {
        auto strip = strips.at(i);
        const float *input = strips.input(strip, x, padded);
        long image = strip.image * g.out_height;
        pad(dy, strip.first - 1, strip.rows + 2, g.out_height, g.out_width, outputs,
            [&](long h, float *to) { make_dy((image + h) * g.out_width, g.out_width, to); });
        for (int tap_row = 0; tap_row < 3; ++tap_row)
          add_outer({strip.rows, g.out_width, dy + dy_row + outputs, outputs, dy_row,
                     input + tap_row * strips.padded_row(), (long)g.stride * g.inputs,
                     g.stride * strips.padded_row()},
                    outputs, 3 * g.inputs, dw.of(part) + tap_row * 3 * g.inputs, g.window());
        if (with_dx)  // of stride 1
          for (long h = 0; h < strip.rows; ++h)
            multiply(g.width, {dy + h * dy_row, outputs, 3 * outputs, 3, dy_row}, weights.data(), g.inputs, nullptr,
                     dx + ((image + strip.first + h) * g.width) * g.inputs, g.inputs);
      }
    });
  }
  reorder(g, dw.total(), of_w);
}

}  // namespace

// The running statistics move in place.
OPERATOR(mvit_conv_norm) { forward(in); }

OPERATOR(mvit_conv_norm_grad) { backward(in, true); }

OPERATOR(mvit_conv_norm_grad_weights) { backward(in, false); }

// x w gamma beta moving_mean moving_variance constants(eps, kept) -> z, with the running statistics folded into w
OPERATOR(mvit_conv_norm_eval) {
  Geometry g(in, 0, 1, 7);
  float *z = in.floats(7);
  BatchNorm norm(g.outputs, in.floats(2), in.floats(3));
  norm.of_running(in.floats(6)[0], in.floats(4), in.floats(5));
  convolve(g, in.floats(0), forward_weights(g, in.floats(1), norm.a.data()), norm.shift.data(), z,
           [&](int, long begin, long rows) {
             for_lanes((int)rows * g.outputs, [&](int i, int lanes) {
               float *p = z + begin * g.outputs + i;
               store(p, silu(load(p, lanes)), lanes);
             });
           });
}

}  // namespace mvit
