// Reading ONNX files: protobuf fields to structs, tensors out of the mapped file or its external data, functions
// inlined.
#include <algorithm>
#include <cstring>
#include <protozero/pbf_reader.hpp>
#include <set>

#include "core/error.h"
#include "onnx/file.h"

namespace octet::onnx {

namespace {

using protozero::pbf_reader;
using protozero::pbf_wire_type;

constexpr int kMaxDepth = 16;  // of graphs in attributes
constexpr int64_t kMaxElements = int64_t{1} << 40;
constexpr size_t kFreeBytes = 16 << 20;  // of nodes, names and lists, in a file of any size

// What the functions of a file hold, before they are inlined.
struct Function {
  std::string name, domain;
  std::vector<std::string> inputs, outputs;
  std::vector<Node> nodes;
  std::vector<Attribute> defaults;
};

class Reader {
 public:
  Reader(const MappedFile& file, std::string where, std::filesystem::path folder)
      : file_(file), where_(std::move(where)), folder_(std::move(folder)) {}

  File read() {
    File out;
    out.ir_version = 0;
    bool any = false;
    guarded([&] {
      pbf_reader message = whole();
      while (message.next()) {
        any = true;
        switch (message.tag()) {
          case 1: out.ir_version = int64(message); break;
          case 2: out.producer = text(message); break;
          case 3: out.producer_version = text(message); break;
          case 7: graph_view_ = view(message); break;
          case 8: {
            auto [domain, version] = opset(submessage(message));
            out.opsets[domain] = version;
            break;
          }
          case 14: {
            auto [key, value] = pair(submessage(message));
            out.metadata[key] = value;
            break;
          }
          case 25: functions_.push_back(function(submessage(message))); break;
          default: message.skip();
        }
      }
    });
    if (!any || graph_view_.data() == nullptr)
      fail(ErrorCode::corrupt,
           {.what = "cannot read " + where_ + " as ONNX", .expected = "expected a model with a graph, found none"});
    guarded([&] { out.graph = graph(pbf_reader(graph_view_), 0); });
    return out;
  }

  TensorData read_tensor() {
    TensorData out;
    guarded([&] { out = tensor(whole()); });
    return out;
  }

  std::vector<Function>& functions() { return functions_; }

 private:
  template <typename Body>
  void guarded(Body&& body) {
    try {
      body();
    } catch (const protozero::exception& error) {
      fail(ErrorCode::corrupt, {.what = "cannot read " + where_ + " as ONNX",
                                .expected = std::string("its fields do not fit together: ") + error.what(),
                                .where = "near byte " + std::to_string(at_),
                                .hint = "fetch or export the file again"});
    }
  }
  /// Counts memory for what is small in the file and larger here: a file of empty nodes must not fill the machine.
  void spend(size_t bytes) {
    spent_ += bytes;
    if (spent_ > 4 * file_.bytes.size() + kFreeBytes)
      damaged("cannot read " + where_,
              "it has more nodes and names than a file of " + std::to_string(file_.bytes.size()) + " bytes should");
  }
  [[noreturn]] void damaged(const std::string& what, const std::string& expected) const {
    fail(ErrorCode::corrupt,
         {.what = what, .expected = expected, .where = "in " + where_ + ", near byte " + std::to_string(at_)});
  }

  pbf_reader whole() const { return pbf_reader(reinterpret_cast<const char*>(file_.bytes.data()), file_.bytes.size()); }
  // Every access notes where it is, for messages.
  protozero::data_view view(pbf_reader& m) {
    want(m, pbf_wire_type::length_delimited);
    protozero::data_view v = m.get_view();
    at_ = v.data() - reinterpret_cast<const char*>(file_.bytes.data());
    return v;
  }
  static void want(const pbf_reader& m, pbf_wire_type type) {
    if (m.wire_type() != type) throw protozero::unknown_pbf_wire_type_exception();
  }
  pbf_reader submessage(pbf_reader& m) { return pbf_reader(view(m)); }
  std::string text(pbf_reader& m) {
    auto v = view(m);
    spend(sizeof(std::string));
    return {v.data(), v.size()};
  }
  static int64_t int64(pbf_reader& m) {
    want(m, pbf_wire_type::varint);
    return m.get_int64();
  }
  static float number(pbf_reader& m) {
    want(m, pbf_wire_type::fixed32);
    return m.get_float();
  }
  void integers(pbf_reader& m, std::vector<int64_t>& out) {
    if (m.wire_type() == pbf_wire_type::length_delimited) {
      auto range = m.get_packed_int64();
      for (int64_t v : range) out.push_back(v);
    } else {
      out.push_back(int64(m));
    }
  }
  void numbers(pbf_reader& m, std::vector<float>& out) {
    if (m.wire_type() == pbf_wire_type::length_delimited) {
      auto range = m.get_packed_float();
      for (float v : range) out.push_back(v);
    } else {
      out.push_back(number(m));
    }
  }

  std::pair<std::string, int64_t> opset(pbf_reader m) {
    std::pair<std::string, int64_t> out;
    while (m.next()) {
      if (m.tag() == 1) out.first = text(m);
      else if (m.tag() == 2) out.second = int64(m);
      else m.skip();
    }
    if (out.first == "ai.onnx") out.first.clear();
    return out;
  }
  std::pair<std::string, std::string> pair(pbf_reader m) {
    std::pair<std::string, std::string> out;
    while (m.next()) {
      if (m.tag() == 1) out.first = text(m);
      else if (m.tag() == 2) out.second = text(m);
      else m.skip();
    }
    return out;
  }

  ValueInfo value_info(pbf_reader m) {
    ValueInfo out;
    spend(sizeof(ValueInfo));
    while (m.next()) {
      if (m.tag() == 1) {
        out.name = text(m);
      } else if (m.tag() == 2) {
        pbf_reader type = submessage(m);
        while (type.next()) {
          if (type.tag() != 1) {
            type.skip();
            continue;
          }
          pbf_reader tensor = submessage(type);
          while (tensor.next()) {
            if (tensor.tag() == 1) out.type = static_cast<ElemType>(int64(tensor));
            else if (tensor.tag() == 2) shape(submessage(tensor), out);
            else tensor.skip();
          }
        }
      } else {
        m.skip();
      }
    }
    return out;
  }
  void shape(pbf_reader m, ValueInfo& out) {
    out.has_shape = true;
    while (m.next()) {
      if (m.tag() != 1) {
        m.skip();
        continue;
      }
      int64_t extent = -1;
      std::string symbol;
      pbf_reader dimension = submessage(m);
      while (dimension.next()) {
        if (dimension.tag() == 1) extent = int64(dimension);
        else if (dimension.tag() == 2) symbol = text(dimension);
        else dimension.skip();
      }
      out.shape.push_back(symbol.empty() ? extent : -1);
      out.symbols.push_back(symbol);
    }
  }

  // ------------------------------------------------------------ tensors
  // Integers of a list stay packed as they are in the file: most have one byte there.
  struct Integers {
    std::vector<protozero::iterator_range<pbf_reader::const_int64_iterator>> packs;
    std::vector<int64_t> single;

    size_t size() const {
      size_t n = single.size();
      for (const auto& pack : packs) n += static_cast<size_t>(pack.size());
      return n;
    }
    template <typename Body>
    void each(Body&& body) const {
      for (const auto& pack : packs)
        for (int64_t v : pack) body(v);
      for (int64_t v : single) body(v);
    }
  };

  TensorData tensor(pbf_reader m) {
    TensorData out;
    spend(sizeof(TensorData));
    Shape dims;
    protozero::data_view raw;
    bool has_raw = false, external = false;
    std::map<std::string, std::string> location;
    std::vector<float> floats;
    Integers ints;
    std::vector<double> doubles;
    while (m.next()) {
      switch (m.tag()) {
        case 1: integers(m, dims); break;
        case 2: out.type = static_cast<ElemType>(int64(m)); break;
        case 4: numbers(m, floats); break;
        case 5:
        case 7:
        case 11:
          if (m.wire_type() == pbf_wire_type::length_delimited) ints.packs.push_back(m.get_packed_int64());
          else ints.single.push_back(int64(m));
          break;
        case 8: out.name = text(m); break;
        case 9: raw = view(m), has_raw = true; break;
        case 10:
          if (m.wire_type() == pbf_wire_type::length_delimited) {
            auto range = m.get_packed_double();
            for (double v : range) doubles.push_back(v);
          } else {
            want(m, pbf_wire_type::fixed64);
            doubles.push_back(m.get_double());
          }
          break;
        case 13: {
          auto [key, value] = pair(submessage(m));
          location[key] = value;
          break;
        }
        case 14: external = int64(m) == 1; break;
        default: m.skip();
      }
    }
    int64_t elements = 1;
    for (int64_t extent : dims) {
      if (extent < 0 || (extent > 0 && elements > kMaxElements / extent))
        damaged("cannot read tensor " + out.name, "its shape is " + octet::to_string(dims));
      elements *= extent;
    }
    if (out.type == ElemType::string) {
      out.data = Tensor();  // refused where it is used
      return out;
    }
    Bytes bytes;
    if (external) bytes = external_bytes(out.name, location);
    else if (has_raw) bytes = {file_.owner, {reinterpret_cast<const std::byte*>(raw.data()), raw.size()}};
    if (external || has_raw) out.data = from_raw(out, dims, elements, bytes);
    else out.data = from_lists(out, dims, elements, floats, ints, doubles);
    return out;
  }

  struct Bytes {
    std::shared_ptr<const void> owner;
    std::span<const std::byte> bytes;
  };

  static int64_t bits_of(ElemType type) {
    switch (type) {
      case ElemType::f32:
      case ElemType::s32:
      case ElemType::u32: return 32;
      case ElemType::u8:
      case ElemType::s8:
      case ElemType::boolean: return 8;
      case ElemType::u16:
      case ElemType::s16:
      case ElemType::f16:
      case ElemType::bf16: return 16;
      case ElemType::s64:
      case ElemType::u64:
      case ElemType::f64: return 64;
      case ElemType::u4:
      case ElemType::s4: return 4;
      default: return 0;
    }
  }
  static DType held_as(ElemType type) {
    switch (type) {
      case ElemType::f32: return DType::f32;
      case ElemType::f16: return DType::f16;
      case ElemType::bf16: return DType::bf16;
      case ElemType::f64: return DType::f64;
      case ElemType::u4:
      case ElemType::u8: return DType::u8;
      case ElemType::s4:
      case ElemType::s8: return DType::s8;
      case ElemType::s16: return DType::s16;
      case ElemType::u16:
      case ElemType::s32: return DType::s32;
      case ElemType::boolean: return DType::boolean;
      default: return DType::s64;
    }
  }
  void check_type(const TensorData& tensor) const {
    if (bits_of(tensor.type) == 0)
      fail(ErrorCode::unsupported, {.what = "cannot read tensor " + tensor.name,
                                    .expected = "expected numbers of 4 to 64 bits, got " + onnx::name(tensor.type),
                                    .where = "in " + where_});
  }

  static constexpr int64_t kDeferred = 64 << 10;

  Tensor from_raw(const TensorData& tensor, const Shape& dims, int64_t elements, const Bytes& raw) {
    check_type(tensor);
    int64_t bits = bits_of(tensor.type);
    auto size = static_cast<int64_t>(raw.bytes.size());
    if (bits < 8 ? size != (elements + 1) / 2 : (size % (bits / 8) != 0 || size / (bits / 8) != elements))
      damaged("cannot read tensor " + tensor.name, "expected " + octet::to_string(dims) + " of " +
                                                       onnx::name(tensor.type) + ", got " + std::to_string(size) +
                                                       " bytes");
    DType dtype = held_as(tensor.type);
    bool same = bits == 8 * size_of(dtype);
    auto address = reinterpret_cast<uintptr_t>(raw.bytes.data());
    if (same && address % static_cast<uintptr_t>(size_of(dtype)) == 0) {
      if (dtype != DType::boolean || clean_booleans(raw.bytes)) return {dtype, dims, raw.owner, raw.bytes.data()};
    }
    if (same && dtype != DType::boolean && size >= kDeferred && !dims.empty()) {
      // Large ones are copied to where their type may lie when somebody reads them.
      return Tensor::unaligned(dtype, dims, raw.owner, raw.bytes.data());
    }
    std::byte* out = nullptr;
    Tensor copy = Tensor::allocate(dtype, dims, &out);
    if (bits < 8) {
      for (int64_t i = 0; i < elements; ++i) {
        auto pair = static_cast<uint8_t>(raw.bytes[static_cast<size_t>(i / 2)]);
        auto value = static_cast<uint8_t>(i % 2 ? pair >> 4 : pair & 15);
        if (tensor.type == ElemType::s4 && value >= 8) value = static_cast<uint8_t>(value | 0xf0);
        out[i] = static_cast<std::byte>(value);
      }
    } else if (dtype == DType::boolean) {
      for (int64_t i = 0; i < elements; ++i)
        out[i] = static_cast<std::byte>(raw.bytes[static_cast<size_t>(i)] != std::byte{0});
    } else if (same) {
      if (size > 0) std::memcpy(out, raw.bytes.data(), raw.bytes.size());
    } else if (tensor.type == ElemType::u16) {
      widen<uint16_t, int32_t>(raw.bytes, out, elements);
    } else {
      widen<uint32_t, int64_t>(raw.bytes, out, elements);
    }
    return copy;
  }
  static bool clean_booleans(std::span<const std::byte> bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b <= std::byte{1}; });
  }
  template <typename From, typename To>
  static void widen(std::span<const std::byte> bytes, std::byte* out, int64_t elements) {
    auto* to = reinterpret_cast<To*>(out);
    for (int64_t i = 0; i < elements; ++i) {
      From value;
      std::memcpy(&value, bytes.data() + static_cast<size_t>(i) * sizeof(From), sizeof(From));
      to[i] = static_cast<To>(value);
    }
  }
  Tensor from_lists(const TensorData& tensor, const Shape& dims, int64_t elements, const std::vector<float>& floats,
                    const Integers& ints, const std::vector<double>& doubles) {
    check_type(tensor);
    DType dtype = held_as(tensor.type);
    bool packed = bits_of(tensor.type) == 4;
    size_t have = dtype == DType::f32 ? floats.size() : dtype == DType::f64 ? doubles.size() : ints.size();
    if (packed && static_cast<int64_t>(have) * 2 >= elements) have = static_cast<size_t>(elements);
    if (static_cast<int64_t>(have) != elements)
      damaged("cannot read tensor " + tensor.name, "expected " + octet::to_string(dims) + " of " +
                                                       onnx::name(tensor.type) + ", got " + std::to_string(have) +
                                                       " values");
    std::byte* out = nullptr;
    Tensor data = Tensor::allocate(dtype, dims, &out);
    auto n = static_cast<size_t>(elements);
    size_t at = 0;
    auto fill = [&]<typename T>(T*) {
      auto* to = reinterpret_cast<T*>(out);
      ints.each([&](int64_t v) { to[at++] = static_cast<T>(v); });
    };
    switch (dtype) {
      case DType::f32:
        if (n > 0) std::memcpy(out, floats.data(), n * 4);
        break;
      case DType::f64:
        if (n > 0) std::memcpy(out, doubles.data(), n * 8);
        break;
      case DType::boolean: ints.each([&](int64_t v) { out[at++] = static_cast<std::byte>(v != 0); }); break;
      case DType::f16:
      case DType::bf16: fill(static_cast<uint16_t*>(nullptr)); break;
      case DType::s8:
      case DType::u8:
        if (!packed) {
          fill(static_cast<uint8_t*>(nullptr));
          break;
        }
        ints.each([&](int64_t pair) {
          for (int half = 0; half < 2 && at < n; ++half) {
            auto value = static_cast<uint8_t>((pair >> (half * 4)) & 15);
            if (tensor.type == ElemType::s4 && value >= 8) value = static_cast<uint8_t>(value | 0xf0);
            out[at++] = static_cast<std::byte>(value);
          }
        });
        break;
      case DType::s16: fill(static_cast<int16_t*>(nullptr)); break;
      case DType::s32: fill(static_cast<int32_t*>(nullptr)); break;
      case DType::s64: fill(static_cast<int64_t*>(nullptr)); break;
    }
    return data;
  }

  int64_t decimal(const std::map<std::string, std::string>& location, const char* key, int64_t fallback,
                  const std::string& tensor) const {
    auto found = location.find(key);
    if (found == location.end()) return fallback;
    if (found->second.empty() || found->second.size() > 18 ||
        found->second.find_first_not_of("0123456789") != std::string::npos)
      damaged("cannot read the external data of tensor " + tensor,
              std::string("its ") + key + " is '" + found->second + "'");
    return std::stoll(found->second);
  }

  Bytes external_bytes(const std::string& tensor, const std::map<std::string, std::string>& location) {
    auto found = location.find("location");
    std::filesystem::path name = found == location.end() ? "" : found->second;
    bool inside = !name.empty() && !name.is_absolute();
    for (const auto& part : name) inside = inside && part != "..";
    if (!inside)
      fail(ErrorCode::invalid_argument, {.what = "cannot read the external data of tensor " + tensor,
                                         .expected = "expected a file beside the model, got '" + name.string() + "'",
                                         .where = "in " + where_});
    auto it = external_.find(name.string());
    if (it == external_.end()) it = external_.emplace(name.string(), map_file(folder_ / name)).first;
    const MappedFile& data = it->second;
    auto size = static_cast<int64_t>(data.bytes.size());
    int64_t offset = decimal(location, "offset", 0, tensor);
    int64_t length = decimal(location, "length", std::max<int64_t>(0, size - offset), tensor);
    if (offset > size || length > size - offset)
      damaged("cannot read the external data of tensor " + tensor,
              "bytes " + std::to_string(offset) + " to " + std::to_string(offset + length) + " of " +
                  (folder_ / name).string() + ", which has " + std::to_string(size));
    return {data.owner, data.bytes.subspan(static_cast<size_t>(offset), static_cast<size_t>(length))};
  }

  // ------------------------------------------------------------ nodes and graphs
  Attribute attribute(pbf_reader m, int depth) {
    Attribute out;
    spend(sizeof(Attribute));
    int64_t type = 0;
    while (m.next()) {
      switch (m.tag()) {
        case 1: out.name = text(m); break;
        case 2:
          out.number = number(m);
          seen(out, Attribute::Kind::number);
          break;
        case 3:
          out.integer = int64(m);
          seen(out, Attribute::Kind::integer);
          break;
        case 4:
          out.text = text(m);
          seen(out, Attribute::Kind::text);
          break;
        case 5:
          out.tensor = tensor(submessage(m));
          seen(out, Attribute::Kind::tensor);
          break;
        case 6:
          out.graph = std::make_shared<Graph>(graph(submessage(m), depth + 1));
          seen(out, Attribute::Kind::graph);
          break;
        case 7:
          numbers(m, out.numbers);
          seen(out, Attribute::Kind::numbers);
          break;
        case 8:
          integers(m, out.integers);
          seen(out, Attribute::Kind::integers);
          break;
        case 9:
          out.texts.push_back(text(m));
          seen(out, Attribute::Kind::texts);
          break;
        case 20: type = int64(m); break;
        case 21: out.reference = text(m); break;
        default: m.skip();
      }
    }
    // Defaults are not stored by some writers: the type says what the attribute is.
    using Kind = Attribute::Kind;
    switch (type) {
      case 1: out.kind = Kind::number; break;
      case 2: out.kind = Kind::integer; break;
      case 3: out.kind = Kind::text; break;
      case 6: out.kind = Kind::numbers; break;
      case 7: out.kind = Kind::integers; break;
      case 8: out.kind = Kind::texts; break;
      default: break;
    }
    return out;
  }
  static void seen(Attribute& attribute, Attribute::Kind kind) {
    if (attribute.kind == Attribute::Kind::none) attribute.kind = kind;
  }

  Node node(pbf_reader m, int depth) {
    Node out;
    spend(sizeof(Node));
    while (m.next()) {
      switch (m.tag()) {
        case 1: out.inputs.push_back(text(m)); break;
        case 2: out.outputs.push_back(text(m)); break;
        case 3: out.name = text(m); break;
        case 4: out.op = text(m); break;
        case 5: out.attributes.push_back(attribute(submessage(m), depth)); break;
        case 7: out.domain = text(m); break;
        default: m.skip();
      }
    }
    if (out.domain == "ai.onnx") out.domain.clear();
    return out;
  }

  Graph graph(pbf_reader m, int depth) {
    if (depth > kMaxDepth) damaged("cannot read " + where_, "graphs are nested too deeply");
    Graph out;
    while (m.next()) {
      switch (m.tag()) {
        case 1: out.nodes.push_back(node(submessage(m), depth)); break;
        case 2: out.name = text(m); break;
        case 5: out.initializers.push_back(tensor(submessage(m))); break;
        case 11: out.inputs.push_back(value_info(submessage(m))); break;
        case 12: out.outputs.push_back(value_info(submessage(m))); break;
        case 15:
          fail(ErrorCode::unsupported,
               {.what = "cannot read " + where_, .expected = "its initializers are sparse, which octet does not read"});
        default: m.skip();
      }
    }
    // Before IR 4 initializers were listed among the inputs, too.
    std::set<std::string> held;
    for (const TensorData& t : out.initializers) held.insert(t.name);
    std::erase_if(out.inputs, [&](const ValueInfo& input) { return held.contains(input.name); });
    return out;
  }

  Function function(pbf_reader m) {
    Function out;
    while (m.next()) {
      switch (m.tag()) {
        case 1: out.name = text(m); break;
        case 4: out.inputs.push_back(text(m)); break;
        case 5: out.outputs.push_back(text(m)); break;
        case 7: out.nodes.push_back(node(submessage(m), 0)); break;
        case 10: out.domain = text(m); break;
        case 11: out.defaults.push_back(attribute(submessage(m), 0)); break;
        default: m.skip();
      }
    }
    return out;
  }

  const MappedFile& file_;
  std::string where_;
  std::filesystem::path folder_;
  std::map<std::string, MappedFile> external_;
  std::vector<Function> functions_;
  protozero::data_view graph_view_;
  int64_t at_ = 0;
  size_t spent_ = 0;
};

// Calls of the file's own functions become their nodes, with names of the call before theirs.
class Inliner {
 public:
  Inliner(std::vector<Function> functions, std::string where)
      : functions_(std::move(functions)), where_(std::move(where)) {}

  void run(Graph& graph, int depth = 0) {
    std::vector<Node> out;
    for (Node& node : graph.nodes) expand(std::move(node), out, depth);
    graph.nodes = std::move(out);
  }

 private:
  void expand(Node node, std::vector<Node>& out, int depth) {
    const Function* function = nullptr;
    for (const Function& f : functions_)
      if (f.name == node.op && f.domain == node.domain) function = &f;
    constexpr size_t kMaxNodes = 1 << 20;
    if (depth > kMaxDepth || out.size() > kMaxNodes)
      fail(ErrorCode::corrupt,
           {.what = "cannot read " + where_, .expected = "its functions call each other endlessly"});
    if (function == nullptr) {
      for (Attribute& a : node.attributes)
        if (a.graph) run(*a.graph, depth + 1);
      out.push_back(std::move(node));
      return;
    }
    std::string prefix = (node.name.empty() ? "call_" + std::to_string(++calls_) : node.name) + "/";
    std::map<std::string, std::string> names{{"", ""}};
    for (size_t i = 0; i < function->inputs.size(); ++i) names[function->inputs[i]] = node.input(i);
    for (size_t i = 0; i < function->outputs.size() && i < node.outputs.size(); ++i)
      if (!node.outputs[i].empty()) names[function->outputs[i]] = node.outputs[i];
    auto rename = [&](std::string& value) {
      auto [it, fresh] = names.emplace(value, prefix + value);
      value = it->second;
    };
    for (Node inner : function->nodes) {
      inner.name = prefix + inner.name;
      for (std::string& value : inner.inputs) rename(value);
      for (std::string& value : inner.outputs) rename(value);
      std::vector<Attribute> kept;
      for (Attribute& a : inner.attributes) {
        if (a.reference.empty()) {
          kept.push_back(std::move(a));
          continue;
        }
        const Attribute* given = node.find(a.reference);
        for (const Attribute& d : function->defaults)
          if (given == nullptr && d.name == a.reference) given = &d;
        if (given == nullptr) continue;
        Attribute value = *given;
        value.name = a.name;
        kept.push_back(std::move(value));
      }
      inner.attributes = std::move(kept);
      expand(std::move(inner), out, depth + 1);
    }
  }

  std::vector<Function> functions_;
  std::string where_;
  int64_t calls_ = 0;
};

}  // namespace

namespace {

File parse(Reader reader, const std::string& where) {
  File out = reader.read();
  if (!reader.functions().empty()) Inliner(std::move(reader.functions()), where).run(out.graph);
  return out;
}

}  // namespace

File parse_file(const MappedFile& file, const std::string& where, const std::filesystem::path& folder) {
  return parse(Reader(file, where, folder), where);
}

File read_file(const std::filesystem::path& path) {
  MappedFile file = map_file(path);
  return parse(Reader(file, path.string(), path.has_parent_path() ? path.parent_path() : "."), path.string());
}

TensorData read_tensor(const std::filesystem::path& path) {
  MappedFile file = map_file(path);
  return Reader(file, path.string(), path.parent_path()).read_tensor();
}

}  // namespace octet::onnx
