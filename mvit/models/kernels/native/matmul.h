// Matrix products of tall, narrow matrices: thousands of rows (pixels, tokens), tens to hundreds of columns (channels).
//
// `multiply` makes rows of C from rows of A and a small B; `add_outer` adds A^T G, the gradient of that B. Both keep a
// tile of the result in registers. A is read where it lies; B is packed once per call.

#pragma once

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "vector.h"

namespace mvit {

// Columns are cut into panels of 1 to WIDEST vectors, as equal as possible: the next one's width.
INLINE int panel_vectors(int left) {
  if (left <= WIDEST) return left;
  if (left % WIDEST == 0) return WIDEST;
  if (left % (WIDEST - 1) == 0) return WIDEST - 1;
  return left == WIDEST + 1 ? (left + 1) / 2 : left % WIDEST == WIDEST - 1 ? WIDEST : WIDEST - 1;
}
INLINE int vectors_of(int columns) { return (columns + LANES - 1) / LANES; }

// Calls body(first column, columns, vectors) for each panel of `columns` columns.
template <class Body> INLINE void for_panels(int columns, Body body) {
  for (int first = 0, left = vectors_of(columns); left;) {
    int vectors = panel_vectors(left);
    body(first, std::min(columns - first, vectors * LANES), vectors);
    first += vectors * LANES;
    left -= vectors;
  }
}

INLINE size_t packed_floats(int rows, int columns) { return (size_t)rows * vectors_of(columns) * LANES; }

// Packs B (rows, columns), given as at(row, column), panel after panel; columns beyond the last one are 0.
template <class At> void pack(int rows, int columns, float *out, At at) {
  for_panels(columns, [&](int first, int count, int vectors) {
    for (int row = 0; row < rows; ++row) {
      for (int j = 0; j < count; ++j) *out++ = at(row, first + j);
      for (int j = count; j < vectors * LANES; ++j) *out++ = 0.0f;
    }
  });
}

// A packed matrix that owns its memory.
struct Packed {
  int rows, columns;
  std::vector<float> panels;

  template <class At> Packed(int rows, int columns, At at) : rows(rows), columns(columns) {
    panels.resize(packed_floats(rows, columns));
    pack(rows, columns, panels.data(), at);
  }
  const float *data() const { return panels.data(); }
};

// The weights (outputs, inputs) of a 1x1 convolution or a dense layer: for x W^T, with each output scaled, and for dy W.
inline Packed transposed(const float *w, int outputs, int inputs, const float *scale = nullptr) {
  return Packed(inputs, outputs, [&](int i, int o) { return w[(long)o * inputs + i] * (scale ? scale[o] : 1.0f); });
}
inline Packed as_is(const float *w, int outputs, int inputs) {
  return Packed(outputs, inputs, [&](int o, int i) { return w[(long)o * inputs + i]; });
}

// Rows of A: each is `pieces` runs of `length` floats, `piece_stride` apart. One run makes a matrix, three make the
// 3x3 windows of a padded image.
struct Rows {
  const float *data;
  long stride;
  int length;
  int pieces = 1;
  long piece_stride = 0;
};

// Lanes of vector j of a panel of `columns` columns: all of them but in the last one.
template <int VECTORS> INLINE int lanes_of(int j, int columns) {
  return j + 1 < VECTORS ? LANES : columns - (VECTORS - 1) * LANES;
}

// Loops over a tile are unrolled by order: GCC keeps one in registers only if all of them are, early.
template <int HEIGHT, int VECTORS>
INLINE void multiply_tile(const Rows &a, const float *b, const float *bias, float *c, long c_stride, int columns) {
  Vec tile[HEIGHT][VECTORS];
#pragma GCC unroll 32
  for (int r = 0; r < HEIGHT; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < VECTORS; ++j)
      tile[r][j] = bias ? load(bias + j * LANES, lanes_of<VECTORS>(j, columns)) : Vec{};
  for (int piece = 0; piece < a.pieces; ++piece) {
    const float *row = a.data + piece * a.piece_stride;
    for (int k = 0; k < a.length; ++k, b += VECTORS * LANES) {
      Vec factors[VECTORS];
      for (int j = 0; j < VECTORS; ++j) factors[j] = load(b + j * LANES);
#pragma GCC unroll 32
      for (int r = 0; r < HEIGHT; ++r) {
        Vec x = splat(row[r * a.stride + k]);
        for (int j = 0; j < VECTORS; ++j) tile[r][j] += x * factors[j];
      }
    }
  }
#pragma GCC unroll 32
  for (int r = 0; r < HEIGHT; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < VECTORS; ++j)
      store(c + r * c_stride + j * LANES, tile[r][j], lanes_of<VECTORS>(j, columns));
}

// Calls body(first row, constant) with the tallest tiles that fit, then shorter ones.
template <int TALLEST, class Body> INLINE void for_tiles(long rows, Body body) {
  long r = 0;
#define TILES(height) \
  for (; r + height <= rows; r += height) body(r, std::integral_constant<int, height>());
  TILES(TALLEST)
  if constexpr (TALLEST > 8) TILES(8)
  if constexpr (TALLEST > 4) TILES(4)
  if constexpr (TALLEST > 2) TILES(2)
  TILES(1)
#undef TILES
}

template <int VECTORS>
NOINLINE void multiply_panel(long rows, const Rows &a, const float *b, const float *bias, float *c, long c_stride,
                    int columns) {
  for_tiles<ACCUMULATORS / VECTORS>(rows, [&](long r, auto height) {
    Rows at = a;
    at.data += r * a.stride;
    multiply_tile<height, VECTORS>(at, b, bias, c + r * c_stride, c_stride, columns);
  });
}

// C (rows, columns) = A B + bias, with B packed; bias may be null.
NOINLINE inline void multiply(long rows, const Rows &a, const float *b, int columns, const float *bias, float *c,
                     long c_stride) {
  for_panels(columns, [&](int first, int count, int vectors) {
    const float *panel_bias = bias ? bias + first : nullptr;
    auto with = [&](auto constant) {
      multiply_panel<constant>(rows, a, b, panel_bias, c + first, c_stride, count);
    };
    switch (vectors) {
      case 1: with(std::integral_constant<int, 1>()); break;
      case 2: with(std::integral_constant<int, 2>()); break;
      case 3: with(std::integral_constant<int, 3>()); break;
      default: with(std::integral_constant<int, WIDEST>());
    }
    b += (size_t)a.length * a.pieces * vectors * LANES;
  });
}

// Where the rows of a gradient G and of the A it belongs to lie: `outer` groups of `inner` rows.
struct RowPairs {
  long outer, inner;
  const float *g;
  long g_stride, g_group;
  const float *a;
  long a_stride, a_group;
};

// WHOLE: the columns fill all vectors.
template <int HEIGHT, int VECTORS, bool WHOLE>
INLINE void outer_tile(const RowPairs &rows, int column, float *d, long d_stride, int columns) {
  auto lanes = [columns](int j) { return WHOLE ? LANES : lanes_of<VECTORS>(j, columns); };
  Vec tile[HEIGHT][VECTORS];
  for (int r = 0; r < HEIGHT; ++r)
    for (int j = 0; j < VECTORS; ++j) tile[r][j] = Vec{};
  for (long group = 0; group < rows.outer; ++group) {
    const float *g = rows.g + group * rows.g_group + column, *a = rows.a + group * rows.a_group;
    for (long i = 0; i < rows.inner; ++i, g += rows.g_stride, a += rows.a_stride) {
      Vec factors[VECTORS];
      for (int j = 0; j + 1 < VECTORS; ++j) factors[j] = load(a + j * LANES);
      const float *last = a + (VECTORS - 1) * LANES;
      factors[VECTORS - 1] = WHOLE ? load(last) : load_first(last, lanes(VECTORS - 1));
#pragma GCC unroll 32
      for (int r = 0; r < HEIGHT; ++r) {
        Vec x = splat(g[r]);
        for (int j = 0; j < VECTORS; ++j) tile[r][j] += x * factors[j];
      }
    }
  }
#pragma GCC unroll 32
  for (int r = 0; r < HEIGHT; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < VECTORS; ++j) {
      float *p = d + r * d_stride + j * LANES;
      store(p, load(p, lanes(j)) + tile[r][j], lanes(j));
    }
}

template <int VECTORS>
NOINLINE void outer_panel(const RowPairs &rows, int g_columns, float *d, long d_stride, int columns) {
  for_tiles<ACCUMULATORS / VECTORS>(g_columns, [&](long r, auto height) {
    float *at = d + r * d_stride;
    if (columns == VECTORS * LANES)
      outer_tile<height, VECTORS, true>(rows, (int)r, at, d_stride, columns);
    else
      outer_tile<height, VECTORS, false>(rows, (int)r, at, d_stride, columns);
  });
}

// D (g_columns, a_columns) += G^T A.
NOINLINE inline void add_outer(RowPairs rows, int g_columns, int a_columns, float *d, long d_stride) {
  const float *a = rows.a;
  for_panels(a_columns, [&](int first, int count, int vectors) {
    rows.a = a + first;
    auto with = [&](auto constant) { outer_panel<constant>(rows, g_columns, d + first, d_stride, count); };
    switch (vectors) {
      case 1: with(std::integral_constant<int, 1>()); break;
      case 2: with(std::integral_constant<int, 2>()); break;
      case 3: with(std::integral_constant<int, 3>()); break;
      default: with(std::integral_constant<int, WIDEST>());
    }
  });
}

inline void add_outer(long rows, const float *g, int g_columns, const float *a, long a_stride, int a_columns,
                      float *d) {
  add_outer({1, rows, g, g_columns, 0, a, a_stride, 0}, g_columns, a_columns, d, a_columns);
}

// out (columns) += the sum of the rows of G.
inline void add_columns(long rows, const float *g, int columns, float *out) {
  for_lanes(columns, [&](int c, int lanes) {
    Vec total = load(out + c, lanes);
    for (long r = 0; r < rows; ++r) total += load(g + r * columns + c, lanes);
    store(out + c, total, lanes);
  });
}

}  // namespace mvit
