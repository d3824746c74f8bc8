// A robot's side of the adaptation service, over gRPC, blocking.
//
//   mier::Client client("127.0.0.1:50051");
//   const auto session = client.create_session("cheetah-vel-ood");
//   mier::ActStream acting = client.open_act_stream();
//   const mier::Acted acted = acting.act(session.id(), observation);
//
// - Every call has a deadline, retries included: `Timeouts`, or the one that the call is given.
// - Only what cannot harm is tried again: reads and acts; submitted steps, known by episode and number; and every other
//   write under one idempotency key for all its attempts.
// - What is refused is a typed exception (mier/error.hpp), with the service's own words.
// - A Client serves many threads. An ActStream is for one thread, and may outlive its Client.
#pragma once

#include <grpcpp/security/credentials.h>

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "mier/error.hpp"
#include "mier/steps.hpp"

namespace mier {

using Duration = std::chrono::milliseconds;
using Timeout = std::optional<Duration>;  // unset: the default of the call's kind

// Default deadlines, by kind of call.
struct Timeouts {
  Duration act{2'000};
  Duration call{15'000};
  Duration adapt{60'000};
  Duration watch{3'600'000};  // of waiting for one operation
};

struct Options {
  std::string api_key;                                    // what `mierctl keys create` printed; empty: none
  std::shared_ptr<grpc::ChannelCredentials> credentials;  // null: plain text
  Timeouts timeouts;
  int attempts = 6;  // of a call at most, the first included; 1 switches retries off
};

// How to act: exploring (deterministic = false) needs episode and step.
struct How {
  bool deterministic = true;
  std::optional<std::int64_t> episode, step;
  std::optional<double> budget_ms;  // beyond which the session's fallback answers
};

// An action, and what chose it.
struct Acted {
  std::vector<float> action;        // [action_dim], environment units, within the bounds
  std::int64_t policy_version = 0;  // to be returned with the transition; 0: none chose it, an action is held
  std::string weights_hash;
  std::optional<double> ood_percentile;
  std::optional<pb::Fallback> fallback;  // what answered in the place of the active version, and why
  bool limited = false;                  // the session's limits changed the action
};

class Connection;

// A control loop's acting: one stream, opened anew within the act's deadline where it breaks.
class ActStream {
 public:
  ActStream(ActStream&&) noexcept;
  ActStream& operator=(ActStream&&) noexcept;
  ~ActStream();  // ends the stream

  // The action for an observation [observation_dim]. An act that is late leaves nothing behind that could be taken for
  // the answer to the next one.
  Acted act(const std::string& session_id, std::span<const float> observation, const How& how = {}, Timeout timeout = {});

 private:
  friend class Client;
  class Stream;
  explicit ActStream(std::shared_ptr<Connection> connection);
  std::shared_ptr<Connection> connection_;
  std::unique_ptr<Stream> stream_;
};

class Client {
 public:
  // `target` is host:port. No call is made yet: a service that cannot be reached is told by the first one.
  explicit Client(const std::string& target, Options options = {});

  // Conflict: `expected_environment` does not fit the checkpoint's, difference by difference.
  pb::Session create_session(const std::string& checkpoint, std::int64_t seed = 0,
                             const pb::EnvironmentSpec* expected_environment = nullptr, Timeout timeout = {});
  // The same with everything that can be declared: fallback, limits, age of observations.
  pb::Session create_session(pb::CreateSessionRequest request, Timeout timeout = {});
  pb::Session get_session(const std::string& session_id, Timeout timeout = {});
  void delete_session(const std::string& session_id, Timeout timeout = {});

  Acted act(const std::string& session_id, std::span<const float> observation, const How& how = {}, Timeout timeout = {});
  ActStream open_act_stream();

  // Returns once the steps are durable.
  pb::SubmitTransitionsResponse submit(const std::string& session_id, const Steps& steps, Timeout timeout = {});
  // Infers the context from all of the session's transitions. Conflict: too few, or the session is paused.
  pb::AdaptResponse adapt(const std::string& session_id, Timeout timeout = {});
  // Starts a fine-tune in the background; unset updates: as the checkpoint says.
  pb::Operation finetune(const std::string& session_id, std::optional<std::int64_t> updates = {}, Timeout timeout = {});
  // The operation once it has succeeded; OperationFailed if it ended otherwise. A watch that breaks is taken up again.
  pb::Operation wait_operation(const std::string& operation_id, Timeout timeout = {});

 private:
  std::shared_ptr<Connection> connection_;
};

}  // namespace mier
