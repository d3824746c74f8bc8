// What tests/cpp drives: each line on standard input is one call, each line on standard output what became of it.
//
//   create CHECKPOINT | get SESSION | act SESSION TIMEOUT_MS X... | stream SESSION TIMEOUT_MS X... | finetune SESSION UPDATES
//   submit SESSION COUNT | adapt SESSION | delete SESSION
#include <iostream>
#include <sstream>

#include "mier/client.hpp"

namespace {

std::string kind(const mier::Error& error) {
  if (dynamic_cast<const mier::InvalidRequest*>(&error)) return "InvalidRequest";
  if (dynamic_cast<const mier::AccessDenied*>(&error)) return "AccessDenied";
  if (dynamic_cast<const mier::NotFound*>(&error)) return "NotFound";
  if (dynamic_cast<const mier::Conflict*>(&error)) return "Conflict";
  if (dynamic_cast<const mier::QuotaExceeded*>(&error)) return "QuotaExceeded";
  if (dynamic_cast<const mier::DeadlineExceeded*>(&error)) return "DeadlineExceeded";
  if (dynamic_cast<const mier::ServerFault*>(&error)) return "ServerFault";
  if (dynamic_cast<const mier::OperationFailed*>(&error)) return "OperationFailed";
  if (dynamic_cast<const mier::Overloaded*>(&error)) return "Overloaded";
  if (dynamic_cast<const mier::Unavailable*>(&error)) return "Unavailable";
  return "Error";
}

void print(const mier::Acted& acted) {
  std::cout << "acted " << acted.policy_version;
  for (const float value : acted.action) std::cout << ' ' << value;
  std::cout << std::endl;
}

void handle(mier::Client& client, mier::ActStream& stream, const std::string& line) {
  std::istringstream words(line);
  std::string command, about;
  words >> command >> about;
  if (command == "create") {
    std::cout << "session " << client.create_session(about).id() << std::endl;
  } else if (command == "get") {
    std::cout << "transitions " << client.get_session(about).transitions_count() << std::endl;
  } else if (command == "act" || command == "stream") {
    int timeout_ms = 0;
    words >> timeout_ms;
    std::vector<float> observation;
    for (float value = 0; words >> value;) observation.push_back(value);
    const auto within = mier::Duration(timeout_ms);
    print(command == "act" ? client.act(about, observation, {}, within) : stream.act(about, observation, {}, within));
  } else if (command == "submit") {
    std::int64_t count = 0;
    words >> count;
    mier::Steps steps(0);
    const auto& environment = client.get_session(about).environment();
    const auto wide = static_cast<std::size_t>(environment.observation_dim());
    for (std::int64_t i = 0; i < count; ++i) {
      const std::vector<float> before(wide, 0.01F * static_cast<float>(i));
      const std::vector<float> after(wide, 0.01F * static_cast<float>(i + 1));
      const std::vector<float> action(static_cast<std::size_t>(environment.action_dim()), 0.5F);
      steps.add(before, action, 1.0F, after, 1, false, i + 1 == count);
    }
    std::cout << "stored " << client.submit(about, steps).stored() << std::endl;
  } else if (command == "adapt") {
    std::cout << "context " << client.adapt(about).model_context().number() << std::endl;
  } else if (command == "finetune") {
    std::int64_t updates = 0;
    words >> updates;
    const auto operation = client.finetune(about, updates);
    std::cout << "version " << client.wait_operation(operation.id()).result_version() << std::endl;
  } else if (command == "delete") {
    client.delete_session(about);
    std::cout << "deleted" << std::endl;
  } else {
    std::cout << "unknown " << command << std::endl;
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) return 2;
  mier::Client client(arguments[1]);
  auto stream = client.open_act_stream();
  for (std::string line; std::getline(std::cin, line);) {
    try {
      handle(client, stream, line);
    } catch (const mier::Error& error) {
      const auto& problem = error.problem();
      std::cout << kind(error) << ' ' << problem.reason << " id:" << problem.request_id;
      for (const auto& violation : problem.violations) std::cout << " field:" << violation.field;
      std::cout << " | " << problem.detail << std::endl;
    }
  }
}
