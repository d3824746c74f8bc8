// What a robot lived through, as it is submitted; and arrays of the contract.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "mier_proto/v1/adaptation.pb.h"

namespace mier {

namespace pb = mier_proto::v1;

// The message of an array: float32 in C order. std::invalid_argument if the shape does not fit, or a value is not finite.
pb::Tensor tensor(std::span<const float> values, std::initializer_list<std::int64_t> shape);
// Its values. ServerFault if they do not fit their shape.
std::vector<float> values(const pb::Tensor& tensor);

// Consecutive steps of one episode.
class Steps {
 public:
  // `first_step` is the number of the first one within the episode.
  explicit Steps(std::int64_t episode, std::int64_t first_step = 0) : episode_(episode), first_step_(first_step) {}

  // Takes a step. `observation`, `next_observation` [observation_dim]; `action` [action_dim], as it was applied;
  // `policy_version` that chose it, 0: none did. std::invalid_argument if the sizes are not those of the step before.
  void add(std::span<const float> observation, std::span<const float> action, float reward,
           std::span<const float> next_observation, std::int64_t policy_version, bool terminated = false,
           bool truncated = false);

  std::int64_t count() const noexcept { return static_cast<std::int64_t>(reward_.size()); }
  pb::SubmitTransitionsRequest request(const std::string& session_id) const;

 private:
  std::int64_t episode_, first_step_;
  std::size_t observation_dim_ = 0, action_dim_ = 0;
  std::vector<float> observation_, action_, reward_, next_observation_;
  std::vector<bool> terminated_, truncated_;
  std::vector<std::int64_t> policy_version_;
};

}  // namespace mier
