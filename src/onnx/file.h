// An ONNX file as own structs, with reading and writing: no protobuf type leaves this folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/file.h"
#include "core/tensor.h"

namespace octet::onnx {

/// TensorProto.DataType.
enum class ElemType : int32_t {
  none = 0,
  f32 = 1,
  u8 = 2,
  s8 = 3,
  u16 = 4,
  s16 = 5,
  s32 = 6,
  s64 = 7,
  string = 8,
  boolean = 9,
  f16 = 10,
  f64 = 11,
  u32 = 12,
  u64 = 13,
  bf16 = 16,
  f8e4m3fn = 17,
  u4 = 21,
  s4 = 22,
};
std::string name(ElemType type);
bool is_float(ElemType type) noexcept;

/// A tensor of the file. Types that octet's tensors lack are widened on reading: u16 to s32, u32 and u64 to s64, 4-bit
/// ones to 8.
struct TensorData {
  std::string name;
  ElemType type = ElemType::none;
  Tensor data;
};

struct Graph;

struct Attribute {
  enum class Kind : uint8_t { none, number, integer, text, tensor, graph, numbers, integers, texts } kind = Kind::none;
  std::string name;
  double number = 0;
  int64_t integer = 0;
  std::string text;
  TensorData tensor;
  std::shared_ptr<Graph> graph;
  std::vector<float> numbers;
  std::vector<int64_t> integers;
  std::vector<std::string> texts;
  std::string reference;  ///< name of a function's attribute that stands here
};

struct Node {
  std::string name, op, domain;  ///< domain "" is ONNX's own
  std::vector<std::string> inputs, outputs;
  std::vector<Attribute> attributes;

  const Attribute* find(std::string_view attribute) const noexcept;
  int64_t integer(std::string_view attribute, int64_t fallback) const;
  double number(std::string_view attribute, double fallback) const;
  std::string text(std::string_view attribute, const std::string& fallback) const;
  std::vector<int64_t> integers(std::string_view attribute, std::vector<int64_t> fallback = {}) const;
  /// The input's name; empty when it is absent.
  const std::string& input(size_t index) const noexcept;
  /// "MatMul node encoder/MatMul_3".
  std::string label() const;
};

/// Type and shape of a graph's input or output; an extent is a number, or a name (-1 here).
struct ValueInfo {
  std::string name;
  ElemType type = ElemType::none;
  bool has_shape = false;
  Shape shape;
  std::vector<std::string> symbols;  ///< beside shape; empty where the extent is a number
};

struct Graph {
  std::string name;
  std::vector<Node> nodes;
  std::vector<TensorData> initializers;
  std::vector<ValueInfo> inputs, outputs;
};

struct File {
  int64_t ir_version = 8;
  std::string producer, producer_version;
  std::map<std::string, int64_t> opsets;  ///< by domain
  std::map<std::string, std::string> metadata;
  Graph graph;

  int64_t opset() const noexcept;
};

/// Reads and checks a file: external data (beside it, never outside its folder), functions inlined. Throws not_found,
/// io, corrupt (with the byte offset), unsupported (a tensor type, an opset).
File read_file(const std::filesystem::path& path);
/// The same for bytes at hand; `folder` is where external data lies.
File parse_file(const MappedFile& file, const std::string& where, const std::filesystem::path& folder);
/// One tensor in a file of its own (.pb), as ONNX's test data has them.
TensorData read_tensor(const std::filesystem::path& path);

/// Equal files give equal bytes. Tensors of 1 KB and more go to `path`.data when the whole would pass `external_above`.
void write_file(const File& file, const std::filesystem::path& path, int64_t external_above = int64_t{2000} << 20);
std::string serialize(const File& file);

}  // namespace octet::onnx
