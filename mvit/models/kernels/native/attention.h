// Multi-head self-attention over the N tokens of one sequence, from rows of q, k and v side by side (N, 3 D).
//
//   s = scale q k^T,   p = softmax over keys of s,   o = p v
//   dv = p^T do,   dp = do v^T,   ds = p (dp - sum over keys of p dp),   dq = scale ds k,   dk = scale ds^T q
//
// The sum over keys of p dp is the product of do and o (Dao et al., arXiv 2205.14135). Probabilities are made again in
// the backward pass: N x N of them would be the largest thing to keep.
//
// All products are kept transposed, keys in rows and a block of queries in columns: lanes run over queries, and no sum
// crosses lanes.

#pragma once

#include "matmul.h"
#include "parallel.h"

namespace mvit {

struct Attention {
  static constexpr int BLOCK = 64;  // queries

  int tokens, features, heads;

  int head_features() const { return features / heads; }
  float scale() const { return 1 / std::sqrt((float)head_features()); }

  void forward(const float *qkv, float *o) const {
    int head = head_features(), stride = 3 * features;
    float *query = scratch.get(8, packed_floats(head, BLOCK)), *p = scratch.get(9, (long)tokens * BLOCK);
    float *inverse = scratch.get(10, BLOCK), *transposed = scratch.get(11, head * BLOCK);
    for (int h = 0; h < heads; ++h) {
      const float *q = qkv + h * head, *k = q + features, *v = k + features;
      for (int first = 0; first < tokens; first += BLOCK) {
        int count = std::min(BLOCK, tokens - first);
        softmax(q, k, first, count, query, p, inverse);
        std::fill_n(transposed, head * count, 0.0f);
        add_outer({1, tokens, v, stride, 0, p, count, 0}, head, count, transposed, count);
        for (int j = 0; j < count; ++j)
          for (int d = 0; d < head; ++d)
            o[(long)(first + j) * features + h * head + d] = transposed[d * count + j] * inverse[j];
      }
    }
  }

  // dqkv from do; o is the forward's result.
  void backward(const float *qkv, const float *o, const float *d_o, float *dqkv) const {
    int head = head_features(), stride = 3 * features;
    float *query = scratch.get(8, packed_floats(head, BLOCK)), *p = scratch.get(9, (long)tokens * BLOCK);
    float *inverse = scratch.get(10, BLOCK), *transposed = scratch.get(11, head * BLOCK);
    float *gradient = scratch.get(12, packed_floats(head, BLOCK)), *ds = scratch.get(13, (long)tokens * BLOCK);
    float *query_rows = scratch.get(14, packed_floats(BLOCK, head));
    float *gradient_rows = scratch.get(15, packed_floats(BLOCK, head));
    float *dot = scratch.get(16, BLOCK), *more = scratch.get(17, (long)tokens * head);
    for (int h = 0; h < heads; ++h) {
      const float *q = qkv + h * head, *k = q + features, *v = k + features;
      float *dq = dqkv + h * head, *dk = dq + features, *dv = dk + features;
      for (int first = 0; first < tokens; first += BLOCK) {
        int count = std::min(BLOCK, tokens - first);
        const float *q_block = q + (long)first * stride;
        const float *o_block = o + (long)first * features + h * head;
        const float *do_block = d_o + (long)first * features + h * head;
        softmax(q, k, first, count, query, p, inverse);
        pack(head, count, gradient, [&](int d, int j) { return do_block[(long)j * features + d]; });
        pack(count, head, gradient_rows, [&](int j, int d) { return do_block[(long)j * features + d]; });
        pack(count, head, query_rows, [&](int j, int d) { return q_block[(long)j * stride + d] * scale(); });
        for (int j = 0; j < count; ++j) {
          dot[j] = 0;
          for (int d = 0; d < head; ++d) dot[j] += do_block[(long)j * features + d] * o_block[(long)j * features + d];
        }
        multiply(tokens, {v, stride, head}, gradient, count, nullptr, ds, count);  // dp
        for_lanes(count, [&](int j, int lanes) {
          Vec factor = load(inverse + j, lanes), of_query = load(dot + j, lanes);
          for (long i = j; i < (long)tokens * count; i += count) {
            Vec probability = load(p + i, lanes) * factor;
            store(p + i, probability, lanes);
            store(ds + i, probability * (load(ds + i, lanes) - of_query), lanes);
          }
        });
        std::fill_n(transposed, head * count, 0.0f);
        add_outer({1, tokens, k, stride, 0, ds, count, 0}, head, count, transposed, count);
        for (int j = 0; j < count; ++j)
          for (int d = 0; d < head; ++d) dq[(long)(first + j) * stride + d] = transposed[d * count + j] * scale();
        add_product(ds, count, query_rows, dk, first > 0, more);
        add_product(p, count, gradient_rows, dv, first > 0, more);
      }
    }
  }

 private:
  // p (tokens, count) = e^(s - max), not divided yet, and the inverse of its sums over keys.
  void softmax(const float *q, const float *k, int first, int count, float *query, float *p, float *inverse) const {
    int head = head_features(), stride = 3 * features;
    q += (long)first * stride;
    pack(head, count, query, [&](int d, int j) { return q[(long)j * stride + d] * scale(); });
    multiply(tokens, {k, stride, head}, query, count, nullptr, p, count);
    for_lanes(count, [&](int j, int lanes) {
      Vec largest = load(p + j, lanes), total{};
      for (long i = j; i < (long)tokens * count; i += count) {
        Vec s = load(p + i, lanes);
        largest = s > largest ? s : largest;
      }
      for (long i = j; i < (long)tokens * count; i += count) {
        Vec e = exponential(load(p + i, lanes) - largest);
        total += e;
        store(p + i, e, lanes);
      }
      store(inverse + j, 1.0f / total, lanes);
    });
  }

  // out = a b, or out += a b; a (tokens, count), b packed (count, head).
  void add_product(const float *a, int count, const float *b, float *out, bool add, float *more) const {
    int head = head_features(), stride = 3 * features;
    multiply(tokens, {a, count, count}, b, head, nullptr, add ? more : out, add ? head : stride);
    if (!add) return;
    for (int i = 0; i < tokens; ++i)
      for_lanes(head, [&](int d, int lanes) {
        float *to = out + (long)i * stride + d;
        store(to, load(to, lanes) + load(more + (long)i * head + d, lanes), lanes);
      });
  }
};

}  // namespace mvit
