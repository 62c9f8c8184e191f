// octet as one of the engines that peers/compare.py runs in turn: requests as JSON lines on standard input, answers as
// JSON lines.
//
//   bench_peer_worker PLAN.octet THREADS
//
// A request is {"batches": [[length of each row], ...]}; the answer is {"ms": [one number a batch]}. The ids are
// random.
#include <octet/octet.h>

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: bench_peer_worker PLAN.octet THREADS\n";
    return 64;
  }
  try {
    octet::Plan plan = octet::Plan::load(argv[1]);
    octet::Session session(plan, {.threads = std::atoi(argv[2])});
    std::mt19937 random(0);
    std::uniform_int_distribution<int32_t> id(10, static_cast<int32_t>(plan.info().vocabulary) - 10);
    std::cout << nlohmann::json{{"ready", "octet"}} << std::endl;
    for (std::string line; std::getline(std::cin, line);) {
      std::vector<double> times;
      const nlohmann::json request = nlohmann::json::parse(line);
      for (const auto& lengths : request.at("batches")) {
        octet::OwnedBatch batch;
        for (int64_t length : lengths) {
          for (int64_t t = 0; t < length; ++t) batch.ids.push_back(id(random));
          batch.offsets.push_back(static_cast<int32_t>(batch.ids.size()));
        }
        batch.type_ids.assign(batch.ids.size(), 0);
        auto begin = std::chrono::steady_clock::now();
        session.run(batch.view());
        times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
      }
      std::cout << nlohmann::json{{"ms", times}} << std::endl;
    }
  } catch (const std::exception& error) {
    std::cerr << "bench_peer_worker: " << error.what() << '\n';
    return 2;
  }
}
