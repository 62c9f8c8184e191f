// The whole public API.
//
//   octet::Model model = octet::Model::load("bert-folder");
//   octet::Plan plan = octet::compile(model, {.precision = octet::Precision::int8});
//   octet::Session session(plan);
//   octet::OwnedBatch batch;
//   batch.add(plan.tokenizer().encode("A text."));
//   octet::Output out = session.run(batch.view());
//   std::span<const float> row = out[0];
#pragma once

#include <octet/bench.h>
#include <octet/calibration.h>
#include <octet/dataset.h>
#include <octet/diff.h>
#include <octet/error.h>
#include <octet/evaluate.h>
#include <octet/health.h>
#include <octet/model.h>
#include <octet/onnx.h>
#include <octet/plan.h>
#include <octet/progress.h>
#include <octet/report.h>
#include <octet/session.h>
#include <octet/sweep.h>
#include <octet/system.h>
#include <octet/tokenizer.h>
#include <octet/transplant.h>
