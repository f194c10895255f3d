// The update of all parameters as one operator: clipping, and then AdamW, SGD, Lion or LAMB, in place.
//
// Gradients arrive in one flat buffer behind the loss, as `mvit_flatten` makes it and an all-reduce leaves it. With
// g the gradient as it is applied:
//
//   norm = part |gradients|,   g = clamp(part min(1, clip_norm / (norm + 1e-6)) gradient, -clip_value, clip_value)
//
// The formulas of the optimizers stand in `worker/optim.py`, whose cells hold the parameters and the moments.

#include <cmath>

#include "operator.h"
#include "parallel.h"
#include "vector.h"

namespace mvit {
namespace {

// Inputs: flat, lr, decay, t, constants, factors (n), decays (n), then the n parameters, then the moments, n of each.
enum { FLAT, LR, DECAY, T, CONSTANTS, FACTORS, DECAYS, PARAMETERS };
// Of CONSTANTS, those that all optimizers have; their own follow.
enum { PART, CLIP_NORM, CLIP_VALUE, OWN };

// One parameter with its gradient and moments.
struct Tensor {
  long size;
  const float *gradient;
  float *weight, *moment1, *moment2;
  float rate;
  bool decays;
};

class Update {
 public:
  int count;
  float lr, decay, norm;
  double t;
  const float *own;

  explicit Update(const Arguments &in)
      : count(in.dim(FACTORS, 0)), lr(in.floats(LR)[0]), decay(in.floats(DECAY)[0]), t(in.floats(T)[0]),
        own(in.floats(CONSTANTS) + OWN), in_(in), offsets_(count + 1, 1) {
    const float *constants = in.floats(CONSTANTS);
    for (int i = 0; i < count; ++i) offsets_[i + 1] = offsets_[i] + in.size(PARAMETERS + i);
    norm = constants[PART] * gradient_norm();
    factor_ = constants[PART];
    clip_value_ = constants[CLIP_VALUE];
    float limit = constants[CLIP_NORM];  // infinite without clipping
    if (std::isfinite(limit) && !(norm + 1e-6f <= limit)) factor_ *= limit / (norm + 1e-6f);
  }
  Tensor tensor(int i, int moments) const {
    float *moment[2] = {};
    for (int j = 0; j < moments; ++j) moment[j] = in_.floats(PARAMETERS + (1 + j) * count + i);
    return {offsets_[i + 1] - offsets_[i], in_.floats(FLAT) + offsets_[i], in_.floats(PARAMETERS + i), moment[0],
            moment[1], lr * in_.floats(FACTORS)[i], in_.floats(DECAYS)[i] != 0.0f};
  }
  INLINE Vec gradient(const Tensor &tensor, long i, int lanes) const {
    return at_most(at_least(load(tensor.gradient + i, lanes) * factor_, -clip_value_), clip_value_);
  }
  // Calls body(tensor, begin, end) for pieces of all parameters, about as much on each thread.
  template <class Body> void for_pieces(int moments, Body body) const {
    parallel(offsets_[count] - 1, [&](int, Range range) {
      for (int i = 0; i < count; ++i) {
        long begin = std::max(range.begin + 1, offsets_[i]), end = std::min(range.end + 1, offsets_[i + 1]);
        if (begin < end) body(tensor(i, moments), begin - offsets_[i], end - offsets_[i]);
      }
    });
  }

 private:
  float gradient_norm() const {
    std::vector<double> sums(num_threads);
    parallel(offsets_[count] - 1, [&](int part, Range range) {
      const float *first = in_.floats(FLAT) + 1;
      for (long begin = range.begin; begin < range.end; begin += 4096) {
        Vec squares{};
        const float *g = first + begin;
        for_lanes((int)std::min(4096L, range.end - begin), [&](int i, int lanes) {
          Vec x = load(g + i, lanes);
          squares += x * x;
        });
        sums[part] += sum(squares);
      }
    });
    double total = 0;
    for (double part : sums) total += part;
    return (float)std::sqrt(total);
  }

  const Arguments &in_;
  std::vector<long> offsets_;
  float factor_, clip_value_;
};

// Calls body(offset, lanes) from `begin` to `end`.
template <class Body> INLINE void for_range(long begin, long end, Body body) {
  for_lanes((int)(end - begin), [&](int i, int lanes) { body(begin + i, lanes); });
}

}  // namespace

// loss (), gradients -> (1 + their size,)
OPERATOR(mvit_flatten) {
  float *out = in.floats(in.count - 1);
  for (int i = 0; i + 1 < in.count; ++i) out = std::copy_n(in.floats(i), in.size(i), out);
}

// momentum (), norm (), n averages, n values -> 1. The averages move in place: average += momentum (value - average). An
// operator of its own, because MindSpore does not see the writing of what it reads; the norm, which the update returns,
// makes it come after.
OPERATOR(mvit_average) {
  float momentum = in.floats(0)[0];
  int count = (in.count - 3) / 2;
  parallel(count, [&](int, Range range) {
    for (int index = (int)range.begin; index < range.end; ++index) {
      float *average = in.floats(2 + index);
      const float *value = in.floats(2 + count + index);
      for_range(0, in.size(2 + index), [&](long i, int lanes) {
        Vec old = load(average + i, lanes);
        store(average + i, old + momentum * (load(value + i, lanes) - old), lanes);
      });
    }
  });
  *in.floats(in.count - 1) = 1.0f;
}

// OWN: beta1, beta2, epsilon -> norm
OPERATOR(mvit_adamw) {
  Update update(in);
  float beta1 = update.own[0], beta2 = update.own[1], eps = update.own[2];
  float correction1 = (float)(1 / (1 - std::pow((double)beta1, update.t)));
  float correction2 = (float)(1 / std::sqrt(1 - std::pow((double)beta2, update.t)));
  update.for_pieces(2, [&](const Tensor &of, long begin, long end) {
    float keep = of.decays ? 1.0f - of.rate * update.decay : 1.0f;
    for_range(begin, end, [&](long i, int lanes) {
      Vec g = update.gradient(of, i, lanes);
      Vec m = beta1 * load(of.moment1 + i, lanes) + (1.0f - beta1) * g;
      Vec v = beta2 * load(of.moment2 + i, lanes) + (1.0f - beta2) * (g * g);
      Vec step = m * correction1 / (square_root(v) * correction2 + eps);
      store(of.moment1 + i, m, lanes);
      store(of.moment2 + i, v, lanes);
      store(of.weight + i, load(of.weight + i, lanes) * keep - of.rate * step, lanes);
    });
  });
  *in.floats(in.count - 1) = update.norm;
}

// OWN: momentum, whether Nesterov's -> norm
OPERATOR(mvit_sgd) {
  Update update(in);
  float momentum = update.own[0];
  bool nesterov = update.own[1] != 0.0f;
  update.for_pieces(1, [&](const Tensor &of, long begin, long end) {
    float decay = of.decays ? update.decay : 0.0f;
    for_range(begin, end, [&](long i, int lanes) {
      Vec w = load(of.weight + i, lanes), g = update.gradient(of, i, lanes) + decay * w;
      Vec u = momentum * load(of.moment1 + i, lanes) + g;
      store(of.moment1 + i, u, lanes);
      store(of.weight + i, w - of.rate * (nesterov ? g + momentum * u : u), lanes);
    });
  });
  *in.floats(in.count - 1) = update.norm;
}

// OWN: beta1, beta2 -> norm
OPERATOR(mvit_lion) {
  Update update(in);
  float beta1 = update.own[0], beta2 = update.own[1];
  update.for_pieces(1, [&](const Tensor &of, long begin, long end) {
    float decay = of.decays ? update.decay : 0.0f;
    for_range(begin, end, [&](long i, int lanes) {
      Vec w = load(of.weight + i, lanes), m = load(of.moment1 + i, lanes), g = update.gradient(of, i, lanes);
      Vec direction = m + (1.0f - beta1) * (g - m);
      Vec sign = direction > 0.0f ? splat(1.0f) : direction < 0.0f ? splat(-1.0f) : direction;  // 0 and NaN stay
      store(of.moment1 + i, m + (1.0f - beta2) * (g - m), lanes);
      store(of.weight + i, w - of.rate * (sign + decay * w), lanes);
    });
  });
  *in.floats(in.count - 1) = update.norm;
}

// OWN: beta1, beta2, epsilon -> norm. A thread takes whole parameters: their norms decide about the rate.
OPERATOR(mvit_lamb) {
  Update update(in);
  float beta1 = update.own[0], beta2 = update.own[1], eps = update.own[2];
  float correction1 = (float)(1 / (1 - std::pow((double)beta1, update.t)));
  float correction2 = (float)(1 / std::sqrt(1 - std::pow((double)beta2, update.t)));
  parallel(update.count, [&](int, Range range) {
    for (int index = (int)range.begin; index < range.end; ++index) {
      Tensor of = update.tensor(index, 2);
      float decay = of.decays ? update.decay : 0.0f, *step = scratch.get(0, of.size);
      double weight_norm = 0, step_norm = 0;
      for_range(0, of.size, [&](long i, int lanes) {
        Vec w = load(of.weight + i, lanes), g = update.gradient(of, i, lanes);
        Vec m = beta1 * load(of.moment1 + i, lanes) + (1.0f - beta1) * g;
        Vec v = beta2 * load(of.moment2 + i, lanes) + (1.0f - beta2) * (g * g);
        Vec r = m * correction1 / (square_root(v) * correction2 + eps) + decay * w;
        store(of.moment1 + i, m, lanes);
        store(of.moment2 + i, v, lanes);
        store(step + i, r, lanes);
        Vec kept = lanes < LANES ? load(step + i, lanes) : r;  // lanes behind the parameter may hold anything
        weight_norm += sum(w * w);
        step_norm += sum(kept * kept);
      });
      float ratio = of.decays && weight_norm * step_norm > 0 ? (float)std::sqrt(weight_norm / step_norm) : 1.0f;
      for_range(0, of.size, [&](long i, int lanes) {
        store(of.weight + i, load(of.weight + i, lanes) - of.rate * ratio * load(step + i, lanes), lanes);
      });
    }
  });
  *in.floats(in.count - 1) = update.norm;
}

}  // namespace mvit
