// The smallest program: a Hugging Face folder, a text, an answer. The README shows the middle of it.
//
//   example_hello FOLDER "a text"
#include <octet/octet.h>

#include <cstdio>
#include <span>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: example_hello FOLDER TEXT\n");
    return 64;
  }
  const char* folder = argv[1];
  const char* text = argv[2];
  try {
    octet::Model model = octet::Model::load(folder);
    // Dynamic ranges; a calibration makes them static.
    octet::Plan plan = octet::compile(model, {.precision = octet::Precision::int8});
    plan.save("model.octet");

    octet::Session session(plan);  // one per thread; a plan may have many
    octet::OwnedBatch batch;
    batch.add(plan.tokenizer().encode(text));
    octet::Output output = session.run(batch.view());
    std::span<const float> vector = output[0];  // the embedding or the scores; valid until the next run
    for (float value : vector) std::printf("%g ", value);
    std::printf("\n");
  } catch (const octet::Error& error) {
    std::fprintf(stderr, "example_hello: %s\n", error.what());
    return 2;
  }
}
