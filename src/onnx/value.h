// What the raising interpreter knows of a value.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "onnx/array.h"

namespace octet::onnx {

/// n + b * batch + l * length + bl * batch * length.
struct Poly {
  int64_t n = 0, b = 0, l = 0, bl = 0;
  bool operator==(const Poly&) const = default;
  bool constant() const noexcept { return b == 0 && l == 0 && bl == 0; }
  bool is(int64_t value) const noexcept { return constant() && n == value; }
};
Poly operator+(const Poly& x, const Poly& y);
Poly operator-(const Poly& x, const Poly& y);
/// False when the product or the quotient has no such form.
bool multiply(const Poly& x, const Poly& y, Poly* out);
bool divide(const Poly& x, const Poly& y, Poly* out);

/// A piece of an axis: the batch, the length, the keys' length, or features (extent, stride in the flat width).
struct Atom {
  char kind = 'F';  ///< 'B', 'L', 'K', 'F'
  int64_t extent = 1, stride = 1;
  bool operator==(const Atom&) const = default;
};
using Axis = std::vector<Atom>;

/// A matrix product that waits for its bias, for being split, and for its readers.
struct Product;

/// Quantization of a weight: as a fake_quant node has it.
struct WeightQuant {
  std::string name;
  Array scale, zero;  ///< zero may be empty
  int64_t axis = -1;  ///< of the weight as the file's initializer holds it, before `turned`
  ElemType type = ElemType::s8;
  Array column;             ///< divides the dequantized weight; may be empty
  std::string column_name;  ///< its initializer
  int order = 0;
};

/// A constant table and the positions that were looked up in it.
struct TableRows {
  std::string name;
  Array table;
  std::shared_ptr<WeightQuant> quant;
  int64_t start = 0;  ///< first row: rows start, start + 1, ... along the length; or this row alone
  bool along_length = true;
  std::string node, positions;  ///< names: of the look-up, of what made the positions
  int order = 0;
};

struct Value {
  enum class Kind {
    none,
    foreign,    ///< an input that is no text: it may only be passed through
    known,      ///< numbers, with symbolic extents
    extents,    ///< integers of shapes
    view,       ///< axes over a value of the graph or a product
    index,      ///< ids or type ids: integers a token
    one_hot,    ///< rows of `after` columns, 1 where `inner` (an index) says
    pad_flag,   ///< 1 where ids are padding (flag) or are not (!flag)
    pad_count,  ///< running count of tokens that are no padding, + offset
    pad_place,  ///< the same, times the flag, + after
    poly,       ///< a polynomial in a view: coefficients c
    mean,
    centred,
    squared,
    variance,
    deviation,      ///< sqrt(variance + epsilon)
    inverse,        ///< its inverse
    normed,         ///< centred * inverse
    scaled,         ///< times gamma
    inverse_gamma,  ///< inverse * gamma
    x_gamma,        ///< x * inverse * gamma
    mean_gamma,     ///< mean * inverse * gamma
    beta_rest,      ///< beta - mean_gamma
    erf,            ///< factor * (add + erf(x / sqrt 2))
    tanh_gelu,      ///< factor * (add + tanh(...))
    norm2,          ///< |x| over the features; squares: before the root
    quantized,      ///< integers of a quantizer, on the way to its DequantizeLinear
    dynamic_q,
    dynamic_scale,
    dynamic_zero,
    integer_product,
  } kind = Kind::none;

  // known
  Array data;               ///< extents are 1 (uniform along the axis) or whole
  std::vector<Poly> shape;  ///< of known
  int length_power = 0;     ///< the numbers are times length^this
  std::string origin;       ///< initializer that it is, as stored or turned
  std::string columns_of;   ///< initializer whose columns it picks
  bool turned = false;      ///< a transposed matrix: data is as stored
  std::shared_ptr<WeightQuant> quant;
  std::shared_ptr<Value> plain;  ///< known = plain * column, on the way to a quantizer
  std::string column_name;
  std::shared_ptr<TableRows> rows;

  // extents
  std::vector<Poly> numbers;
  bool scalar = false;

  // views and what is made of them
  ValueId id = kNone;
  std::shared_ptr<Product> product;
  int64_t offset = 0;  ///< first column of the product that the view has
  std::vector<Axis> axes;
  char form = 't';     ///< 't' tokens, 'r' rows, 's' scores
  double pending = 1;  ///< the view times this
  int sum_length = 0;  ///< 1: the view times the length (a sum over tokens)
  std::string input;   ///< of index
  bool flag = false;
  int64_t pad = 0, count_offset = 0, after = 0;
  double c[4] = {0, 0, 0, 0};
  double epsilon = 0, factor = 1, add = 0;
  Array gamma, beta;
  std::string gamma_name, beta_name;
  std::shared_ptr<Value> inner;  ///< quantized: what was quantized; dynamic ones: the source
  Array scale, zero;
  std::shared_ptr<Value> held;  ///< view: a quantizer that waits to see whether a bias follows
  std::string node_name;
  int order = 0;
};

struct Product {
  // linear: x times weight
  ValueId x = kNone;
  double pending = 1;
  Value weight;  ///< known, 2-D; [K, N], or [N, K] when turned
  Array bias;    ///< [N] or empty
  std::string bias_name, name;
  char form = 't';
  int64_t width = 0;
  int order = 0;
  std::map<std::string, ValueId> made;  ///< by columns
  // attention scores
  bool is_scores = false;
  ValueId q = kNone, k = kNone;
  int64_t heads = 0, head_dim = 0;
  Array score_bias;  ///< [1|heads, Lmax, Lmax]
  std::string score_bias_name;
  bool operator_seen = false;
};

}  // namespace octet::onnx
