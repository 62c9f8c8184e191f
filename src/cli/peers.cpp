// Rows of other engines: exporting what they read, and talking to them.
#include "cli/peers.h"

#include <fmt/format.h>
#include <octet/onnx.h>
#include <octet/system.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/console.h"
#include "cli/peer_worker.h"
#include "cli/process.h"
#include "cli/train_library.h"

namespace octet::cli {

namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr double kStartSeconds = 300, kCallSeconds = 120;

/// An ONNX file of the model, or why there is none.
struct Exported {
  fs::path path;
  std::string absent;
};

std::string first_lines(const std::exception& error) {
  std::string text = error.what();
  for (char& c : text)
    if (c == '\n') c = ' ';
  return text;
}

Exported export_to(const Model& model, const fs::path& path, const ExportOptions& options) {
  try {
    export_onnx(model, path, options);
    return {path, ""};
  } catch (const Error& error) {
    return {path, "cannot be exported: " + first_lines(error)};
  }
}

int64_t size_of(const fs::path& path) {
  std::error_code error;
  int64_t bytes = 0;
  for (const fs::path& part : {path, fs::path(path.string() + ".data")}) {
    const auto size = fs::file_size(part, error);
    if (!error) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

Json answer_of(const std::string& line) {
  Json answer = Json::parse(line, nullptr, false);
  if (!answer.is_object()) refuse(ErrorCode::io, {.what = "its answer is no JSON: " + line.substr(0, 100)});
  return answer;
}

// ---------------------------------------------------------------- Python

ReportPeer python_peer(const std::string& name, const std::string& precision, const std::string& engine,
                       const Exported& file, const fs::path& script, const PeerOptions& options) {
  ReportPeer peer{.name = name, .device = "cpu", .precision = precision, .absent = file.absent};
  if (!peer.absent.empty()) return peer;
  auto errors = options.files / fmt::format("{}-{}.log", engine, file.path.stem().string());
  std::shared_ptr<Process> process;
  try {
    process = std::make_shared<Process>(std::vector<std::string>{options.python, script.string(), engine,
                                                                 file.path.string(), std::to_string(options.threads)},
                                        errors);
    process->read_line(kStartSeconds);
  } catch (const Error& error) {
    peer.absent = fmt::format("{}: {}", options.python, first_lines(error));
    if (peer.absent.find("No module named") != std::string::npos) peer.absent += "; --python names another Python";
    return peer;
  }
  peer.model_bytes = size_of(file.path);
  if (engine == "onnxruntime-dynamic") peer.model_bytes = size_of(file.path.string() + ".dynamic.onnx");
  peer.run = [process](std::span<const Encoding> rows) {
    Json ids = Json::array(), types = Json::array();
    for (const Encoding& row : rows) {
      ids.push_back(row.ids);
      types.push_back(row.type_ids.empty() ? std::vector<int32_t>(row.ids.size()) : row.type_ids);
    }
    process->write_line(Json{{"ids", std::move(ids)}, {"types", std::move(types)}}.dump());
    const Json answer = answer_of(process->read_line(kCallSeconds));
    PeerAnswer made;
    made.ms = answer.value("ms", 0.0);
    for (const Json& value : answer.value("values", Json::array()))
      made.values.push_back(value.is_number() ? value.get<float>() : NAN);
    return made;
  };
  peer.memory = [process] {
    process->write_line("{\"memory\": true}");
    return answer_of(process->read_line(kCallSeconds)).value("bytes", int64_t{0});
  };
  return peer;
}

void add_python(const Exported& floats, const Exported& qdq, const PeerOptions& options,
                std::vector<ReportPeer>* peers) {
  struct Engine {
    const char *name, *precision, *engine;
    const Exported* file;
  };
  const Engine engines[] = {{"ONNX Runtime", "fp32", "onnxruntime", &floats},
                            {"ONNX Runtime", "int8 QDQ", "onnxruntime", &qdq},
                            {"ONNX Runtime", "int8 its own", "onnxruntime-dynamic", &floats},
                            {"OpenVINO", "fp32", "openvino", &floats},
                            {"OpenVINO", "int8 QDQ", "openvino", &qdq}};
  std::string why;
  if (options.python == "none") why = "left out by --python none";
  else if (!has_program(options.python))
    why = fmt::format("there is no program {}; --python names one", options.python);
  const fs::path script = options.files / "peer_worker.py";
  if (why.empty()) std::ofstream(script) << kPeerWorker;
  for (const Engine& e : engines) {
    if (why.empty()) peers->push_back(python_peer(e.name, e.precision, e.engine, *e.file, script, options));
    else peers->push_back({.name = e.name, .device = "cpu", .precision = e.precision, .absent = why});
  }
}

// ---------------------------------------------------------------- libtorch

void add_torch(const PeerOptions& options, std::vector<ReportPeer>* peers) {
  struct Form {
    const char *precision, *type;
    bool autocast;
  };
  const Form forms[] = {{"fp32", "fp32", false}, {"fp16 weights", "fp16", false}, {"fp16 autocast", "fp16", true}};
  // Threads of libtorch that wait busily would take the CPU from who comes next.
  setenv("OMP_WAIT_POLICY", "passive", 0);
  std::string why;
  const TrainFunctions* library = nullptr;
  if (!options.torch) why = "left out by --no-torch";
  else {
    try {
      library = &train_library();
    } catch (const Error& error) {
      why = first_lines(error);
    }
  }
  const SystemInfo system = system_info();
  for (const char* device : {"cpu", "cuda"})
    for (const Form& form : forms) {
      ReportPeer peer{.name = "PyTorch", .device = device, .precision = form.precision, .absent = why};
      const bool on_gpu = std::string(device) == "cuda";
      if (on_gpu && system.gpu.empty()) continue;  // the rows of octet say why there is no GPU
      if (why.empty()) try {
          TorchRunner run = library->open_torch(
              options.folder,
              {.precision = form.type, .device = device, .threads = options.threads, .autocast = form.autocast});
          peer.run = [run](std::span<const Encoding> rows) {
            PeerAnswer answer;
            answer.values = run(rows, &answer.ms);
            return answer;
          };
        } catch (const Error& error) {
          peer.absent = first_lines(error);
        }
      peers->push_back(std::move(peer));
    }
}

// ---------------------------------------------------------------- trtexec

/// TensorRT's own command: an engine for all shapes, then a process a batch. Its times are those of the GPU alone
/// (computeMs); those of a batch are measured once, twenty of them, and given out one by one.
class Trtexec {
 public:
  Trtexec(const PeerOptions& options, const Exported& file, std::string name, std::vector<std::string> flags)
      : options_(options), file_(file), name_(std::move(name)), flags_(std::move(flags)) {}

  PeerAnswer run(std::span<const Encoding> rows) {
    size_t longest = 0;
    for (const Encoding& row : rows) longest = std::max(longest, row.ids.size());
    const std::string shape = fmt::format("{}x{}", rows.size(), longest);
    std::vector<int32_t> key{static_cast<int32_t>(rows.size())};
    for (const Encoding& row : rows) {
      key.push_back(static_cast<int32_t>(row.ids.size()));
      key.insert(key.end(), row.ids.begin(), row.ids.end());
    }
    if (auto known = known_.find(key); known != known_.end()) {
      std::deque<double>& times = known->second.second;
      times.push_back(times.front()), times.pop_front();
      return {known->second.first, times.front()};
    }
    if (!fs::exists(at(".engine"))) build();
    std::vector<int64_t> ids(rows.size() * longest), mask(ids.size()), types(ids.size());
    for (size_t r = 0; r < rows.size(); ++r)
      for (size_t t = 0; t < rows[r].ids.size(); ++t) {
        ids[r * longest + t] = rows[r].ids[t], mask[r * longest + t] = 1;
        types[r * longest + t] = rows[r].type_ids.empty() ? 0 : rows[r].type_ids[t];
      }
    put("ids", ids), put("mask", mask), put("types", types);
    std::string shapes, loads;
    for (const auto& [input, ending] : inputs()) {
      shapes += fmt::format("{}{}:{}", shapes.empty() ? "" : ",", input, shape);
      loads += fmt::format("{}{}:{}", loads.empty() ? "" : ",", input, at(ending).string());
    }
    call({"--loadEngine=" + at(".engine").string(), "--shapes=" + shapes, "--loadInputs=" + loads,
          "--exportOutput=" + at(".out.json").string(), "--exportTimes=" + at(".times.json").string(),
          "--iterations=20", "--duration=0", "--warmUp=200"});
    PeerAnswer answer;
    const Json times = read(".times.json"), outputs = read(".out.json");
    std::deque<double> list;
    for (const Json& sample : times) list.push_back(sample.value("computeMs", 0.0));
    if (list.empty() || !outputs.is_array() || outputs.empty())
      refuse(ErrorCode::io, {.what = "trtexec wrote no times or no outputs"});
    answer.ms = list.front();
    const std::vector<float> all = outputs[0].value("values", std::vector<float>());
    // Values a token come with those of the padding.
    const size_t width = all.size() / std::max<size_t>(ids.size(), 1);
    const std::string dimensions = outputs[0].value("dimensions", "");
    if (std::count(dimensions.begin(), dimensions.end(), 'x') == 2) {
      for (size_t r = 0; r < rows.size(); ++r) {
        const auto from = all.begin() + static_cast<int64_t>(r * longest * width);
        answer.values.insert(answer.values.end(), from, from + static_cast<int64_t>(rows[r].ids.size() * width));
      }
    } else {
      answer.values = all;
    }
    known_[key] = {answer.values, std::move(list)};
    return answer;
  }

 private:
  fs::path at(const std::string& ending) const { return options_.files / ("trt-" + name_ + ending); }
  void put(const char* name, const std::vector<int64_t>& values) const {
    std::ofstream(at(std::string(".") + name), std::ios::binary)
        .write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * 8));
  }
  Json read(const char* ending) const {
    std::ifstream file(at(ending));
    return Json::parse(file, nullptr, false);
  }
  void call(std::vector<std::string> arguments) const {
    arguments.insert(arguments.begin(), options_.trtexec);
    if (const int code = run_program(arguments, at(".log"), 1200); code != 0)
      refuse(ErrorCode::io,
             {.what = fmt::format("trtexec ended with {}", code), .where = "see its log, " + at(".log").string()});
  }
  /// The file's inputs, and the endings of the files that hold them.
  std::vector<std::pair<std::string, const char*>> inputs() const {
    std::ifstream file(file_.path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    std::vector<std::pair<std::string, const char*>> list{{"input_ids", ".ids"}};
    if (bytes.find("attention_mask") != std::string::npos) list.emplace_back("attention_mask", ".mask");
    if (bytes.find("token_type_ids") != std::string::npos) list.emplace_back("token_type_ids", ".types");
    return list;
  }
  void build() const {
    auto shapes = [this](const char* which, const char* shape) {
      std::string text = fmt::format("--{}Shapes=", which);
      for (const auto& [input, ending] : inputs())
        text += fmt::format("{}{}:{}", text.back() == '=' ? "" : ",", input, shape);
      return text;
    };
    std::vector<std::string> arguments{"--onnx=" + file_.path.string(),
                                       "--saveEngine=" + at(".engine").string(),
                                       shapes("min", "1x1"),
                                       shapes("opt", "8x128"),
                                       shapes("max", "32x512"),
                                       "--skipInference"};
    arguments.insert(arguments.end(), flags_.begin(), flags_.end());
    call(arguments);
  }

  PeerOptions options_;
  Exported file_;
  std::string name_;
  std::vector<std::string> flags_;
  std::map<std::vector<int32_t>, std::pair<std::vector<float>, std::deque<double>>> known_;  // by token ids
};

void add_trtexec(const Exported& floats, const Exported& qdq, const PeerOptions& options,
                 std::vector<ReportPeer>* peers) {
  struct Form {
    const char *precision, *name;
    const Exported* file;
    std::vector<std::string> flags;
  };
  const Form forms[] = {{"fp16", "fp16", &floats, {"--fp16"}}, {"int8 QDQ", "int8", &qdq, {"--int8", "--fp16"}}};
  for (const Form& form : forms) {
    ReportPeer peer{.name = "TensorRT", .device = "cuda", .precision = form.precision, .absent = form.file->absent};
    if (options.trtexec == "none") peer.absent = "left out by --trtexec none";
    else if (!has_program(options.trtexec)) peer.absent = fmt::format("there is no program {}", options.trtexec);
    if (peer.absent.empty()) {
      auto trt = std::make_shared<Trtexec>(options, *form.file, form.name, form.flags);
      peer.run = [trt](std::span<const Encoding> rows) { return trt->run(rows); };
      peer.model_bytes = size_of(form.file->path);
      peer.accuracy_batch = 32;
    }
    peers->push_back(std::move(peer));
  }
}

}  // namespace

std::vector<ReportPeer> find_peers(const Model& model, const Calibration& calibration, const PeerOptions& options) {
  const Exported floats = export_to(model, options.files / "float.onnx", {.opset = 17});
  const Exported qdq =
      export_to(model, options.files / "qdq.onnx", {.opset = 17, .calibration = calibration, .int8_weights = true});
  std::vector<ReportPeer> peers;
  add_torch(options, &peers);
  add_python(floats, qdq, options, &peers);
  add_trtexec(floats, qdq, options, &peers);
  return peers;
}

}  // namespace octet::cli
