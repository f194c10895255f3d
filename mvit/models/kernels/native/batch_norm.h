// BatchNorm (Ioffe and Szegedy, arXiv 1502.03167) over rows of channels, as part of other operators.
//
//   u = gamma (y - mean) / sqrt(variance + eps) + beta = a y + shift,   a = gamma rstd,   shift = beta - a mean
//
// Its gradient, for M rows, with s1 = sum(du) and s2 = sum(du (y - mean)):
//
//   dbeta = s1,   dgamma = rstd s2
//   dy = a (du - s1 / M - (y - mean) rstd^2 s2 / M) = a du + c1 y + c0
//   c1 = -a rstd^2 s2 / M,   c0 = -a s1 / M - c1 mean
//
// y may be kept as bfloat16. Then mean, variance and all that follows are of what was kept, so that the gradient is that
// of a network which rounds there.

#pragma once

#include <cmath>
#include <vector>

#include "parallel.h"
#include "vector.h"

namespace mvit {

// Mean and squared deviations of each channel, merged from chunks by the rule of Chan, Golub and LeVeque (1979): sums
// of squares alone would cancel where the mean is large.
class Moments {
 public:
  explicit Moments(int channels)
      : channels_(channels), mean_(channels), squares_(channels), chunk_mean_(channels), chunk_squares_(channels) {}

  template <class T> void add(long rows, const T *y) {
    for_lanes(channels_, [&](int c, int lanes) {
      // Deviations from any value near the mean; the first row's is one.
      Vec pivot = load(y + c, lanes), first{}, second{};
      for (long r = 0; r < rows; ++r) {
        Vec v = load(y + r * channels_ + c, lanes) - pivot;
        first += v;
        second += v * v;
      }
      for (int i = 0; i < lanes; ++i) {
        double s1 = first[i], s2 = second[i];
        chunk_mean_[c + i] = pivot[i] + s1 / rows;
        chunk_squares_[c + i] = s2 - s1 * s1 / rows;
      }
    });
    merge(rows, chunk_mean_.data(), chunk_squares_.data());
  }
  void merge(const Moments &other) { merge(other.count_, other.mean_.data(), other.squares_.data()); }

  double mean(int c) const { return mean_[c]; }
  double variance(int c) const { return squares_[c] > 0 || std::isnan(squares_[c]) ? squares_[c] / count_ : 0.0; }
  double count() const { return count_; }

 private:
  void merge(double count, const double *mean, const double *squares) {
    if (count == 0) return;
    double total = count_ + count, share = count / total, weight = count_ * share;
    for (int c = 0; c < channels_; ++c) {
      double apart = mean[c] - mean_[c];
      mean_[c] += apart * share;
      squares_[c] += squares[c] + apart * apart * weight;
    }
    count_ = total;
  }

  int channels_;
  double count_ = 0;
  std::vector<double> mean_, squares_, chunk_mean_, chunk_squares_;
};

// Calls add(begin, rows) for rows of a range in chunks, as they become complete.
template <class Add> class Chunks {
 public:
  Chunks(long begin, Add add) : begin_(begin), add_(add) {}
  void complete(long end, bool last) {
    for (; begin_ + CHUNK <= end || (last && begin_ < end); ) {
      long rows = std::min<long>(CHUNK, end - begin_);
      add_(begin_, rows);
      begin_ += rows;
    }
  }

 private:
  long begin_;
  Add add_;
};

struct BatchNorm {
  int channels;
  const float *gamma, *beta;
  std::vector<float> a, shift;

  BatchNorm(int channels, const float *gamma, const float *beta)
      : channels(channels), gamma(gamma), beta(beta), a(channels), shift(channels) {}

  // By the batch. Writes mean and rstd (channels each) to `saved`, and moves the running statistics; like PyTorch's and
  // MindSpore's, the running variance is the unbiased one.
  void of_batch(std::vector<Moments> &parts, float eps, float kept, float *saved, float *moving_mean,
                float *moving_variance) {
    Moments &all = parts[0];
    for (size_t part = 1; part < parts.size(); ++part) all.merge(parts[part]);
    double unbiased = all.count() / std::max(1.0, all.count() - 1);
    for (int c = 0; c < channels; ++c) {
      double mean = all.mean(c), variance = all.variance(c), rstd = 1 / std::sqrt(variance + eps);
      saved[c] = (float)mean;
      saved[channels + c] = (float)rstd;
      moving_mean[c] = kept * moving_mean[c] + (1 - kept) * (float)mean;
      moving_variance[c] = kept * moving_variance[c] + (1 - kept) * (float)(variance * unbiased);
      set(c, mean, rstd);
    }
  }
  // By what `of_batch` saved.
  void of_saved(const float *saved) {
    for (int c = 0; c < channels; ++c) set(c, saved[c], saved[channels + c]);
  }
  // By the running statistics.
  void of_running(float eps, const float *moving_mean, const float *moving_variance) {
    for (int c = 0; c < channels; ++c) set(c, moving_mean[c], 1 / std::sqrt((double)moving_variance[c] + eps));
  }
  INLINE Vec apply(Vec y, int c, int lanes) const { return y * load(&a[c], lanes) + load(&shift[c], lanes); }

 private:
  void set(int c, double mean, double rstd) {
    double scale = gamma[c] * rstd;
    a[c] = (float)scale;
    shift[c] = (float)(beta[c] - mean * scale);
  }
};

// Its gradient: the sums first, then dy row by row.
class BatchNormGradient {
 public:
  int channels;
  std::vector<float> c0, c1;

  explicit BatchNormGradient(int channels)
      : channels(channels), c0(channels), c1(channels), sums_(num_threads, std::vector<double>(2 * channels)) {}

  // Adds to one part the sums over some rows.
  template <class T> void add(int part, long rows, const T *y, const float *du, const float *mean) {
    for_lanes(channels, [&](int c, int lanes) {
      Vec s1{}, s2{}, center = load(mean + c, lanes);
      for (long i = c; i < rows * channels; i += channels) {
        Vec d = load(du + i, lanes);
        s1 += d;
        s2 += d * (load(y + i, lanes) - center);
      }
      add(part, c, lanes, s1, s2);
    });
  }
  // Adds the sums over some rows of lanes c, c + 1, ...: of du, and of du (y - mean).
  INLINE void add(int part, int c, int lanes, Vec du, Vec du_y) {
    double *s1 = sums_[part].data() + c, *s2 = s1 + channels;
    for (int i = 0; i < lanes; ++i) {
      s1[i] += du[i];
      s2[i] += du_y[i];
    }
  }
  void finish(double rows, const BatchNorm &norm, const float *saved, float *dgamma, float *dbeta) {
    const float *mean = saved, *rstd = saved + channels;
    for (int c = 0; c < channels; ++c) {
      double s1 = 0, s2 = 0;
      for (const auto &sums : sums_) {
        s1 += sums[c];
        s2 += sums[channels + c];
      }
      dbeta[c] = (float)s1;
      dgamma[c] = (float)(s2 * rstd[c]);
      double slope = -(double)norm.a[c] * rstd[c] * rstd[c] * s2 / rows;
      c1[c] = (float)slope;
      c0[c] = (float)(-norm.a[c] * s1 / rows - slope * mean[c]);
    }
  }

 private:
  std::vector<std::vector<double>> sums_;
};

// SiLU(u) = u s(u), and its derivative s (1 + u (1 - s)) = s + silu (1 - s).
struct Silu {
  Vec value, slope;
  INLINE explicit Silu(Vec u) {
    Vec s = sigmoid(u);
    value = u * s;
    slope = s + value * (1.0f - s);
  }
};
INLINE Vec silu(Vec u) { return u * sigmoid(u); }

// out = silu(a y + shift) for some rows; with slope, its derivative as well.
template <class T>
INLINE void activate(const BatchNorm &norm, long rows, const T *y, float *out, float *slope) {
  int channels = norm.channels;
  for_lanes(channels, [&](int c, int lanes) {
    Vec a = load(&norm.a[c], lanes), shift = load(&norm.shift[c], lanes);
    for (long i = c; i < rows * channels; i += channels) {
      Silu s(a * load(y + i, lanes) + shift);
      store(out + i, s.value, lanes);
      if (slope) store(slope + i, s.slope, lanes);
    }
  });
}

// dy = a du + c1 y + c0 for some rows.
template <class T>
INLINE void norm_gradient(const BatchNorm &norm, const BatchNormGradient &gradient, long rows, const T *y,
                          const float *du, float *dy) {
  int channels = norm.channels;
  for_lanes(channels, [&](int c, int lanes) {
    Vec a = load(&norm.a[c], lanes), c0 = load(&gradient.c0[c], lanes), c1 = load(&gradient.c1[c], lanes);
    for (long i = c; i < rows * channels; i += channels)
      store(dy + i, a * load(du + i, lanes) + c1 * load(y + i, lanes) + c0, lanes);
  });
}

}  // namespace mvit
