// The public tokenizer: reading its description, truncation, special tokens, batches.
#include <octet/tokenizer.h>

#include <algorithm>
#include <cstdio>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "core/threads.h"
#include "text/component.h"
#include "text/tokenizer_state.h"
#include "text/unicode.h"

namespace octet {
namespace {

using text::Tokens;
using text::Workspace;

/// Keeps both lengths within `max_length`, as the reference does.
void truncate(Tokens& first, Tokens* second, int64_t max_length, Truncation truncation) {
  auto n1 = static_cast<int64_t>(first.ids.size()), n2 = second ? static_cast<int64_t>(second->ids.size()) : 0;
  auto keep = [](Tokens& tokens, int64_t count) {
    tokens.ids.resize(static_cast<size_t>(count));
    tokens.spans.resize(static_cast<size_t>(count));
  };
  if (max_length == 0) {
    keep(first, 0);
    if (second) keep(*second, 0);
    return;
  }
  int64_t excess = n1 + n2 - max_length;
  if (excess <= 0) return;
  if (truncation == Truncation::longest_first) {
    if (!second) return keep(first, max_length);
    bool swapped = n1 > n2;
    if (swapped) std::swap(n1, n2);
    n2 = n1 > max_length ? n1 : std::max(n1, max_length - n1);
    if (n1 + n2 > max_length) {
      n1 = max_length / 2;
      n2 = n1 + max_length % 2;
    }
    if (swapped) std::swap(n1, n2);
    keep(first, n1);
    keep(*second, n2);
    return;
  }
  bool pair = truncation == Truncation::only_second;
  if (pair && !second)
    fail(ErrorCode::invalid_argument, {.what = "cannot truncate the pair of a text that has none",
                                       .expected = "truncation only_second needs a pair",
                                       .hint = "use only_first or longest_first"});
  Tokens& target = pair ? *second : first;
  auto length = static_cast<int64_t>(target.ids.size());
  if (length <= excess)
    fail(ErrorCode::invalid_argument,
         {.what = std::string("cannot truncate the ") + (pair ? "pair" : "text") + " enough",
          .expected =
              "expected to remove " + std::to_string(excess) + " tokens, but it has only " + std::to_string(length),
          .hint = "use longest_first or a larger max_length"});
  keep(target, length - excess);
}

void check_utf8(std::string_view source, const char* which) {
  if (source.size() > (size_t{1} << 30))
    fail(ErrorCode::invalid_argument,
         {.what = std::string("cannot encode the ") + which,
          .expected = "expected at most 1 GiB, got " + std::to_string(source.size()) + " bytes"});
  size_t bad = text::invalid_utf8(source);
  if (bad == std::string_view::npos) return;
  char byte[8];
  std::snprintf(byte, sizeof byte, "0x%02x", static_cast<unsigned char>(source[bad]));
  fail(ErrorCode::invalid_argument, {.what = std::string("cannot encode the ") + which,
                                     .expected = std::string("expected UTF-8, got byte ") + byte,
                                     .where = "at byte " + std::to_string(bad) + " of " + std::to_string(source.size()),
                                     .hint = "convert the text to UTF-8"});
}

/// A workspace that finds its way back.
class Lease {
 public:
  explicit Lease(const Tokenizer::State& state) : state_(state), work_(state.take_workspace()) {}
  ~Lease() { state_.return_workspace(std::move(work_)); }
  Workspace& operator*() { return *work_; }

 private:
  const Tokenizer::State& state_;
  std::unique_ptr<Workspace> work_;
};

/// Takes the spaces at both ends of tokens out of their spans.
void trim_spans(const Tokenizer::State& state, Tokens& tokens, bool add_prefix_space) {
  auto padded = tokens.padded.begin();
  for (size_t k = 0; k < tokens.ids.size(); ++k) {
    auto [leading, trailing] = state.spaces[static_cast<size_t>(tokens.ids[k])];
    if (padded != tokens.padded.end() && padded->index == k) {
      leading = padded->leading;
      trailing = padded->trailing;
      ++padded;
    }
    TextSpan& span = tokens.spans[k];
    if (leading > 0) {
      // One space at the very beginning is the one that was put there.
      bool inserted = (k == 0 || span.begin == 0) && add_prefix_space && leading == 1;
      if (!inserted) span.begin = std::min(span.begin + leading, span.end);
    }
    if (trailing > 0 && span.end >= trailing) span.end = std::max(span.end - trailing, span.begin);
  }
}

void encode_with(const Tokenizer::State& state, Workspace& work, std::string_view source,
                 std::optional<std::string_view> pair, const EncodeOptions& options, Encoding& result) {
  check_utf8(source, "text");
  if (pair) check_utf8(*pair, "pair");
  int64_t added = options.add_special_tokens ? state.post.added(pair.has_value()) : 0;
  if (options.max_length < 0 || (options.max_length > 0 && options.max_length < added))
    fail(ErrorCode::invalid_argument, {.what = "cannot encode to a length of " + std::to_string(options.max_length),
                                       .expected = "expected at least the " + std::to_string(added) + " special tokens",
                                       .hint = "0 means no limit"});
  int64_t room = options.max_length - added;
  Tokens* tokens = work.tokens;
  int count = pair ? 2 : 1;
  for (int i = 0; i < count; ++i) {
    // Tokens that will be cut off need not be made, except to know how many there are: the other truncations ask for
    // that, and of two texts that both lose tokens the longer one keeps the odd token.
    bool bounded =
        options.max_length > 0 && options.truncation == Truncation::longest_first && (!pair || room % 2 == 0);
    tokens[i].limit = bounded ? static_cast<size_t>(room) : SIZE_MAX;
    state.tokenize(i == 0 ? source : *pair, work, tokens[i]);
  }
  if (options.max_length > 0) truncate(tokens[0], pair ? &tokens[1] : nullptr, room, options.truncation);
  if (options.offsets) {
    for (const auto& trim : state.post.trims)
      for (int i = 0; i < count; ++i) trim_spans(state, tokens[i], trim.add_prefix_space);
  }
  size_t total = tokens[0].ids.size() + (pair ? tokens[1].ids.size() : 0) + static_cast<size_t>(added);
  result.ids.clear();
  result.type_ids.clear();
  result.offsets.clear();
  result.sequence_ids.clear();
  result.ids.reserve(total);
  result.type_ids.reserve(total);
  result.sequence_ids.reserve(total);
  if (options.offsets) result.offsets.reserve(total);
  for (const auto& item : state.post.items(pair.has_value())) {
    if (item.sequence < 0 && !options.add_special_tokens) continue;
    const std::vector<int32_t>& ids = item.sequence < 0 ? item.ids : tokens[item.sequence].ids;
    result.ids.insert(result.ids.end(), ids.begin(), ids.end());
    result.type_ids.insert(result.type_ids.end(), ids.size(), item.type_id);
    result.sequence_ids.insert(result.sequence_ids.end(), ids.size(), static_cast<int8_t>(item.sequence));
    if (!options.offsets) continue;
    if (item.sequence < 0) result.offsets.insert(result.offsets.end(), ids.size(), TextSpan{});
    else
      result.offsets.insert(result.offsets.end(), tokens[item.sequence].spans.begin(),
                            tokens[item.sequence].spans.end());
  }
}

std::optional<int32_t> first_known(const Tokenizer::State& state, const nlohmann::json& roles, const char* role,
                                   std::initializer_list<const char*> names) {
  auto id = [&](std::string_view token) -> std::optional<int32_t> {
    if (const auto* added = state.added->find(token)) return added->id;
    int32_t found = state.model->find(token);
    return found < 0 ? std::nullopt : std::optional(found);
  };
  if (auto named = roles.find(role); named != roles.end() && named->is_string())
    return id(named->get_ref<const std::string&>());
  for (const char* name : names)
    if (auto found = id(name)) return found;
  return std::nullopt;
}

// `vocabulary`: what was taken out of the model, or empty.
std::shared_ptr<const Tokenizer::State> make_state(nlohmann::json json, const std::string& where,
                                                   std::span<const std::byte> vocabulary = {}) {
  if (!json.is_object() || !json.contains("model"))
    fail(ErrorCode::corrupt, {.what = "cannot read the tokenizer",
                              .expected = json.is_object() ? "expected a \"model\""
                                                           : std::string("expected an object, got ") + json.type_name(),
                              .where = "in " + where});
  auto state = std::make_shared<Tokenizer::State>();
  auto part = [&](const char* key) -> const nlohmann::json& {
    static const nlohmann::json null;
    auto found = json.find(key);
    return found == json.end() ? null : *found;
  };
  std::optional<text::PackedVocabulary> packed;
  if (!vocabulary.empty()) {
    state->packed.assign(reinterpret_cast<const char*>(vocabulary.data()), vocabulary.size());
    packed.emplace(std::as_bytes(std::span(state->packed)), where);
  }
  state->model = text::make_model(json["model"], packed ? &*packed : nullptr, where);
  state->normalizer = text::make_normalizer(part("normalizer"), where);
  state->pre_tokenizer = text::make_pre_tokenizer(part("pre_tokenizer"), where);
  state->post = text::make_post_processor(part("post_processor"), where);
  state->added =
      std::make_unique<text::AddedTokens>(part("added_tokens"), *state->model, state->normalizer.get(), where);
  for (const auto* items : {&state->post.single, &state->post.pair}) {
    for (const auto& item : *items) {
      for (int32_t id : item.ids)
        if (id < 0)
          fail(ErrorCode::corrupt, {.what = "cannot read the post-processor",
                                    .expected = "expected ids of special tokens from 0, got " + std::to_string(id),
                                    .where = "in " + where});
    }
  }
  state->decoder_json = part("decoder").dump();

  state->vocabulary_size = state->model->vocabulary_size();
  state->max_id = static_cast<int32_t>(state->model->tokens().size()) - 1;
  for (const auto& token : state->added->all()) {
    state->vocabulary_size += state->model->find(token->content) < 0 ? 1 : 0;
    state->max_id = std::max(state->max_id, token->id);
  }
  if (!state->post.trims.empty()) {
    state->spaces.resize(static_cast<size_t>(state->max_id) + 1);
    for (size_t id = 0; id < state->model->tokens().size(); ++id)
      state->spaces[id] = text::count_spaces(state->model->tokens()[id]);
    for (const auto& token : state->added->all())
      state->spaces[static_cast<size_t>(token->id)] = text::count_spaces(token->content);
  }
  auto octet = json.find("octet");
  nlohmann::json roles = octet != json.end() && octet->is_object() ? *octet : nlohmann::json::object();
  state->pad = first_known(*state, roles, "pad_token", {"[PAD]", "<pad>"});
  state->unk = first_known(*state, roles, "unk_token", {"[UNK]", "<unk>"});
  state->cls = first_known(*state, roles, "cls_token", {"[CLS]", "<s>"});
  state->sep = first_known(*state, roles, "sep_token", {"[SEP]", "</s>"});
  state->mask = first_known(*state, roles, "mask_token", {"[MASK]", "<mask>"});
  json.erase("truncation");
  json.erase("padding");
  state->json = json.dump();
  state->prepare();
  return state;
}

}  // namespace

std::vector<int32_t> Encoding::special_tokens_mask() const {
  std::vector<int32_t> mask;
  mask.reserve(sequence_ids.size());
  for (int8_t sequence : sequence_ids) mask.push_back(sequence < 0 ? 1 : 0);
  return mask;
}

std::vector<int32_t> Encoding::attention_mask() const { return std::vector<int32_t>(ids.size(), 1); }

TextSpan byte_span(std::string_view source, TextSpan span) noexcept {
  TextSpan bytes{static_cast<int32_t>(source.size()), static_cast<int32_t>(source.size())};
  int32_t at = -1;
  for (size_t i = 0; i < source.size(); ++i) {
    if ((source[i] & 0xc0) == 0x80) continue;
    ++at;
    if (at == span.begin) bytes.begin = static_cast<int32_t>(i);
    if (at == span.end) {
      bytes.end = static_cast<int32_t>(i);
      break;
    }
  }
  return bytes;
}

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  std::string where;
  nlohmann::json json = text::read_tokenizer_folder(folder, where);
  return Tokenizer(make_state(std::move(json), where));
}

Tokenizer Tokenizer::from_json(std::string_view source, const std::string& where) {
  return Tokenizer(make_state(parse_json(source, where), where));
}

std::string Tokenizer::to_json() const {
  if (state_->packed.empty()) return state_->json;
  nlohmann::json json = nlohmann::json::parse(state_->json);
  text::PackedVocabulary(std::as_bytes(std::span(state_->packed)), "the tokenizer").put_back(json["model"]);
  return json.dump();
}

Tokenizer::Packed Tokenizer::pack() const {
  if (!state_->packed.empty()) return {state_->json, state_->packed};
  nlohmann::json json = nlohmann::json::parse(state_->json);
  Packed result;
  result.vocabulary = text::PackedVocabulary::take(json["model"]);
  result.json = json.dump();
  return result;
}

Tokenizer Tokenizer::from_packed(std::string_view json, std::span<const std::byte> vocabulary,
                                 const std::string& where) {
  return Tokenizer(make_state(parse_json(json, where), where, vocabulary));
}

Encoding Tokenizer::encode(std::string_view source, std::optional<std::string_view> pair,
                           const EncodeOptions& options) const {
  Encoding result;
  encode_into(source, pair, options, result);
  return result;
}

void Tokenizer::encode_into(std::string_view source, std::optional<std::string_view> pair, const EncodeOptions& options,
                            Encoding& result) const {
  Lease work(*state_);
  encode_with(*state_, *work, source, pair, options, result);
}

std::vector<Encoding> Tokenizer::encode_batch(std::span<const std::string_view> texts,
                                              std::span<const std::string_view> pairs, const EncodeOptions& options,
                                              int threads) const {
  if (!pairs.empty() && pairs.size() != texts.size())
    fail(ErrorCode::invalid_argument, {.what = "cannot encode texts with their pairs",
                                       .expected = "expected as many pairs as texts (" + std::to_string(texts.size()) +
                                                   "), got " + std::to_string(pairs.size())});
  std::vector<Encoding> results(texts.size());
  std::mutex mutex;
  size_t bad_row = SIZE_MAX;
  std::optional<Error> bad;
  auto body = [&](int64_t begin, int64_t end) {
    Lease work(*state_);
    for (auto row = static_cast<size_t>(begin); row < static_cast<size_t>(end); ++row) {
      try {
        encode_with(*state_, *work, texts[row], pairs.empty() ? std::nullopt : std::optional(pairs[row]), options,
                    results[row]);
      } catch (const std::exception& error) {
        const auto* own = dynamic_cast<const Error*>(&error);
        std::lock_guard lock(mutex);
        if (row < bad_row) {
          bad_row = row;
          bad = own ? *own : Error(ErrorCode::out_of_memory, error.what());
        }
        return;
      }
    }
  };
  constexpr int64_t kGrain = 32;
  if (threads == 1 || texts.size() <= static_cast<size_t>(kGrain)) {
    body(0, static_cast<int64_t>(texts.size()));
  } else {
    ThreadPool pool(threads);
    pool.parallel_for(static_cast<int64_t>(texts.size()), kGrain, body);
  }
  if (bad) throw Error(bad->code(), std::string(bad->what()) + "\n  in row " + std::to_string(bad_row));
  return results;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  for (int32_t id : ids) {
    const auto* added = state_->added->by_id(id);
    if (skip_special_tokens && added && added->special) continue;
    if (std::string token = token_of(id); !token.empty()) tokens.push_back(std::move(token));
  }
  std::string result;
  auto decoder = text::make_decoder(nlohmann::json::parse(state_->decoder_json), "the tokenizer's decoder");
  if (!decoder) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) result += ' ';
      result += tokens[i];
    }
    return result;
  }
  for (const std::string& token : decoder->apply(std::move(tokens))) result += token;
  return result;
}

int64_t Tokenizer::vocab_size() const noexcept { return state_->vocabulary_size; }
int32_t Tokenizer::max_id() const noexcept { return state_->max_id; }

std::optional<int32_t> Tokenizer::id_of(std::string_view token) const {
  if (const auto* added = state_->added->find(token)) return added->id;
  int32_t id = state_->model->find(token);
  return id < 0 ? std::nullopt : std::optional(id);
}

std::string Tokenizer::token_of(int32_t id) const {
  if (const auto* added = state_->added->by_id(id)) return added->content;
  const auto& tokens = state_->model->tokens();
  return id >= 0 && static_cast<size_t>(id) < tokens.size() ? tokens[static_cast<size_t>(id)] : std::string();
}

std::optional<int32_t> Tokenizer::pad_id() const { return state_->pad; }
std::optional<int32_t> Tokenizer::unk_id() const { return state_->unk; }
std::optional<int32_t> Tokenizer::cls_id() const { return state_->cls; }
std::optional<int32_t> Tokenizer::sep_id() const { return state_->sep; }
std::optional<int32_t> Tokenizer::mask_id() const { return state_->mask; }
int64_t Tokenizer::special_tokens_added(bool pair) const noexcept { return state_->post.added(pair); }
std::string_view Tokenizer::model_name() const noexcept { return state_->model->name(); }

}  // namespace octet
