// The command `octet`: parses the command line, runs one verb, and turns errors into exit codes.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/verbs.h"

namespace octet::cli {

CLI::App* add_verb(CLI::App& app, Console& console, const char* name, const char* description, const char* example) {
  CLI::App* verb = app.add_subcommand(name, description);
  verb->add_flag("--json", console.json, "One JSON value on standard output, everything else on standard error");
  verb->footer(std::string("Example:\n  ") + example);
  verb->option_defaults()->always_capture_default(false);
  return verb;
}

namespace {

// Verbs of the pipeline that this build does not have; saying so is better than "unknown".
constexpr std::array<std::string_view, 1> kAbsentVerbs{"serve"};

int fail_with(const Error& error) {
  std::fflush(stdout);
  std::string text = fmt::format("octet: {}\n", error.what());
  if (error.code() == ErrorCode::internal)
    text += "  this is a fault of octet: please report it together with the command\n";
  std::fwrite(text.data(), 1, text.size(), stderr);
  return error.code() == ErrorCode::internal ? kOurFault : kUsersWorld;
}

// Number of insertions, deletions and replacements between two words (Levenshtein).
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = std::exchange(row[j + 1], std::min({replaced, row[j] + 1, row[j + 1] + 1}));
    }
  }
  return row.back();
}

std::vector<const CLI::App*> verbs_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

bool is_verb(const CLI::App& app, std::string_view word) {
  std::vector<const CLI::App*> verbs = verbs_of(app);
  return std::any_of(verbs.begin(), verbs.end(), [&](const CLI::App* verb) { return verb->get_name() == word; });
}

// A word in the verb's place that is no verb: names it and the verb that was probably meant.
int unknown_verb(const CLI::App& app, std::string_view word) {
  std::string nearest;
  std::size_t best = 3;
  for (const CLI::App* verb : verbs_of(app)) {
    std::size_t distance = edit_distance(word, verb->get_name());
    if (distance < best) best = distance, nearest = verb->get_name();
  }
  fmt::print(stderr, "octet has no verb '{}'{}\nRun with --help for the list of verbs.\n", word,
             nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
  return kUsage;
}

int run(int argc, char** argv) {
  if (argc > 1 && std::find(kAbsentVerbs.begin(), kAbsentVerbs.end(), std::string_view(argv[1])) != kAbsentVerbs.end())
    refuse(ErrorCode::unsupported, {.what = fmt::format("this build of octet has no verb {}", argv[1]),
                                    .hint = "`octet --help` lists the verbs that it has"});
  CLI::App app{"octet: a Hugging Face encoder becomes INT8 and runs on CPUs and NVIDIA GPUs", "octet"};
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer(
      "`octet VERB --help` has the options of a verb and an example.\nExit codes: 0 done, 1 a fault of octet, 2 input "
      "that cannot be used, 64 wrong "
      "usage.");
  Console console;
  add_inspect(app, console);
  add_calibrate(app, console);
  add_compile(app, console);
  add_run(app, console);
  add_eval(app, console);
  add_bench(app, console);
  add_diff(app, console);
  add_explain(app, console);
  add_export(app, console);
  add_finetune(app, console);
  add_qat(app, console);
  add_transplant(app, console);
  add_sweep(app, console);
  add_report(app, console);
  if (argc < 2) {
    fmt::print(stderr, "{}", app.help());
    return kUsage;
  }
  if (argv[1][0] != '-' && !is_verb(app, argv[1])) return unknown_verb(app, argv[1]);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    app.exit(error);
    return kUsage;
  }
  return kDone;
}

}  // namespace

int run_guarded(int argc, char** argv) {
  int code = kDone;
  try {
    code = run(argc, argv);
  } catch (const Error& error) {
    code = fail_with(error);
  } catch (const std::bad_alloc&) {
    code = fail_with(Error(ErrorCode::out_of_memory, "out of memory\n  hint: use smaller batches or a smaller model"));
  } catch (const std::exception& error) {
    code = fail_with(Error(ErrorCode::internal, std::string("unexpected error: ") + error.what()));
  }
  // A full disk behind standard output must not look like success.
  if ((std::fflush(stdout) != 0 || std::ferror(stdout)) && code == kDone)
    code = fail_with(Error(ErrorCode::io, "cannot write to standard output"));
  return code;
}

}  // namespace octet::cli

int main(int argc, char** argv) {
  // A file size limit is an error like a full disk, with the old file left as it was, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  return octet::cli::run_guarded(argc, argv);
}
