// One bidirectional stream, driven by a completion queue in the caller's own thread: so an act can end by its deadline,
// which it cannot on gRPC's blocking streams.
//
// Invariants
// - One thing at a time is under way, and between two acts nothing is.
// - A stream that broke, or on which an act was late, is let go of: no answer is ever taken for that of a later question.
#include <utility>

#include "acting.hpp"
#include "connection.hpp"

namespace mier {

class ActStream::Stream {
 public:
  explicit Stream(const Connection& connection) {
    connection.put_key(rpc_);
    call_ = connection.stub->PrepareAsyncActStream(&rpc_, &queue_);
    call_->StartCall(this);
  }

  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  ~Stream() {
    rpc_.TryCancel();
    queue_.Shutdown();
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {  // what is still under way writes to members
    }
  }

  // The outcome; nothing if it is late. Throws why the stream ended, if it did. After either it is of no use.
  std::optional<pb::ActOutcome> ask(const pb::ActRequest& question, Clock::time_point deadline) {
    if (!started_ && !done(deadline)) return {};
    started_ = true;
    pb::ActStreamRequest request;
    *request.mutable_request() = question;
    call_->Write(request, this);
    if (!done(deadline)) return {};
    call_->Read(&reply_, this);
    if (!done(deadline)) return {};
    return std::move(*reply_.mutable_outcome());
  }

 private:
  // Whether what is under way was done in time.
  bool done(Clock::time_point deadline) {
    bool ok = false;
    if (!next(ok, deadline)) return false;
    if (ok) return true;
    call_->Finish(&status_, this);
    if (!next(ok, deadline)) return false;
    if (status_.ok()) throw Unavailable({"STREAM_ENDED", "the service ended the stream", "", {}, {}});
    raise(status_);
  }

  bool next(bool& ok, Clock::time_point deadline) {
    void* tag = nullptr;
    return queue_.AsyncNext(&tag, &ok, deadline) == grpc::CompletionQueue::GOT_EVENT;
  }

  grpc::CompletionQueue queue_;
  grpc::ClientContext rpc_;
  std::unique_ptr<grpc::ClientAsyncReaderWriter<pb::ActStreamRequest, pb::ActStreamResponse>> call_;
  pb::ActStreamResponse reply_;
  grpc::Status status_;
  bool started_ = false;
};

ActStream::ActStream(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}
ActStream::ActStream(ActStream&&) noexcept = default;
ActStream& ActStream::operator=(ActStream&&) noexcept = default;
ActStream::~ActStream() = default;

Acted ActStream::act(const std::string& session_id, std::span<const float> observation, const How& how, Timeout timeout) {
  const auto asked = question(session_id, observation, how);
  Tries tries(connection_->options, timeout.value_or(connection_->options.timeouts.act));
  while (true) {
    try {
      if (Clock::now() >= tries.deadline()) tries.too_late();
      std::optional<pb::ActOutcome> outcome;
      try {
        if (!stream_) stream_ = std::make_unique<Stream>(*connection_);
        outcome = stream_->ask(asked, tries.deadline());
      } catch (const Error&) {
        stream_.reset();
        throw;
      }
      if (!outcome) {
        stream_.reset();
        tries.too_late();
      }
      if (outcome->has_error()) raise(outcome->error());  // of this question alone; the stream goes on
      return acted(outcome->response());
    } catch (const Transient& error) {
      tries.pause(error);
    }
  }
}

}  // namespace mier
