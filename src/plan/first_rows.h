// What of a program only the first token of each row needs, and its running on those tokens alone (CPU).
//
// A classifier reads one token of a row (PoolKind::first). After the last attention every operation works on single
// tokens, so all that lies between it and that reader is needed for first tokens only; the attention itself for their
// queries, and the product that makes q, k and v for all tokens in its part of k and v. A token's result depends on
// nothing but its own values, so these results have the bits of the full run.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/prepared.h"

namespace octet {

class FirstRows {
 public:
  explicit FirstRows(const Prepared& prepared);

  bool any() const noexcept { return any_; }
  bool takes(size_t step) const noexcept { return kind_[step] != Kind::full; }
  /// Memory for a batch of that many rows.
  int64_t bytes(int64_t rows) const noexcept { return any_ ? rows * row_bytes_ + (rows + 1) * 4 + slack_ : 0; }

  /// A bound batch of the full program.
  struct Batch {
    int64_t rows, tokens, max_length;
    const int32_t* offsets;
    unsigned char* base;  ///< buffer b lies at base + offset[b], its row scales at base + scale_offset[b]
    const std::vector<int64_t>*offset, *scale_offset;
    unsigned char* memory;  ///< bytes(rows)
    unsigned char* scratch;
  };
  void bind(const Batch& batch);
  void run(size_t step, ThreadPool* pool) const;

 private:
  enum class Kind : uint8_t {
    full,   // as it is
    first,  // on first tokens
    split   // a product whose first columns, q, are for first tokens and the rest for all
  };
  void find();
  bool splits(size_t attention) const;
  const Buffer& buffer(int32_t id) const { return prepared_.program->buffers[static_cast<size_t>(id)]; }
  unsigned char* compact(const Slot& slot) const;
  float* compact_scale(int32_t id) const;
  void bind_step(size_t step);
  void gather(int32_t id) const;

  const Prepared& prepared_;
  bool any_ = false;
  std::vector<Kind> kind_;                    // by step
  std::vector<bool> first_;                   // by buffer: only its rows of first tokens are read
  std::vector<std::vector<int32_t>> needs_;   // by step: buffers whose first tokens are brought together before it
  std::vector<int64_t> place_, scale_place_;  // by buffer: bytes in front of it, a row; -1: none
  std::vector<int32_t> order_;                // buffers with a place, in order
  int64_t row_bytes_ = 0, slack_ = 0;

  Batch at_{};
  std::vector<BoundStep> steps_;    // with their arguments; of a split one the part for all tokens
  std::vector<BoundStep> queries_;  // of a split one the part for first tokens
  std::vector<int64_t> split_;      // by step: columns of q
};

}  // namespace octet
