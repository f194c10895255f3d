// A pre-norm transformer layer as one operator: x (R, N, D), R sequences of N tokens -> the same.
//
//   qkv = LN1(x) Wqkv + b,   o = attention(qkv),   x2 = x + dropout1(o Wo + b)
//   u = LN2(x2) W1 + b,   y = x2 + dropout2(silu(u) W2 + b)
//
// A thread takes a group of sequences through all of it while they are in its cache. Kept are qkv, o, x2 and u, whose
// making is a matrix product; LayerNorm, SiLU, dropout's mask and the probabilities are made again in the backward pass,
// which is cheaper than to read them.

#include "attention.h"
#include "batch_norm.h"
#include "dropout.h"
#include "layer_norm.h"
#include "operator.h"

namespace mvit {
namespace {

// Inputs. SALTS: row and column salt of dropout1, of dropout2, threshold, heads. CONSTANTS: epsilon, 1 / (1 - rate).
enum {
  X, KEY, SALTS, CONSTANTS, GAMMA1, BETA1, QUERY, QUERY_BIAS, KEYS, KEYS_BIAS, VALUE, VALUE_BIAS, OUT, OUT_BIAS, GAMMA2,
  BETA2, FC1, FC1_BIAS, FC2, FC2_BIAS, NUM_INPUTS
};

struct Layer {
  bool training;  // with dropout
  long sequences;
  int tokens, features, hidden;
  LayerNorm norm1, norm2;
  Attention attention;
  DropoutMask dropout1, dropout2;

  Layer(const Arguments &in, bool training)
      : training(training), sequences(in.dim(X, 0)), tokens(in.dim(X, 1)), features(in.dim(X, 2)), hidden(in.dim(FC1, 0)),
        norm1{features, in.floats(GAMMA1), in.floats(BETA1), in.floats(CONSTANTS)[0]},
        norm2{features, in.floats(GAMMA2), in.floats(BETA2), in.floats(CONSTANTS)[0]},
        attention{tokens, features, in.ints(SALTS)[5]}, dropout1(mask(in, 0)), dropout2(mask(in, 2)) {}

  // Sequences that pass through the cache together.
  long group() const { return std::max(1, CHUNK / tokens); }

  // out = residual + dropout(x) for rows of tokens that begin with row `first` of all.
  void drop(const DropoutMask &mask, long first, long rows, const float *x, const float *residual, float *out) const {
    for (long end = first + rows; first < end;) {
      long sequence = first / tokens, token = first % tokens, count = std::min(end - first, tokens - token) * features;
      mask.apply(sequence, token * features, count, x, residual, out);
      first += count / features;
      x += count;
      out += count;
      if (residual) residual += count;
    }
  }

 private:
  DropoutMask mask(const Arguments &in, int salt) const {
    const int32_t *salts = in.ints(SALTS);
    long columns = training ? (long)tokens * features : 0;
    return DropoutMask(in.ints(KEY)[0], salts + salt, salts[4], in.floats(CONSTANTS)[1], columns);
  }
};

// Weights (outputs, inputs) of dense layers side by side, packed for x W^T, with their biases.
struct Dense {
  Packed weights;
  std::vector<float> bias;

  Dense(const Arguments &in, std::initializer_list<int> layers, int inputs, int outputs)
      : weights(inputs, outputs * (int)layers.size(), [&](int i, int o) {
          return in.floats(layers.begin()[o / outputs])[(long)(o % outputs) * inputs + i];
        }) {
    for (int layer : layers) bias.insert(bias.end(), in.floats(layer + 1), in.floats(layer + 1) + outputs);
  }
  void operator()(long rows, const float *x, float *y) const {
    multiply(rows, {x, weights.rows, weights.rows}, weights.data(), weights.columns, bias.data(), y, weights.columns);
  }
};

// The same, packed for dy W, and the sums of their gradients.
struct DenseGradient {
  int inputs, outputs;
  Packed weights;
  Partials sums;

  DenseGradient(const Arguments &in, std::initializer_list<int> layers, int inputs, int outputs)
      : inputs(inputs), outputs(outputs * (int)layers.size()),
        weights(this->outputs, inputs, [&](int o, int i) {
          return in.floats(layers.begin()[o / outputs])[(long)(o % outputs) * inputs + i];
        }),
        sums((size_t)this->outputs * (inputs + 1)) {}
  void operator()(int part, long rows, const float *x, const float *dy, float *dx) {
    float *dw = sums.of(part);
    add_outer(rows, dy, outputs, x, inputs, inputs, dw);
    add_columns(rows, dy, outputs, dw + (long)outputs * inputs);
    multiply(rows, {dy, outputs, outputs}, weights.data(), inputs, nullptr, dx, inputs);
  }
  // Writes the gradients of the layers side by side: dw and db of each.
  void write(Pieces &to, int layers) {
    const float *total = sums.total();
    int each = outputs / layers;
    for (int layer = 0; layer < layers; ++layer) {
      std::copy_n(total + (long)layer * each * inputs, (long)each * inputs, to.take((long)each * inputs));
      std::copy_n(total + (long)outputs * inputs + layer * each, each, to.take(each));
    }
  }
};

void forward(const Arguments &in, bool training) {
  Layer layer(in, training);
  int features = layer.features, hidden = layer.hidden;
  Dense to_qkv(in, {QUERY, KEYS, VALUE}, features, features), out(in, {OUT}, features, features);
  Dense fc1(in, {FC1}, features, hidden), fc2(in, {FC2}, hidden, features);
  const float *x = in.floats(X);
  float *y = in.floats(NUM_INPUTS);
  long group_rows = layer.group() * layer.tokens;

  parallel(layer.sequences, [&](int, Range range) {
    float *norm = scratch.get(0, CHUNK * features), *branch = scratch.get(1, CHUNK * features);
    float *mean = scratch.get(2, CHUNK), *rstd = scratch.get(3, CHUNK), *active = scratch.get(4, CHUNK * hidden);
    for (long s = range.begin; s < range.end; s += layer.group()) {
      long sequences = std::min(layer.group(), range.end - s);
      long begin = s * layer.tokens, end = (s + sequences) * layer.tokens;
      // In training what is kept is written where it stays.
      auto kept = [&](int slot, int output, int columns, long rows, long first) {
        return training ? in.floats(NUM_INPUTS + output) + first * columns : scratch.get(slot, rows * columns);
      };
      float *qkv = kept(5, 1, 3 * features, group_rows, begin), *o = kept(6, 2, features, group_rows, begin);
      for_chunks({begin, end}, [&](long r, long rows) {
        layer.norm1.forward(rows, x + r * features, norm, mean, rstd);
        to_qkv(rows, norm, qkv + (r - begin) * 3 * features);
      });
      for (long i = 0; i < sequences; ++i)
        layer.attention.forward(qkv + i * layer.tokens * 3 * features, o + i * layer.tokens * features);
      for_chunks({begin, end}, [&](long r, long rows) {
        float *x2 = kept(7, 3, features, CHUNK, r), *u = kept(18, 4, hidden, CHUNK, r);
        auto add = [&](const DropoutMask &mask, const float *residual, float *to) {
          if (training)
            layer.drop(mask, r, rows, branch, residual, to);
          else
            for_lanes((int)rows * features, [&](int i, int lanes) {
              store(to + i, load(residual + i, lanes) + load(branch + i, lanes), lanes);
            });
        };
        out(rows, o + (r - begin) * features, branch);
        add(layer.dropout1, x + r * features, x2);
        layer.norm2.forward(rows, x2, norm, mean, rstd);
        fc1(rows, norm, u);
        for_lanes((int)rows * hidden, [&](int i, int lanes) { store(active + i, silu(load(u + i, lanes)), lanes); });
        fc2(rows, active, branch);
        add(layer.dropout2, x2, y + r * features);
      });
    }
  });
}

}  // namespace

// -> y qkv o x2 u
OPERATOR(mvit_transformer_layer) { forward(in, true); }

// -> y
OPERATOR(mvit_transformer_layer_eval) { forward(in, false); }

// the inputs, qkv o x2 u dy -> dx, (the gradient of each input from GAMMA1 on)
OPERATOR(mvit_transformer_layer_grad) {
  Layer layer(in, true);
  int features = layer.features, hidden = layer.hidden;
  const float *x = in.floats(X), *qkv = in.floats(NUM_INPUTS), *o = in.floats(NUM_INPUTS + 1);
  const float *x2 = in.floats(NUM_INPUTS + 2), *u = in.floats(NUM_INPUTS + 3), *dy = in.floats(NUM_INPUTS + 4);
  float *dx = in.floats(NUM_INPUTS + 5);
  DenseGradient to_qkv(in, {QUERY, KEYS, VALUE}, features, features), out(in, {OUT}, features, features);
  DenseGradient fc1(in, {FC1}, features, hidden), fc2(in, {FC2}, hidden, features);
  Partials norm1_sums(2 * features), norm2_sums(2 * features);
  long group_rows = layer.group() * layer.tokens;

  parallel(layer.sequences, [&](int part, Range range) {
    float *norm = scratch.get(0, CHUNK * features), *branch = scratch.get(1, CHUNK * features);
    float *mean = scratch.get(2, CHUNK), *rstd = scratch.get(3, CHUNK);
    float *active = scratch.get(4, CHUNK * hidden), *slope = scratch.get(5, CHUNK * hidden);
    float *du = scratch.get(6, CHUNK * hidden), *dnorm = scratch.get(7, CHUNK * features);
    float *dx2 = scratch.get(18, group_rows * features), *d_o = scratch.get(19, group_rows * features);
    float *dqkv = scratch.get(20, group_rows * 3 * features);
    float *dgamma1 = norm1_sums.of(part), *dgamma2 = norm2_sums.of(part);
    for (long s = range.begin; s < range.end; s += layer.group()) {
      long sequences = std::min(layer.group(), range.end - s);
      long begin = s * layer.tokens, end = (s + sequences) * layer.tokens;
      for_chunks({begin, end}, [&](long r, long rows) {
        float *dx2_here = dx2 + (r - begin) * features;
        layer.norm2.forward(rows, x2 + r * features, norm, mean, rstd);
        for_lanes((int)rows * hidden, [&](int i, int lanes) {
          Silu of_u(load(u + r * hidden + i, lanes));
          store(active + i, of_u.value, lanes);
          store(slope + i, of_u.slope, lanes);
        });
        layer.drop(layer.dropout2, r, rows, dy + r * features, nullptr, branch);
        fc2(part, rows, active, branch, du);
        for_lanes((int)rows * hidden,
                  [&](int i, int lanes) { store(du + i, load(du + i, lanes) * load(slope + i, lanes), lanes); });
        fc1(part, rows, norm, du, dnorm);
        layer.norm2.backward(rows, x2 + r * features, mean, rstd, dnorm, dy + r * features, dx2_here, dgamma2,
                             dgamma2 + features);
        layer.drop(layer.dropout1, r, rows, dx2_here, nullptr, branch);
        out(part, rows, o + r * features, branch, d_o + (r - begin) * features);
      });
      for (long i = 0; i < sequences; ++i) {
        long first = i * layer.tokens;
        layer.attention.backward(qkv + (begin + first) * 3 * features, o + (begin + first) * features,
                                 d_o + first * features, dqkv + first * 3 * features);
      }
      for_chunks({begin, end}, [&](long r, long rows) {
        layer.norm1.forward(rows, x + r * features, norm, mean, rstd);
        to_qkv(part, rows, norm, dqkv + (r - begin) * 3 * features, dnorm);
        layer.norm1.backward(rows, x + r * features, mean, rstd, dnorm, dx2 + (r - begin) * features,
                             dx + r * features, dgamma1, dgamma1 + features);
      });
    }
  });

  Pieces gradients{in.floats(NUM_INPUTS + 6)};
  std::copy_n(norm1_sums.total(), 2 * features, gradients.take(2 * features));
  to_qkv.write(gradients, 3);
  out.write(gradients, 1);
  std::copy_n(norm2_sums.total(), 2 * features, gradients.take(2 * features));
  fc1.write(gradients, 1);
  fc2.write(gradients, 1);
}

}  // namespace mvit
