// The verbs: each function adds one subcommand, whose callback does the work.
#pragma once

#include <CLI/CLI.hpp>

#include "cli/console.h"

namespace octet::cli {

void add_inspect(CLI::App& app, Console& console);
void add_calibrate(CLI::App& app, Console& console);
void add_compile(CLI::App& app, Console& console);
void add_run(CLI::App& app, Console& console);
void add_eval(CLI::App& app, Console& console);
void add_bench(CLI::App& app, Console& console);
void add_diff(CLI::App& app, Console& console);
void add_explain(CLI::App& app, Console& console);
void add_export(CLI::App& app, Console& console);
void add_finetune(CLI::App& app, Console& console);
void add_qat(CLI::App& app, Console& console);
void add_transplant(CLI::App& app, Console& console);
void add_sweep(CLI::App& app, Console& console);
void add_report(CLI::App& app, Console& console);

/// A subcommand with --json and an example at the end of its help.
CLI::App* add_verb(CLI::App& app, Console& console, const char* name, const char* description, const char* example);

}  // namespace octet::cli
