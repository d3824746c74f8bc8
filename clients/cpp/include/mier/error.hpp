// What the service refuses, and what is wrong on the way to it, as typed exceptions.
#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace google::rpc {
class Status;
}

namespace mier {

// A field that is at fault, and what was expected of it.
struct Violation {
  std::string field;
  std::string detail;
};

// Everything that is known of a failure: the service's own words, if it was the service that spoke.
struct Problem {
  std::string reason;  // stable, such as SESSION_NOT_FOUND
  std::string detail;  // what was expected, what came, what to do
  std::string request_id;
  std::vector<Violation> violations;
  std::optional<std::chrono::milliseconds> retry_after;
};

// Any failure of a call. `what()` is "REASON: detail (request ID)".
class Error : public std::runtime_error {
 public:
  explicit Error(Problem problem);
  const Problem& problem() const noexcept { return problem_; }

 private:
  Problem problem_;
};

// The request itself is at fault: sent again it fails again.
struct InvalidRequest : Error { using Error::Error; };
// No key, no good key, or one whose scope or session does not allow the call.
struct AccessDenied : Error { using Error::Error; };
// No such session, version, operation or checkpoint.
struct NotFound : Error { using Error::Error; };
// The state does not allow it: paused, pinned, too few transitions, another environment.
struct Conflict : Error { using Error::Error; };
// A bound of the caller's own key.
struct QuotaExceeded : Error { using Error::Error; };
// No answer in time.
struct DeadlineExceeded : Error { using Error::Error; };
// A fault of the service, or of what answers in its place.
struct ServerFault : Error { using Error::Error; };
// A fine-tune that was waited for failed, or was cancelled.
struct OperationFailed : Error { using Error::Error; };
// What may pass: the client has tried again by itself, where it had time and the call is safe to repeat.
struct Transient : Error { using Error::Error; };
// The service has too much to do.
struct Overloaded : Transient { using Transient::Transient; };
// The service cannot be reached, is stopping, or its storage is gone.
struct Unavailable : Transient { using Transient::Transient; };

// Throws what the status of a call stands for; a call's own status is not OK.
[[noreturn]] void raise(const grpc::Status& status);
// The same of one entry of a stream.
[[noreturn]] void raise(const google::rpc::Status& status);

}  // namespace mier
