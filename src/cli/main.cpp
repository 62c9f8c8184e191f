// The command `octet`: parses the command line, runs one verb, and turns errors into exit codes.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <exception>
#include <new>
#include <string_view>

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
