#include "mier/error.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace mier {
namespace {

constexpr std::array<std::string_view, 4> kQuotas{"TOO_MANY_CALLS", "TOO_MANY_SESSIONS", "TOO_MANY_FINE_TUNES",
                                                  "TOO_MUCH_STORED"};

std::string words(const Problem& problem) {
  std::string text = problem.reason + ": " + problem.detail;
  return problem.request_id.empty() ? text : text + " (request " + problem.request_id + ")";
}

Problem problem_of(const google::rpc::Status& status) {
  Problem problem{"UNKNOWN", status.message(), "", {}, std::nullopt};
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad;
  google::rpc::RetryInfo retry;
  google::rpc::RequestInfo request;
  for (const auto& detail : status.details()) {
    if (detail.UnpackTo(&info)) {
      problem.reason = info.reason();
      if (const auto id = info.metadata().find("request_id"); id != info.metadata().end()) problem.request_id = id->second;
    } else if (detail.UnpackTo(&bad)) {
      for (const auto& violation : bad.field_violations())
        problem.violations.push_back({violation.field(), violation.description()});
    } else if (detail.UnpackTo(&retry)) {
      const auto& delay = retry.retry_delay();
      problem.retry_after = std::chrono::milliseconds(delay.seconds() * 1000 + delay.nanos() / 1'000'000);
    } else if (detail.UnpackTo(&request)) {
      problem.request_id = request.request_id();
    }
  }
  return problem;
}

[[noreturn]] void raise(grpc::StatusCode code, Problem problem) {
  // gRPC has one code for what is too large, what is too much for a key, and overload; only the last passes.
  if (problem.reason == "BODY_TOO_LARGE") throw InvalidRequest(std::move(problem));
  if (std::find(kQuotas.begin(), kQuotas.end(), problem.reason) != kQuotas.end()) throw QuotaExceeded(std::move(problem));
  switch (code) {
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::OUT_OF_RANGE:
      throw InvalidRequest(std::move(problem));
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      throw AccessDenied(std::move(problem));
    case grpc::StatusCode::NOT_FOUND:
      throw NotFound(std::move(problem));
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::ABORTED:
      throw Conflict(std::move(problem));
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      throw Overloaded(std::move(problem));
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::CANCELLED:
      throw Unavailable(std::move(problem));
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      throw DeadlineExceeded(std::move(problem));
    default:
      throw ServerFault(std::move(problem));
  }
}

}  // namespace

Error::Error(Problem problem) : std::runtime_error(words(problem)), problem_(std::move(problem)) {}

void raise(const google::rpc::Status& status) { raise(static_cast<grpc::StatusCode>(status.code()), problem_of(status)); }

void raise(const grpc::Status& status) {
  google::rpc::Status details;
  if (!status.error_details().empty() && details.ParseFromString(status.error_details()) &&
      details.code() == static_cast<int>(status.error_code())) {
    raise(details);
  }
  // Not the service's words but the channel's.
  std::string reason = "GRPC_" + std::to_string(static_cast<int>(status.error_code()));
  if (status.error_code() == grpc::StatusCode::UNAVAILABLE) reason = "UNREACHABLE";
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) reason = "DEADLINE_EXCEEDED";
  if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
      status.error_message().find("larger than max") != std::string::npos) {
    reason = "BODY_TOO_LARGE";
  }
  raise(status.error_code(), {reason, status.error_message(), "", {}, std::nullopt});
}

}  // namespace mier
