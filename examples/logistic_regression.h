// Logistic regression on fixed features, fitted exactly: Newton's method on a strictly convex loss, all in double and
// in a fixed order, so that the same features give the same head everywhere.
#pragma once

#include <cmath>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <vector>

namespace example {

/// Minimises mean(log(1 + e^-y·z)) + l2/2 |w|^2 over w and the bias, with z = w·x + bias and y in {-1, 1}.
class LogisticRegression {
 public:
  /// `features` is [rows, width] row-major; labels are 0 or 1. Throws std::invalid_argument when sizes do not match.
  static LogisticRegression fit(std::span<const float> features, std::span<const int> labels, size_t width, double l2) {
    if (labels.empty() || width == 0 || features.size() != labels.size() * width || !(l2 > 0))
      throw std::invalid_argument("logistic regression needs rows x width features, one label a row and l2 > 0");
    LogisticRegression model(width);
    double loss = model.loss(features, labels, l2);
    for (int iteration = 0; iteration < 50; ++iteration) {
      std::vector<double> step = model.newton_step(features, labels, l2);
      double length = 1;
      LogisticRegression next = model;
      double next_loss = loss;
      // Halving guards the first steps, where the quadratic model may overshoot.
      for (; length > 1e-6; length /= 2) {
        for (size_t i = 0; i <= width; ++i) next.w_[i] = model.w_[i] - length * step[i];
        next_loss = next.loss(features, labels, l2);
        if (next_loss < loss) break;
      }
      if (!(next_loss < loss)) break;
      bool converged = loss - next_loss < 1e-12;
      model = next;
      loss = next_loss;
      if (converged) break;
    }
    return model;
  }

  /// Log odds of label 1.
  double score(const float* x) const {
    double z = w_[width_];
    for (size_t i = 0; i < width_; ++i) z += w_[i] * x[i];
    return z;
  }

  /// Share of rows whose label is predicted.
  double accuracy(std::span<const float> features, std::span<const int> labels) const {
    size_t right = 0;
    for (size_t r = 0; r < labels.size(); ++r) right += (score(&features[r * width_]) > 0) == (labels[r] == 1);
    return static_cast<double>(right) / static_cast<double>(labels.size());
  }

 private:
  explicit LogisticRegression(size_t width) : width_(width), w_(width + 1, 0.0) {}

  double loss(std::span<const float> features, std::span<const int> labels, double l2) const {
    double sum = 0;
    for (size_t r = 0; r < labels.size(); ++r) {
      double margin = (labels[r] == 1 ? 1 : -1) * score(&features[r * width_]);
      sum += margin > 0 ? std::log1p(std::exp(-margin)) : std::log1p(std::exp(margin)) - margin;
    }
    double norm = 0;
    for (size_t i = 0; i < width_; ++i) norm += w_[i] * w_[i];
    return sum / static_cast<double>(labels.size()) + l2 / 2 * norm;
  }

  /// Solves H step = gradient by Cholesky; the bias is the last unknown and is not regularised.
  std::vector<double> newton_step(std::span<const float> features, std::span<const int> labels, double l2) const {
    const size_t n = width_ + 1;
    std::vector<double> hessian(n * n, 0.0), gradient(n, 0.0), x(n);
    const double share = 1.0 / static_cast<double>(labels.size());
    for (size_t r = 0; r < labels.size(); ++r) {
      for (size_t i = 0; i < width_; ++i) x[i] = features[r * width_ + i];
      x[width_] = 1;
      double p = 1 / (1 + std::exp(-score(&features[r * width_])));
      double slope = (p - labels[r]) * share, curvature = p * (1 - p) * share;
      for (size_t i = 0; i < n; ++i) {
        gradient[i] += slope * x[i];
        double scaled = curvature * x[i];
        for (size_t j = 0; j <= i; ++j) hessian[i * n + j] += scaled * x[j];
      }
    }
    for (size_t i = 0; i < width_; ++i) {
      gradient[i] += l2 * w_[i];
      hessian[i * n + i] += l2;
    }
    hessian[n * n - 1] += 1e-12;  // all rows of one label leave the bias without curvature
    for (size_t i = 0; i < n; ++i) {
      for (size_t j = 0; j <= i; ++j) {
        double sum = hessian[i * n + j];
        for (size_t k = 0; k < j; ++k) sum -= hessian[i * n + k] * hessian[j * n + k];
        hessian[i * n + j] = i == j ? std::sqrt(sum) : sum / hessian[j * n + j];
      }
    }
    std::vector<double> step = gradient;
    for (size_t i = 0; i < n; ++i) {
      for (size_t k = 0; k < i; ++k) step[i] -= hessian[i * n + k] * step[k];
      step[i] /= hessian[i * n + i];
    }
    for (size_t i = n; i-- > 0;) {
      for (size_t k = i + 1; k < n; ++k) step[i] -= hessian[k * n + i] * step[k];
      step[i] /= hessian[i * n + i];
    }
    return step;
  }

  size_t width_;
  std::vector<double> w_;  // the weights, then the bias
};

}  // namespace example
