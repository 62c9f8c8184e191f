// octet report: every form of a model with its accuracy and its time, as one page.
#include <fmt/format.h>
#include <octet/report.h>
#include <stdlib.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/data_options.h"
#include "cli/model_source.h"
#include "cli/peers.h"
#include "cli/shape.h"
#include "cli/verbs.h"

namespace octet::cli {

namespace {

namespace fs = std::filesystem;

/// A folder that goes with its files.
struct Scratch {
  fs::path path;
  Scratch() {
    std::string name = (fs::temp_directory_path() / "octet-report-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr)
      refuse(ErrorCode::io,
             {.what = "cannot make a folder for exported files in " + fs::temp_directory_path().string()});
    path = name;
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

struct Options {
  std::string model, calibration, output, shapes;
  PeerOptions peers;
  bool no_torch = false, no_peers = false;
  DataOptions data;
  ReportOptions how;
};

void write_report(Options& options, const Console& console) {
  check_output(options.output);
  Model model = load_model(options.model);
  const std::string file = calibration_of({.path = options.model, .calibration = options.calibration}, console);
  if (file.empty())
    refuse(ErrorCode::invalid_argument, {.what = "cannot report without a calibration",
                                         .expected = "expected --calib FILE: static INT8 is one of the rows",
                                         .hint = "`octet calibrate` makes one"});
  if (!options.shapes.empty()) {
    options.how.shapes.clear();
    for (const Shape& shape : parse_shapes(options.shapes)) options.how.shapes.emplace_back(shape.batch, shape.seq);
  }
  const Dataset data = load_data(options.data);
  if (options.how.limit > data.rows())
    console.note(fmt::format("{} has {} rows, fewer than the {} asked for", data.source(), format_count(data.rows()),
                             format_count(options.how.limit)));
  const Calibration calibration = Calibration::load(file);
  Scratch scratch;
  PeerOptions& peers = options.peers;
  peers.folder = options.model, peers.files = scratch.path, peers.threads = options.how.threads;
  peers.torch = !options.no_torch;
  if (options.no_peers) peers.python = peers.trtexec = "none", peers.torch = false;
  options.how.peers = find_peers(model, calibration, peers);
  const Report made = report(model, calibration, data, options.how, console.progress());
  options.how.peers.clear();  // their processes end before the folder goes
  std::string written;
  for (const auto& path : save_report(made, options.output)) written += (written.empty() ? "" : ", ") + path.string();
  console.say(made.markdown);
  console.say(written);
  console.result(nlohmann::ordered_json::parse(made.json));
}

}  // namespace

void add_report(CLI::App& app, Console& console) {
  auto options = std::make_shared<Options>();
  CLI::App* verb =
      add_verb(app, console, "report", "The whole comparison on your model and data: a page, Markdown and JSON",
               "octet report minilm/ --calib minilm.calib.safetensors --data stsb_dev.tsv -o report.html");
  verb->add_option("model", options->model, "Hugging Face folder")->required();
  verb->add_option("--calib", options->calibration, "Calibration file (default: the folder's own)");
  add_data_options(verb, &options->data)->required();
  verb->add_option("-o,--output", options->output, "The page, NAME.html; NAME.md and NAME.json stand beside it")
      ->required();
  verb->add_option("--limit", options->how.limit, "Rows evaluated, spread evenly over the data (default: all)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--sensitivity-rows", options->how.sensitivity_rows,
                   "Rows for the picture of layers; 0 leaves it out (default: 40)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--shapes", options->shapes, "Timed shapes (default: 1x16,1x64,1x128,8x16,8x64,8x128)")
      ->check(check_shapes);
  verb->add_option("--seconds", options->how.seconds, "Of timing a form at a shape (default: 1)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--max-length", options->how.max_length, "Cut texts to this many tokens (default: the model's most)")
      ->check(CLI::PositiveNumber);
  verb->add_option("--threads", options->how.threads, "Default: one per CPU")->check(CLI::NonNegativeNumber);
  verb->add_option("--python", options->peers.python,
                   "A Python with onnxruntime and openvino for rows of theirs, or none (default: python3)");
  verb->add_option("--trtexec", options->peers.trtexec,
                   "TensorRT's trtexec for rows of it, or none (default: the one on the PATH)");
  verb->add_flag("--no-torch", options->no_torch, "No rows of PyTorch");
  verb->add_flag("--no-peers", options->no_peers, "No rows of other engines");
  verb->callback([options, &console] { write_report(*options, console); });
}

}  // namespace octet::cli
