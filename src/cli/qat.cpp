// octet qat: trains with the calibration's quantizers in place.
#include <fmt/format.h>

#include "cli/train_library.h"
#include "cli/train_options.h"
#include "cli/verbs.h"

namespace octet::cli {

void add_qat(CLI::App& app, Console& console) {
  struct Options {
    TrainArguments train;
    QatOptions qat;
    std::string calibration, teacher;
    std::vector<std::string> states;
    std::string weight_ranges = "frozen";
  };
  auto options = std::make_shared<Options>();
  options->train.options.learning_rate = 1e-6;
  CLI::App* verb = add_verb(app, console, "qat", "Train a Hugging Face folder with its quantizers in place",
                            "octet qat tuned/ --calib tuned.calib.safetensors --train train.tsv --dev dev.tsv -o qat/");
  add_train_options(verb, &options->train);
  verb->add_option("--calib", options->calibration,
                   "Calibration file: placement and ranges (default: the folder's own)");
  verb->add_option("--method", options->qat.method, "Choose ranges again: max, percentile:P, entropy, mse or auto");
  verb->add_option("--set", options->states,
                   "PATTERN=on or PATTERN=off for quantizers of that name or glob; may be repeated")
      ->allow_extra_args(false);
  verb->add_option("--weight-ranges", options->weight_ranges,
                   "frozen: as calibrated; follow: from the weights at every step (default: frozen)")
      ->check(CLI::IsMember({"frozen", "follow"}));
  verb->add_flag("--learn-ranges", options->qat.learn_ranges, "Train the ranges of activations too");
  verb->add_option("--teacher", options->teacher, "Fine-tuned folder to distill from");
  verb->add_option("--distill-logits", options->qat.distill_logits, "Weight of the teacher's logits (default: 1)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--distill-hidden", options->qat.distill_hidden,
                   "Weight of the teacher's layer outputs (default: 0)")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--temperature", options->qat.temperature, "Of the softened logits (default: 2)")
      ->check(CLI::PositiveNumber);
  verb->callback([options, &console] {
    TrainArguments& a = options->train;
    const TrainFunctions& library = train_library();
    options->qat.calibration = options->calibration;
    options->qat.teacher = options->teacher;
    options->qat.follow_weights = options->weight_ranges == "follow";
    for (const std::string& text : options->states) {
      size_t at = text.rfind('=');
      if (at == std::string::npos || at == 0)
        refuse(ErrorCode::invalid_argument,
               {.what = fmt::format("cannot read --set {}", text), .expected = "expected PATTERN=on or PATTERN=off"});
      options->qat.states.emplace_back(text.substr(0, at), text.substr(at + 1));
    }
    train_verb(a, console, "qat", [&](const Dataset& train, const Dataset* dev, const TrainReport& report) {
      return library.qat(a.model, train, dev, a.output, a.options, options->qat, report);
    });
  });
}

}  // namespace octet::cli
