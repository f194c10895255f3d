// LayerNorm (Ba, Kiros and Hinton, arXiv 1607.06450) over the last axis of rows.
//
//   h = (x - mean) rstd,   y = gamma h + beta
//   dgamma = sum(dy h),   dbeta = sum(dy),   dx = rstd (g - mean(g) - h mean(g h)),   g = gamma dy

#pragma once

#include <cmath>

#include "vector.h"

namespace mvit {

struct LayerNorm {
  int features;
  const float *gamma, *beta;
  float eps;

  // y, and of each row mean and rstd.
  void forward(long rows, const float *x, float *y, float *mean, float *rstd) const {
    for (long r = 0; r < rows; ++r, x += features, y += features) {
      Vec total{};
      for_lanes(features, [&](int i, int lanes) { total += load(x + i, lanes); });
      float mu = sum(total) / features;
      Vec squares{};
      for_lanes(features, [&](int i, int lanes) {
        Vec d = load(x + i, lanes) - mu;
        if (lanes < LANES)  // lanes behind the row hold -mu
          for (int lane = lanes; lane < LANES; ++lane) d[lane] = 0.0f;
        squares += d * d;
      });
      mean[r] = mu;
      rstd[r] = 1 / std::sqrt(sum(squares) / features + eps);
      for_lanes(features, [&](int i, int lanes) {
        store(y + i, (load(x + i, lanes) - mu) * rstd[r] * load(gamma + i, lanes) + load(beta + i, lanes), lanes);
      });
    }
  }
  // dx = residual + the gradient; dgamma and dbeta grow by their sums over the rows. residual may be null.
  void backward(long rows, const float *x, const float *mean, const float *rstd, const float *dy,
                const float *residual, float *dx, float *dgamma, float *dbeta) const {
    for (long r = 0; r < rows; ++r, x += features, dy += features, dx += features) {
      float mu = mean[r], scale = rstd[r];
      Vec total{}, products{};
      for_lanes(features, [&](int i, int lanes) {
        Vec h = (load(x + i, lanes) - mu) * scale, d = load(dy + i, lanes), g = d * load(gamma + i, lanes);
        total += g;  // gamma and dy load as 0 behind the row
        products += g * h;
        store(dgamma + i, load(dgamma + i, lanes) + d * h, lanes);
        store(dbeta + i, load(dbeta + i, lanes) + d, lanes);
      });
      float mean_g = sum(total) / features, mean_gh = sum(products) / features;
      for_lanes(features, [&](int i, int lanes) {
        Vec h = (load(x + i, lanes) - mu) * scale, g = load(dy + i, lanes) * load(gamma + i, lanes);
        Vec d = scale * (g - mean_g - h * mean_gh);
        store(dx + i, residual ? load(residual + i, lanes) + d : d, lanes);
      });
      if (residual) residual += features;
    }
  }
};

}  // namespace mvit
