// Threads, and the memory that they keep from call to call.
//
// Every operator divides its rows or images into one contiguous part per thread and adds up their partial sums in the
// order of the parts: results depend on the number of threads, which the plan of a run fixes, and on nothing else.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <climits>
#include <memory>
#include <vector>

namespace mvit {

// Set once, before the first operator runs.
inline int num_threads = 1;

struct Range {
  long begin, end;
};

inline Range part_of(long count, int part, int parts) { return {count * part / parts, count * (part + 1) / parts}; }

// Calls body(part, range) for each part of `count` things, each part on a thread of its own.
template <class Body> void parallel(long count, Body body) {
  int parts = (int)std::clamp<long>(count, 1, num_threads);
  if (parts == 1) {
    body(0, Range{0, count});
    return;
  }
#pragma omp parallel for num_threads(parts) schedule(static, 1)
  for (int part = 0; part < parts; ++part) body(part, part_of(count, part, parts));
}

// Rows that pass through the caches together; a multiple of the height of every tile of a matrix product.
constexpr int CHUNK = 96;

// Calls body(begin, rows) for the chunks of a range of rows.
template <class Body> void for_chunks(Range range, Body body) {
  for (long begin = range.begin; begin < range.end; begin += CHUNK)
    body(begin, std::min<long>(CHUNK, range.end - begin));
}

// Memory of one thread, aligned to cache lines, that grows to what was needed most. A slot holds one thing at a time.
class Scratch {
 public:
  float *get(int slot, size_t floats) {
    auto &memory = slots_[slot];
    if (memory.size < floats) {
      memory.owner.reset();  // first, so that the old and the new one never stand side by side
      memory.size = 0;
      memory.owner.reset(new float[floats + 16]);
      memory.size = floats;
    }
    return (float *)(((uintptr_t)memory.owner.get() + 63) & ~(uintptr_t)63);
  }

 private:
  struct Slot {
    std::unique_ptr<float[]> owner;
    size_t size = 0;
  };
  Slot slots_[24];
};

inline thread_local Scratch scratch;

// Partial sums, one array per thread, on cache lines of their own; all zero at first.
class Partials {
 public:
  explicit Partials(size_t floats) : stride_((floats + 31) / 16 * 16), sums_(num_threads * stride_, 0.0f) {}
  float *of(int part) { return &sums_[part * stride_]; }
  // The sum of all parts.
  const float *total() {
    for (int part = 1; part < num_threads; ++part)
      for (size_t i = 0; i < stride_; ++i) sums_[i] += sums_[part * stride_ + i];
    return sums_.data();
  }

 private:
  size_t stride_;
  std::vector<float> sums_;
};

}  // namespace mvit
