// Writing ONNX files: fields in ascending order, so that equal files have equal bytes.
#include <protozero/pbf_writer.hpp>

#include "core/error.h"
#include "onnx/file.h"

namespace octet::onnx {

namespace {

using protozero::pbf_writer;

constexpr int64_t kExternalFrom = 1024;  // smaller tensors stay in the model
constexpr int64_t kAlignment = 64;

class Writer {
 public:
  explicit Writer(std::string external_name = "") : external_name_(std::move(external_name)) {}

  std::string model(const File& file) {
    std::string out;
    pbf_writer m(out);
    m.add_int64(1, file.ir_version);
    if (!file.producer.empty()) m.add_string(2, file.producer);
    if (!file.producer_version.empty()) m.add_string(3, file.producer_version);
    {
      pbf_writer g(m, 7);
      graph(g, file.graph);
    }
    for (const auto& [domain, version] : file.opsets) {
      pbf_writer o(m, 8);
      if (!domain.empty()) o.add_string(1, domain);
      o.add_int64(2, version);
    }
    for (const auto& [key, value] : file.metadata) {
      pbf_writer p(m, 14);
      p.add_string(1, key);
      p.add_string(2, value);
    }
    return out;
  }

  /// What goes to the external file, in order.
  const std::vector<std::pair<int64_t, Tensor>>& external() const { return external_; }

 private:
  static std::span<const std::byte> bytes_of(const Tensor& t) { return {t.data(), static_cast<size_t>(t.bytes())}; }

  void tensor(pbf_writer& m, const TensorData& t) {
    m.add_packed_int64(1, t.data.shape().begin(), t.data.shape().end());
    m.add_int32(2, static_cast<int32_t>(t.type));
    if (!t.name.empty()) m.add_string(8, t.name);
    auto bytes = bytes_of(t.data);
    if (external_name_.empty() || t.data.bytes() < kExternalFrom) {
      m.add_bytes(9, reinterpret_cast<const char*>(bytes.data()), bytes.size());
      return;
    }
    entry(m, "location", external_name_);
    entry(m, "offset", std::to_string(position_));
    entry(m, "length", std::to_string(bytes.size()));
    m.add_int32(14, 1);
    external_.emplace_back(position_, t.data);
    position_ = (position_ + t.data.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  }
  static void entry(pbf_writer& m, const std::string& key, const std::string& value) {
    pbf_writer e(m, 13);
    e.add_string(1, key);
    e.add_string(2, value);
  }

  void attribute(pbf_writer& m, const Attribute& a) {
    using Kind = Attribute::Kind;
    m.add_string(1, a.name);
    int type = 0;
    switch (a.kind) {
      case Kind::number: m.add_float(2, static_cast<float>(a.number)), type = 1; break;
      case Kind::integer: m.add_int64(3, a.integer), type = 2; break;
      case Kind::text: m.add_bytes(4, a.text), type = 3; break;
      case Kind::tensor: {
        pbf_writer t(m, 5);
        tensor(t, a.tensor);
        type = 4;
        break;
      }
      case Kind::graph: {
        pbf_writer g(m, 6);
        graph(g, *a.graph);
        type = 5;
        break;
      }
      case Kind::numbers:
        for (float v : a.numbers) m.add_float(7, v);
        type = 6;
        break;
      case Kind::integers:
        for (int64_t v : a.integers) m.add_int64(8, v);
        type = 7;
        break;
      case Kind::texts:
        for (const std::string& v : a.texts) m.add_bytes(9, v);
        type = 8;
        break;
      case Kind::none: break;
    }
    m.add_int32(20, type);
  }

  void value_info(pbf_writer& m, const ValueInfo& v) {
    m.add_string(1, v.name);
    pbf_writer type(m, 2);
    pbf_writer t(type, 1);
    t.add_int32(1, static_cast<int32_t>(v.type));
    if (!v.has_shape) return;
    pbf_writer shape(t, 2);
    for (size_t i = 0; i < v.shape.size(); ++i) {
      pbf_writer d(shape, 1);
      if (i < v.symbols.size() && !v.symbols[i].empty()) d.add_string(2, v.symbols[i]);
      else if (v.shape[i] >= 0) d.add_int64(1, v.shape[i]);
    }
  }

  void graph(pbf_writer& m, const Graph& g) {
    for (const Node& node : g.nodes) {
      pbf_writer n(m, 1);
      for (const std::string& input : node.inputs) n.add_string(1, input);
      for (const std::string& output : node.outputs) n.add_string(2, output);
      if (!node.name.empty()) n.add_string(3, node.name);
      n.add_string(4, node.op);
      for (const Attribute& a : node.attributes) {
        pbf_writer out(n, 5);
        attribute(out, a);
      }
      if (!node.domain.empty()) n.add_string(7, node.domain);
    }
    m.add_string(2, g.name.empty() ? "graph" : g.name);
    for (const TensorData& t : g.initializers) {
      pbf_writer out(m, 5);
      tensor(out, t);
    }
    for (const ValueInfo& v : g.inputs) {
      pbf_writer out(m, 11);
      value_info(out, v);
    }
    for (const ValueInfo& v : g.outputs) {
      pbf_writer out(m, 12);
      value_info(out, v);
    }
  }

  std::string external_name_;
  std::vector<std::pair<int64_t, Tensor>> external_;
  int64_t position_ = 0;
};

}  // namespace

std::string serialize(const File& file) { return Writer().model(file); }

void write_file(const File& file, const std::filesystem::path& path, int64_t external_above) {
  int64_t bytes = 0;
  for (const TensorData& t : file.graph.initializers) bytes += t.data.bytes();
  std::string data_name = path.filename().string() + ".data";
  Writer writer(bytes > external_above ? data_name : "");
  std::string model = writer.model(file);
  if (!writer.external().empty()) {
    FileWriter data(path.parent_path() / data_name);
    int64_t at = 0;
    for (const auto& [position, tensor] : writer.external()) {
      data.write(std::string(static_cast<size_t>(position - at), '\0'));
      data.write({tensor.data(), static_cast<size_t>(tensor.bytes())});
      at = position + tensor.bytes();
    }
    data.commit();
  }
  FileWriter out(path);
  out.write(model);
  out.commit();
}

}  // namespace octet::onnx
