// One channel, and how calls are made on it: by a deadline, tried again where that is safe.
#pragma once

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <random>
#include <thread>

#include "mier/client.hpp"
#include "mier_proto/v1/adaptation.grpc.pb.h"

namespace mier {

using Clock = std::chrono::system_clock;  // gRPC's deadlines are its points

class Connection {
 public:
  Connection(const std::string& target, Options options) : options(std::move(options)) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // ours are under one deadline and one idempotency key
    arguments.SetMaxReceiveMessageSize(64 * 1024 * 1024);
    // A service that restarts is found again in fractions of a second, not after gRPC's default minute.
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
    auto credentials = this->options.credentials ? this->options.credentials : grpc::InsecureChannelCredentials();
    stub = pb::AdaptationService::NewStub(grpc::CreateCustomChannel(target, credentials, arguments));
  }

  void put_key(grpc::ClientContext& rpc) const {
    if (!options.api_key.empty()) rpc.AddMetadata("authorization", "Bearer " + options.api_key);
  }

  const Options options;
  std::unique_ptr<pb::AdaptationService::Stub> stub;
};

// The attempts of one call.
class Tries {
 public:
  Tries(const Options& options, Duration timeout)
      : attempts_(options.attempts), timeout_(timeout), deadline_(Clock::now() + timeout) {}

  Clock::time_point deadline() const { return deadline_; }

  // A stream brought something: its failures are counted anew.
  void progressed() { failures_ = 0; }

  [[noreturn]] void too_late() const {
    throw DeadlineExceeded({"DEADLINE_EXCEEDED", "no answer within " + std::to_string(timeout_.count()) + " ms", "", {}, {}});
  }

  // Waits before the next attempt, with full jitter or as the service says; throws the error if there is to be none.
  // To be called from the handler that caught it.
  void pause(const Transient& error) {
    ++failures_;
    const auto longest = std::min<std::int64_t>(2'000, 50LL << std::min(failures_ - 1, 10));
    thread_local std::mt19937_64 random{std::random_device{}()};
    const Duration drawn{std::uniform_int_distribution<std::int64_t>(0, longest)(random)};
    const Duration wait = error.problem().retry_after.value_or(drawn);
    if (failures_ >= attempts_ || Clock::now() + wait >= deadline_) throw;
    std::this_thread::sleep_for(wait);
  }

 private:
  int attempts_, failures_ = 0;
  Duration timeout_;
  Clock::time_point deadline_;
};

}  // namespace mier
