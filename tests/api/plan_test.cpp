// Plan files that are damaged, and sessions that share a plan.
#include <gtest/gtest.h>
#include <octet/error.h>
#include <octet/session.h>

#include <unistd.h>
#include <cstring>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/file.h"

namespace octet {
namespace {

using nlohmann::json;

std::filesystem::path folder(const std::string& name) { return std::filesystem::path(OCTET_TEST_DATA) / "hf" / name; }

std::string scratch(const std::string& name) {
  return (std::filesystem::temp_directory_path() / ("octet_plan_test_" + name + std::to_string(getpid()))).string();
}

std::string saved(const std::string& model, Precision precision) {
  std::string path = scratch("saved");
  compile(Model::load(folder(model)), {.precision = precision}).save(path);
  std::string bytes = read_text(path);
  std::filesystem::remove(path);
  return bytes;
}

ErrorCode code_of(const std::string& bytes, std::string* message) {
  std::string path = scratch("damaged");
  std::ofstream(path, std::ios::binary) << bytes;
  ErrorCode code = ErrorCode::internal;
  try {
    Session session(Plan::load(path), {.threads = 1});
    message->clear();
    ADD_FAILURE() << "loads and binds";
  } catch (const Error& error) {
    code = error.code();
    *message = error.what();
  }
  std::filesystem::remove(path);
  return code;
}

uint64_t header_bytes(const std::string& file) {
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  return length;
}

/// The file with its plan's JSON changed and everything else as it was.
std::string with_plan(const std::string& file, const std::function<void(json&)>& change) {
  uint64_t length = header_bytes(file);
  json header = json::parse(file.substr(8, length));
  json plan = json::parse(header["__metadata__"]["octet.plan"].get<std::string>());
  change(plan);
  header["__metadata__"]["octet.plan"] = plan.dump();
  std::string text = header.dump();
  text.resize((text.size() + 8 + 63) / 64 * 64 - 8, ' ');
  uint64_t now = text.size();
  return std::string(reinterpret_cast<const char*>(&now), 8) + text + file.substr(8 + length);
}

json* step_of(json& plan, const std::string& kind) {
  for (json& step : plan["program"]["steps"])
    if (step["kind"] == kind) return &step;
  throw std::runtime_error("no step of kind " + kind);
}

TEST(PlanFile, RefusesEveryTruncation) {
  std::string file = saved("bert-sentence-mean", Precision::int8), message;
  uint64_t length = header_bytes(file);
  std::vector<size_t> cuts{0, 1, 7, 8, 9, 8 + length / 2, 7 + length, 8 + length, 9 + length, file.size() - 1};
  json header = json::parse(file.substr(8, length));
  for (const auto& [name, entry] : header.items())
    if (name != "__metadata__") cuts.push_back(8 + length + entry["data_offsets"][0].get<size_t>());
  for (size_t cut : cuts)
    EXPECT_EQ(code_of(file.substr(0, cut), &message), ErrorCode::corrupt) << cut << ": " << message;
  // The plan's own JSON, shortened inside an intact container.
  std::string plan = header["__metadata__"]["octet.plan"];
  for (size_t at = plan.find_first_of("{}[],:"); at != std::string::npos;
       at = plan.find_first_of("{}[],:", at + plan.size() / 40)) {
    header["__metadata__"]["octet.plan"] = plan.substr(0, at);
    std::string text = header.dump();
    uint64_t now = text.size();
    EXPECT_EQ(code_of(std::string(reinterpret_cast<const char*>(&now), 8) + text + file.substr(8 + length), &message),
              ErrorCode::corrupt)
        << at << ": " << message;
  }
}

TEST(PlanFile, RefusesWhatWouldReadOutsideItsData) {
  std::string file = saved("roberta-classification", Precision::int8), message;
  std::string same = scratch("same");
  std::ofstream(same, std::ios::binary) << with_plan(file, [](json&) {});
  EXPECT_NO_THROW(Plan::load(same));
  std::filesystem::remove(same);
  struct Case {
    const char* what;
    std::function<void(json&)> change;
  };
  auto buffers = [](json& plan) -> json& { return plan["program"]["buffers"]; };
  for (const Case& c : std::vector<Case>{
           {"a larger vocabulary than the table",
            [](json& p) { p["program"]["vocabulary"] = p["program"]["vocabulary"].get<int64_t>() + 1; }},
           {"more types than the table", [](json& p) { p["program"]["types"] = 1 << 20; }},
           {"more positions than the table",
            [](json& p) { p["program"]["positions"] = p["program"]["positions"].get<int64_t>() + 1; }},
           {"positions that overflow", [](json& p) { p["program"]["positions"] = INT64_MAX; }},
           {"a start that overflows", [](json& p) { (*step_of(p, "positions"))["desc"]["start"] = int64_t{1} << 31; }},
           {"positions written over the ids",
            [](json& p) { (*step_of(p, "positions"))["outputs"][0][0] = p["program"]["inputs"]["ids"]; }},
           {"two inputs in one buffer",
            [](json& p) { p["program"]["inputs"]["type_ids"] = p["program"]["inputs"]["ids"]; }},
           {"a wider matrix", [](json& p) { (*step_of(p, "gemm"))["desc"]["n"] = 1 << 20; }},
           {"a result of integers",
            [&](json& p) {
              json& step = *step_of(p, "gemm");
              step["desc"]["y"] = "s32", buffers(p)[step["outputs"][0][0].get<size_t>()]["dtype"] = "s32";
            }},
           {"more heads", [](json& p) { (*step_of(p, "attention"))["desc"]["heads"] = 1000; }},
           {"a result that is written twice",
            [](json& p) { p["program"]["steps"].push_back(p["program"]["steps"].back()); }},
           {"an operand before it is computed",
            [](json& p) { std::swap(p["program"]["steps"].front(), p["program"]["steps"].back()); }},
           {"a weight that no field asks for", [](json& p) { (*step_of(p, "gemm"))["params"]["inv_scale1"] = "none"; }},
           {"a zero point beyond its type", [](json& p) { (*step_of(p, "gemm"))["numbers"]["zero0"] = 1e30; }},
           {"a buffer that is too wide", [&](json& p) { buffers(p)[0]["width"] = int64_t{1} << 40; }},
           {"an output that is none", [](json& p) { p["program"]["outputs"] = json::array(); }},
           {"labels without results", [](json& p) { p["model"]["labels"].push_back("more"); }},
           {"another task", [](json& p) { p["model"]["task"] = "token_classification"; }},
       })
    EXPECT_EQ(code_of(with_plan(file, c.change), &message), ErrorCode::corrupt) << c.what << ": " << message;
  // A bias by distance must reach as far as the longest text.
  const std::string relative = saved("mpnet-classification", Precision::int8);
  auto use = [](const char* role) {
    return [role](json& p) {
      json& params = (*step_of(p, "attention"))["params"];
      params["bias"] = params[role];
    };
  };
  EXPECT_EQ(code_of(with_plan(relative, use("score_scale")), &message), ErrorCode::corrupt);
  EXPECT_NE(message.find("a bias a head"), std::string::npos) << message;
  EXPECT_EQ(code_of(with_plan(relative, use("missing")), &message), ErrorCode::corrupt) << message;
}

// The tokenizer of format 1 is JSON alone; that of format 2 has its vocabulary packed beside it.
TEST(PlanFile, LoadsTheTokenizersOfBothFormats) {
  const std::string path = scratch("formats"), model = scratch("model");
  std::filesystem::copy(folder("bert-classification"), model);
  std::ofstream(model + "/vocab.txt") << "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ngood\nfilm\n##s\n";
  compile(Model::load(model), {.precision = Precision::fp32}).save(path);
  std::filesystem::remove_all(model);
  const std::string bytes = read_text(path);
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  json header = json::parse(bytes.substr(8, length));
  ASSERT_TRUE(header.contains("octet.tokenizer.vocabulary"));
  const Plan packed = Plan::load(path);
  // The vocabulary's bytes stay in the file, as a tensor that nothing reads.
  json entry = header["octet.tokenizer.vocabulary"];
  header.erase("octet.tokenizer.vocabulary");
  header["unread"] = entry;
  json plan = json::parse(header["__metadata__"]["octet.plan"].get<std::string>());
  plan["format"] = 1;
  header["__metadata__"]["octet.plan"] = plan.dump();
  header["__metadata__"]["octet.tokenizer"] = packed.tokenizer().to_json();
  const std::string text = header.dump();
  const uint64_t size = text.size();
  std::string old(reinterpret_cast<const char*>(&size), 8);
  // Not over the file that `packed` has mapped.
  std::ofstream(path + "1", std::ios::binary) << old + text + bytes.substr(8 + length);
  const Plan plain = Plan::load(path + "1");
  std::filesystem::remove(path + "1");
  std::filesystem::remove(path);
  EXPECT_EQ(plain.tokenizer().to_json(), packed.tokenizer().to_json());
  EXPECT_EQ(plain.tokenizer().encode("good films").ids, (std::vector<int32_t>{2, 6, 7, 8, 3}));
  EXPECT_EQ(packed.tokenizer().encode("good films").ids, (std::vector<int32_t>{2, 6, 7, 8, 3}));
}

TEST(Session, ManyOnOnePlanGiveTheSameBits) {
  for (Precision precision : {Precision::int8, Precision::fp32}) {
    Plan plan = compile(Model::load(folder("bert-sentence-mean")), {.precision = precision});
    std::vector<OwnedBatch> batches(4);
    std::vector<std::vector<float>> expected;
    for (size_t b = 0; b < batches.size(); ++b) {
      for (size_t row = 0; row < 3 + b; ++row) {
        Encoding e;
        for (size_t t = 0; t < 1 + (row * 5 + b) % 13; ++t)
          e.ids.push_back(static_cast<int32_t>((row * 7 + t * 3 + b) % 20));
        e.type_ids.assign(e.ids.size(), 0);
        batches[b].add(e);
      }
      Session alone(plan, {.threads = 1});
      Output out = alone.run(batches[b].view());
      expected.emplace_back(out.values.begin(), out.values.end());
    }
    Plan fresh = compile(Model::load(folder("bert-sentence-mean")),
                         {.precision = precision});  // sessions prepare it at the same time
    std::vector<std::thread> threads;
    std::vector<int> wrong(4);
    for (int t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        Session session(fresh, {.threads = 1 + t % 2});
        for (size_t i = 0; i < 24; ++i) {
          size_t b = (i + static_cast<size_t>(t)) % batches.size();
          Output out = session.run(batches[b].view());
          wrong[static_cast<size_t>(t)] +=
              out.values.size() != expected[b].size() ||
              std::memcmp(out.values.data(), expected[b].data(), out.values.size_bytes()) != 0;
        }
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, std::vector<int>(4)) << name(precision);
  }
}

TEST(Session, BatchesUnderWayGiveTheirOwnAnswers) {
  Plan plan = compile(Model::load(folder("bert-sentence-mean")), {.precision = Precision::int8});
  Session alone(plan, {.threads = 1}), session(plan, {.threads = 1, .in_flight = 3});
  auto batch = [](int32_t seed) {
    OwnedBatch made;
    for (int32_t row = 0; row < 1 + seed % 4; ++row) {
      Encoding e;
      for (int32_t t = 0; t < 1 + (row * 5 + seed) % 13; ++t) e.ids.push_back((row * 7 + t * 3 + seed) % 20);
      e.type_ids.assign(e.ids.size(), 0);
      made.add(e);
    }
    return made;
  };
  auto values = [](Output out) { return std::vector<float>(out.values.begin(), out.values.end()); };
  for (int32_t round = 0; round < 20; ++round) {
    std::vector<uint64_t> tickets;
    for (int32_t i = 0; i < 3; ++i) tickets.push_back(session.submit(batch(round * 3 + i).view()));  // gone at once
    for (int32_t i : {1, 2, 0})
      EXPECT_EQ(values(session.collect(tickets[static_cast<size_t>(i)])),
                values(alone.run(batch(round * 3 + i).view())));
  }
  auto refusal = [](auto call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      return error.what();
    }
    return "";
  };
  uint64_t ticket = alone.submit(batch(5).view());
  EXPECT_NE(refusal([&] { alone.submit(batch(6).view()); }).find("takes 1 batches at a time"), std::string::npos);
  EXPECT_NE(refusal([&] { alone.run(batch(6).view()); }).find("not collected yet"), std::string::npos);
  EXPECT_NE(refusal([&] { alone.collect(ticket + 1); }).find("cannot collect ticket"), std::string::npos);
  EXPECT_EQ(alone.collect(ticket).rows, 2);
  EXPECT_NE(refusal([&] { alone.collect(ticket); }).find("cannot collect ticket"), std::string::npos);
  EXPECT_NE(refusal([&] { Session(plan, {.in_flight = 0}); }).find("at least one batch in flight"), std::string::npos);
}

}  // namespace
}  // namespace octet
