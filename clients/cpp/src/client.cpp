#include "mier/client.hpp"

#include <cstdio>
#include <utility>

#include "acting.hpp"
#include "connection.hpp"

namespace mier {
namespace {

// 128 random bits: the caller's name for one write.
std::string new_key() {
  std::random_device random;
  char text[33];
  std::snprintf(text, sizeof text, "%08x%08x%08x%08x", random(), random(), random(), random());
  return text;
}

// The reply of a unary call that may be repeated: `request` is the same each time, its idempotency key with it.
template <typename Reply, typename Request>
Reply call(const Connection& connection, Duration timeout,
           grpc::Status (pb::AdaptationService::Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
           const Request& request) {
  Tries tries(connection.options, timeout);
  while (true) {
    if (Clock::now() >= tries.deadline()) tries.too_late();
    grpc::ClientContext rpc;
    rpc.set_deadline(tries.deadline());
    connection.put_key(rpc);
    Reply reply;
    const grpc::Status status = (connection.stub.get()->*method)(&rpc, request, &reply);
    if (status.ok()) return reply;
    try {
      raise(status);
    } catch (const Transient& error) {
      tries.pause(error);
    }
  }
}

}  // namespace

using Stub = pb::AdaptationService::Stub;

Client::Client(const std::string& target, Options options)
    : connection_(std::make_shared<Connection>(target, std::move(options))) {}

pb::Session Client::create_session(const std::string& checkpoint, std::int64_t seed,
                                   const pb::EnvironmentSpec* expected_environment, Timeout timeout) {
  pb::CreateSessionRequest request;
  request.set_checkpoint(checkpoint);
  request.set_seed(seed);
  if (expected_environment != nullptr) *request.mutable_expected_environment() = *expected_environment;
  return create_session(std::move(request), timeout);
}

pb::Session Client::create_session(pb::CreateSessionRequest request, Timeout timeout) {
  if (request.idempotency_key().empty()) request.set_idempotency_key(new_key());
  const auto within = timeout.value_or(connection_->options.timeouts.call);
  return call<pb::CreateSessionResponse>(*connection_, within, &Stub::CreateSession, request).session();
}

pb::Session Client::get_session(const std::string& session_id, Timeout timeout) {
  pb::GetSessionRequest request;
  request.set_session_id(session_id);
  const auto within = timeout.value_or(connection_->options.timeouts.call);
  return call<pb::GetSessionResponse>(*connection_, within, &Stub::GetSession, request).session();
}

void Client::delete_session(const std::string& session_id, Timeout timeout) {
  pb::DeleteSessionRequest request;
  request.set_session_id(session_id);
  request.set_idempotency_key(new_key());
  const auto within = timeout.value_or(connection_->options.timeouts.call);
  call<pb::DeleteSessionResponse>(*connection_, within, &Stub::DeleteSession, request);
}

Acted Client::act(const std::string& session_id, std::span<const float> observation, const How& how, Timeout timeout) {
  const auto within = timeout.value_or(connection_->options.timeouts.act);
  return acted(call<pb::ActResponse>(*connection_, within, &Stub::Act, question(session_id, observation, how)));
}

ActStream Client::open_act_stream() { return ActStream(connection_); }

pb::SubmitTransitionsResponse Client::submit(const std::string& session_id, const Steps& steps, Timeout timeout) {
  auto request = steps.request(session_id);
  request.set_idempotency_key(new_key());
  const auto within = timeout.value_or(connection_->options.timeouts.call);
  return call<pb::SubmitTransitionsResponse>(*connection_, within, &Stub::SubmitTransitions, request);
}

pb::AdaptResponse Client::adapt(const std::string& session_id, Timeout timeout) {
  pb::AdaptRequest request;
  request.set_session_id(session_id);
  request.set_idempotency_key(new_key());
  const auto within = timeout.value_or(connection_->options.timeouts.adapt);
  return call<pb::AdaptResponse>(*connection_, within, &Stub::Adapt, request);
}

pb::Operation Client::finetune(const std::string& session_id, std::optional<std::int64_t> updates, Timeout timeout) {
  pb::FineTuneRequest request;
  request.set_session_id(session_id);
  if (updates) request.set_updates(*updates);
  request.set_idempotency_key(new_key());
  const auto within = timeout.value_or(connection_->options.timeouts.call);
  return call<pb::FineTuneResponse>(*connection_, within, &Stub::FineTune, request).operation();
}

pb::Operation Client::wait_operation(const std::string& operation_id, Timeout timeout) {
  pb::WatchOperationRequest request;
  request.set_operation_id(operation_id);
  Tries tries(connection_->options, timeout.value_or(connection_->options.timeouts.watch));
  while (true) {
    if (Clock::now() >= tries.deadline()) tries.too_late();
    grpc::ClientContext rpc;
    rpc.set_deadline(tries.deadline());
    connection_->put_key(rpc);
    const auto reader = connection_->stub->WatchOperation(&rpc, request);
    pb::WatchOperationResponse news;
    while (reader->Read(&news)) {
      tries.progressed();
      const auto& operation = news.operation();
      if (operation.state() == pb::OPERATION_STATE_SUCCEEDED) {
        rpc.TryCancel();
        return operation;
      }
      if (operation.state() == pb::OPERATION_STATE_FAILED)
        throw OperationFailed({"FINE_TUNE_FAILED", operation.error().message(), "", {}, {}});
      if (operation.state() == pb::OPERATION_STATE_CANCELLED)
        throw OperationFailed({"CANCELLED", "operation " + operation_id + " was cancelled", "", {}, {}});
    }
    const grpc::Status status = reader->Finish();
    try {
      if (status.ok()) throw Unavailable({"STREAM_ENDED", "the stream ended before a final state", "", {}, {}});
      raise(status);
    } catch (const Transient& error) {
      tries.pause(error);
    }
  }
}

}  // namespace mier
