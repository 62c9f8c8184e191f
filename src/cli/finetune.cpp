// octet finetune: trains a Hugging Face folder on labelled data.
#include "cli/train_library.h"
#include "cli/train_options.h"
#include "cli/verbs.h"

namespace octet::cli {

void add_finetune(CLI::App& app, Console& console) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* verb = add_verb(app, console, "finetune", "Fine-tune a Hugging Face folder on labelled data",
                            "octet finetune minilm/ --new-head labels=3 --train train.tsv --dev dev.tsv -o tuned/");
  add_train_options(verb, arguments.get());
  verb->callback([arguments, &console] {
    TrainArguments& a = *arguments;
    const TrainFunctions& library = train_library();
    train_verb(a, console, "finetune", [&](const Dataset& train, const Dataset* dev, const TrainReport& report) {
      return library.finetune(a.model, train, dev, a.output, a.options, report);
    });
  });
}

}  // namespace octet::cli
