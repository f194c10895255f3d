// What MindSpore calls: an extern "C" function per operator, with pointers and shapes of all inputs, then all outputs.

#pragma once

#include <cstdint>

namespace mvit {

struct Arguments {
  int count;  // of inputs and outputs
  void **pointers;
  int *num_dims;
  int64_t **shapes;

  float *floats(int i) const { return (float *)pointers[i]; }
  template <class T> T *as(int i) const { return (T *)pointers[i]; }
  const int32_t *ints(int i) const { return (const int32_t *)pointers[i]; }
  int64_t dim(int i, int axis) const { return shapes[i][axis]; }
  int64_t last_dim(int i) const { return shapes[i][num_dims[i] - 1]; }
  int64_t size(int i) const {
    int64_t product = 1;
    for (int axis = 0; axis < num_dims[i]; ++axis) product *= shapes[i][axis];
    return product;
  }
  // All axes but the last one as one.
  int64_t rows(int i) const { return size(i) / last_dim(i); }
};

// An output that holds several tensors one after the other: gradients, which MindSpore need not tell apart.
struct Pieces {
  float *next;
  float *take(int64_t floats) {
    float *piece = next;
    next += floats;
    return piece;
  }
};

}  // namespace mvit

#define OPERATOR(name)                                                                                       \
  static void name##_(const mvit::Arguments &in);                                                           \
  OPERATOR_THAT_CAN_FAIL(name) {                                                                            \
    name##_(in);                                                                                            \
    return 0;                                                                                               \
  }                                                                                                         \
  static void name##_(const mvit::Arguments &in)

// Returns 0, or what MindSpore raises an exception for.
#define OPERATOR_THAT_CAN_FAIL(name)                                                                        \
  static int name##_or_error(const mvit::Arguments &in);                                                    \
  extern "C" int name(int count, void **pointers, int *num_dims, int64_t **shapes, const char **, void *,   \
                      void *) {                                                                             \
    return name##_or_error({count, pointers, num_dims, shapes});                                            \
  }                                                                                                         \
  static int name##_or_error(const mvit::Arguments &in)
