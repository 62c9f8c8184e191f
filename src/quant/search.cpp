// The front of an additive model, built unit by unit.
#include "quant/search.h"

#include <algorithm>
#include <numeric>

namespace octet {

namespace {

struct Choice {
  double cost = 0, noise = 0, work = 0;
  std::vector<char> off;
};

constexpr size_t kMost = 4096;         // partial choices kept
constexpr size_t kMostBounded = 1024;  // when work counts as well

/// Drops what is beaten by more than the tolerance. The noise of units still to come is in all alike, so what is beaten
/// here stays beaten.
void prune(std::vector<Choice>* list, double tolerance) {
  std::stable_sort(list->begin(), list->end(), [](const Choice& a, const Choice& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.noise < b.noise;
  });
  double least = 0;
  bool first = true;
  std::vector<Choice> kept;
  for (Choice& choice : *list) {
    const bool beaten = !first && (tolerance > 0 ? choice.noise > least * (1 + tolerance) : choice.noise >= least);
    if (first || choice.noise < least) least = choice.noise;
    first = false;
    if (!beaten) kept.push_back(std::move(choice));
  }
  *list = std::move(kept);
}

/// The same where work is bounded: what is beaten in cost and noise may still leave more room for what comes.
void prune_bounded(std::vector<Choice>* list, double tolerance) {
  std::stable_sort(list->begin(), list->end(), [](const Choice& a, const Choice& b) {
    return a.cost != b.cost ? a.cost < b.cost : a.noise < b.noise;
  });
  std::vector<Choice> kept;
  for (Choice& choice : *list) {
    const bool beaten = std::any_of(kept.begin(), kept.end(), [&](const Choice& other) {
      return other.work <= choice.work && other.noise * (1 + tolerance) <= choice.noise;
    });
    if (!beaten) kept.push_back(std::move(choice));
  }
  *list = std::move(kept);
}

void thin(std::vector<Choice>* list, size_t most) {
  if (list->size() <= most) return;
  std::vector<Choice> kept;
  for (size_t i = 0; i < most; ++i)
    kept.push_back(std::move((*list)[i * (list->size() - 1) / std::max<size_t>(most - 1, 1)]));
  *list = std::move(kept);
}

}  // namespace

std::vector<std::vector<char>> front_candidates(std::span<const SearchUnit> units, double tolerance, size_t limit,
                                                double most_work) {
  double all = 0;
  for (const SearchUnit& unit : units) all += unit.noise;
  const bool bounded = most_work < 1;
  const size_t most = bounded ? kMostBounded : kMost;
  auto shorten = [&](std::vector<Choice>* list, double slack) {
    if (bounded) prune_bounded(list, slack);
    else prune(list, slack);
  };
  std::vector<Choice> list{{0, all, 0, std::vector<char>(units.size(), 0)}};
  for (size_t u = 0; u < units.size(); ++u) {
    const size_t count = list.size();
    for (size_t i = 0; i < count; ++i) {
      if (bounded && list[i].work + units[u].work > most_work + 1e-9) continue;
      Choice off = list[i];
      off.cost += units[u].cost;
      off.noise = std::max(0.0, off.noise - units[u].noise);
      off.work += units[u].work;
      off.off[u] = 1;
      list.push_back(std::move(off));
    }
    shorten(&list, tolerance);
    if (list.size() > most) shorten(&list, 0);
    thin(&list, most);
  }
  if (bounded) prune(&list, tolerance);  // there is nothing left to come
  if (list.size() > limit && tolerance > 0) {
    std::vector<Choice> front = list;
    prune(&front, 0);
    if (front.size() >= limit) list = std::move(front);
  }
  thin(&list, std::max<size_t>(limit, 2) - 1);
  std::vector<std::vector<char>> sets;
  const std::vector<char> none(units.size(), 0);
  for (Choice& choice : list) sets.push_back(std::move(choice.off));
  if (std::find(sets.begin(), sets.end(), none) == sets.end()) sets.insert(sets.begin(), none);
  return sets;
}

std::vector<size_t> pareto_front(std::span<const std::pair<double, double>> points) {
  std::vector<size_t> order(points.size()), front;
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return points[a] < points[b]; });
  for (size_t i : order)
    if (front.empty() || points[i].second < points[front.back()].second) front.push_back(i);
  return front;
}

}  // namespace octet
