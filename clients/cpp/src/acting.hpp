// An act's question and answer.
#pragma once

#include "mier/client.hpp"

namespace mier {

inline pb::ActRequest question(const std::string& session_id, std::span<const float> observation, const How& how) {
  pb::ActRequest request;
  request.set_session_id(session_id);
  *request.mutable_observation() = tensor(observation, {static_cast<std::int64_t>(observation.size())});
  request.set_deterministic(how.deterministic);
  if (how.episode) request.set_episode(*how.episode);
  if (how.step) request.set_step(*how.step);
  if (how.budget_ms) request.set_budget_ms(*how.budget_ms);
  return request;
}

inline Acted acted(const pb::ActResponse& reply) {
  Acted found;
  found.action = values(reply.action());
  found.policy_version = reply.policy_version();
  found.weights_hash = reply.weights_hash();
  if (reply.has_ood_percentile()) found.ood_percentile = reply.ood_percentile();
  if (reply.has_fallback()) found.fallback = reply.fallback();
  found.limited = reply.limited();
  return found;
}

}  // namespace mier
