#include "mier/steps.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "mier/error.hpp"

namespace mier {

static_assert(std::endian::native == std::endian::little, "the contract's arrays are little endian");
static_assert(sizeof(float) == 4);

pb::Tensor tensor(std::span<const float> values, std::initializer_list<std::int64_t> shape) {
  std::int64_t size = 1;
  for (const auto length : shape) size *= length;
  if (size != static_cast<std::int64_t>(values.size()))
    throw std::invalid_argument("expected " + std::to_string(size) + " values, got " + std::to_string(values.size()));
  for (const float value : values)
    if (!std::isfinite(value)) throw std::invalid_argument("expected finite values, got NaN or infinity");
  pb::Tensor message;
  message.mutable_shape()->Add(shape.begin(), shape.end());
  message.set_data(values.data(), values.size_bytes());
  return message;
}

std::vector<float> values(const pb::Tensor& tensor) {
  std::vector<float> found(tensor.data().size() / sizeof(float));
  std::int64_t size = 1;
  for (const auto length : tensor.shape()) size *= length;
  if (found.size() * sizeof(float) != tensor.data().size() || size != static_cast<std::int64_t>(found.size()))
    throw ServerFault({"UNEXPECTED_REPLY", "expected an array whose values fit its shape", "", {}, std::nullopt});
  std::memcpy(found.data(), tensor.data().data(), tensor.data().size());
  return found;
}

void Steps::add(std::span<const float> observation, std::span<const float> action, float reward,
                std::span<const float> next_observation, std::int64_t policy_version, bool terminated, bool truncated) {
  if (count() == 0) {
    observation_dim_ = observation.size();
    action_dim_ = action.size();
  }
  if (observation.size() != observation_dim_ || next_observation.size() != observation_dim_ || action.size() != action_dim_)
    throw std::invalid_argument("expected " + std::to_string(observation_dim_) + " entries of an observation and " +
                                std::to_string(action_dim_) + " of an action, as in the step before");
  observation_.insert(observation_.end(), observation.begin(), observation.end());
  action_.insert(action_.end(), action.begin(), action.end());
  reward_.push_back(reward);
  next_observation_.insert(next_observation_.end(), next_observation.begin(), next_observation.end());
  policy_version_.push_back(policy_version);
  terminated_.push_back(terminated);
  truncated_.push_back(truncated);
}

pb::SubmitTransitionsRequest Steps::request(const std::string& session_id) const {
  const auto n = count();
  const auto observation_dim = static_cast<std::int64_t>(observation_dim_);
  pb::SubmitTransitionsRequest request;
  request.set_session_id(session_id);
  request.set_episode(episode_);
  request.set_first_step(first_step_);
  *request.mutable_observation() = tensor(observation_, {n, observation_dim});
  *request.mutable_action() = tensor(action_, {n, static_cast<std::int64_t>(action_dim_)});
  *request.mutable_reward() = tensor(reward_, {n});
  *request.mutable_next_observation() = tensor(next_observation_, {n, observation_dim});
  request.mutable_policy_version()->Add(policy_version_.begin(), policy_version_.end());
  request.mutable_terminated()->Add(terminated_.begin(), terminated_.end());
  request.mutable_truncated()->Add(truncated_.begin(), truncated_.end());
  return request;
}

}  // namespace mier
