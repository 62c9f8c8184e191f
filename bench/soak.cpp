// Random ragged batches from several threads on one plan, for as long as it is told: no error, no growth of memory, and
// a text's answer has the same bits in whatever batch and thread it is computed.
//
//   bench_soak PLAN.octet [--minutes 60] [--threads 4] [--texts 200] [--longest 128] [--seed 1]
//
// Every thread has a session of its own (with one and two worker threads in turn), which it replaces after 500 batches.
// Answers are first computed text by text; a batch of 1 to 16 random ones is then compared with those. Memory is the
// process's resident set: its largest value in the second tenth of the time against its largest in the last tenth.
// Prints a line a minute; the exit status is 0 if everything held.
#include <octet/octet.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

int64_t resident_kib() {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;)
    if (word == "VmRSS:" && file >> word) return std::atoll(word.c_str());
  return 0;
}

struct Text {
  std::vector<int32_t> ids;
  std::vector<float> answer;
};

void add(octet::OwnedBatch& batch, const Text& text) {
  batch.ids.insert(batch.ids.end(), text.ids.begin(), text.ids.end());
  batch.offsets.push_back(static_cast<int32_t>(batch.ids.size()));
  batch.type_ids.resize(batch.ids.size(), 0);
}

std::vector<float> answers(octet::Session& session, const octet::OwnedBatch& batch) {
  octet::Output out = session.run(batch.view());
  return {out.values.begin(), out.values.end()};
}

struct Soak {
  const octet::Plan plan;
  std::vector<Text> texts;
  std::atomic<int64_t> batches{0}, tokens{0}, wrong{0};
  std::atomic<bool> failed{false}, done{false};
  std::mutex printing;

  void run(int index, uint64_t seed) {
    std::mt19937_64 random(seed + static_cast<uint64_t>(index));
    try {
      while (!done && !failed) {
        octet::Session session(plan, {.threads = 1 + index % 2});
        for (int turn = 0; turn < 500 && !done && !failed; ++turn) one_batch(session, random);
      }
    } catch (const std::exception& error) {
      std::lock_guard lock(printing);
      std::cerr << "thread " << index << ": " << error.what() << '\n';
      failed = true;
    }
  }

  void one_batch(octet::Session& session, std::mt19937_64& random) {
    octet::OwnedBatch batch;
    std::vector<size_t> chosen(1 + random() % 16);
    for (size_t& text : chosen) add(batch, texts[text = random() % texts.size()]);
    const std::vector<float> values = answers(session, batch);
    size_t at = 0;
    for (size_t text : chosen) {
      const std::vector<float>& expected = texts[text].answer;
      if (at + expected.size() > values.size() ||
          std::memcmp(values.data() + at, expected.data(), expected.size() * sizeof(float)) != 0)
        ++wrong;
      at += expected.size();
    }
    ++batches;
    tokens += static_cast<int64_t>(batch.ids.size());
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc % 2 != 0) {
    std::cerr << "usage: bench_soak PLAN.octet [--minutes 60] [--threads 4] [--texts 200] [--longest 128] [--seed 1]\n";
    return 64;
  }
  double minutes = 60;
  int threads = 4, count = 200, longest = 128;
  uint64_t seed = 1;
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string option = argv[i];
    if (option == "--minutes") minutes = std::atof(argv[i + 1]);
    else if (option == "--threads") threads = std::atoi(argv[i + 1]);
    else if (option == "--texts") count = std::atoi(argv[i + 1]);
    else if (option == "--longest") longest = std::atoi(argv[i + 1]);
    else if (option == "--seed") seed = static_cast<uint64_t>(std::atoll(argv[i + 1]));
    else return std::cerr << "bench_soak: unknown option " << option << '\n', 64;
  }
  try {
    Soak soak{.plan = octet::Plan::load(argv[1]), .texts = {}};
    std::mt19937_64 random(seed);
    soak.texts.resize(static_cast<size_t>(count));
    octet::Session alone(soak.plan, {.threads = 1});
    for (Text& text : soak.texts) {
      text.ids.resize(1 + random() % static_cast<uint64_t>(longest));
      for (int32_t& id : text.ids)
        id = static_cast<int32_t>(10 + random() % static_cast<uint64_t>(soak.plan.info().vocabulary - 20));
      octet::OwnedBatch batch;
      add(batch, text);
      text.answer = answers(alone, batch);
    }
    std::vector<std::thread> workers;
    for (int i = 0; i < threads; ++i) workers.emplace_back([&soak, i, seed] { soak.run(i, seed * 1000); });

    int64_t early = 0, late = 0;
    double next_line = 1, passed = 0;
    Clock::time_point last = Clock::now();
    while (passed < minutes && !soak.failed) {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      // A process that was stopped meanwhile soaked nothing.
      const Clock::time_point here = Clock::now();
      passed += std::min(1.0, std::chrono::duration<double>(here - last).count()) / 60;
      last = here;
      const int64_t now = resident_kib();
      if (passed > minutes * 0.1 && passed <= minutes * 0.2) early = std::max(early, now);
      if (passed > minutes * 0.9) late = std::max(late, now);
      if (passed < next_line) continue;
      next_line += 1;
      std::lock_guard lock(soak.printing);
      std::cout << "minute " << static_cast<int>(passed) << ": " << soak.batches << " batches, " << soak.tokens
                << " tokens, " << soak.wrong << " wrong answers, " << now / 1024 << " MiB" << std::endl;
    }
    soak.done = true;
    for (std::thread& worker : workers) worker.join();
    // Sessions come and go, so the resident set breathes by a few scratch areas.
    const int64_t allowed = std::max<int64_t>(8 * 1024, early / 20);
    const bool grew = late > early + allowed;
    std::cout << soak.batches << " batches, " << soak.tokens << " tokens, " << soak.wrong << " wrong answers; resident "
              << early / 1024 << " MiB early, " << late / 1024 << " MiB late" << (grew ? ": grew" : "") << std::endl;
    return soak.failed || soak.wrong > 0 || grew ? 1 : 0;
  } catch (const std::exception& error) {
    std::cerr << "bench_soak: " << error.what() << '\n';
    return 2;
  }
}
