// A robot's round: act at control rate, report what happened, adapt.
//
//   mier-serve                                                    # in another terminal
//   build/cpp/control_loop 127.0.0.1:50051 cheetah-vel-ood        # [episodes] [pace: 1 real time, 0 as fast as it goes]
//
// Every action has the control period as its deadline. Where none comes in time the robot holds its last one, and says so in
// the record: version 0 is no version of the session. (What to do without an action is the robot's decision.)
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <thread>

#include "mier/client.hpp"

namespace {

// Stands in for yours: actions push its state about, and the first entry of it is its reward.
class Robot {
 public:
  explicit Robot(const mier::pb::EnvironmentSpec& environment)
      : dt_s_(static_cast<float>(environment.dt_s())),
        state_(static_cast<std::size_t>(environment.observation_dim()), 0.1F) {}

  const std::vector<float>& sense() const { return state_; }

  float apply(const std::vector<float>& action) {
    for (std::size_t i = 0; i < state_.size(); ++i) state_[i] += dt_s_ * (action[i % action.size()] - 0.5F * state_[i]);
    return state_[0];
  }

 private:
  float dt_s_;
  std::vector<float> state_;
};

int run(const std::string& target, const std::string& checkpoint, int episodes, double pace) {
  mier::Options options;
  if (const char* key = std::getenv("MIER_API_KEY")) options.api_key = key;
  mier::Client client(target, options);
  const auto session = client.create_session(checkpoint);
  const auto& environment = session.environment();
  const std::chrono::duration<double> period(pace * environment.dt_s());
  const auto deadline = mier::Duration(std::max(50, static_cast<int>(1000 * environment.dt_s())));

  auto acting = client.open_act_stream();
  std::int64_t held = 0, stored = 0;
  for (int episode = 0; episode < episodes; ++episode) {
    Robot robot(environment);
    mier::Steps steps(episode);
    std::vector<float> action(static_cast<std::size_t>(environment.action_dim()), 0.0F);
    auto tick = std::chrono::steady_clock::now();
    for (int step = 0; step < environment.horizon_steps(); ++step) {
      const std::vector<float> observation = robot.sense();
      std::int64_t version = 0;
      try {
        const mier::How how{.deterministic = false, .episode = episode, .step = step, .budget_ms = {}};
        const auto acted = acting.act(session.id(), observation, how, deadline);
        action = acted.action;
        version = acted.policy_version;
      } catch (const mier::DeadlineExceeded&) {
        ++held;
      } catch (const mier::Transient&) {
        ++held;
      }
      const float reward = robot.apply(action);
      steps.add(observation, action, reward, robot.sense(), version, false, step + 1 == environment.horizon_steps());
      tick += std::chrono::duration_cast<std::chrono::steady_clock::duration>(period);
      std::this_thread::sleep_until(tick);
    }
    stored += client.submit(session.id(), steps).stored();
  }
  const auto adapted = client.adapt(session.id());
  std::printf("session %s: %lld steps stored, %lld held; version %lld acts under context %lld\n", session.id().c_str(),
              static_cast<long long>(stored), static_cast<long long>(held),
              static_cast<long long>(adapted.active_version().number()),
              static_cast<long long>(adapted.model_context().number()));
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: %s HOST:PORT CHECKPOINT [EPISODES] [PACE]\n", arguments[0]);
    return 2;
  }
  try {
    return run(arguments[1], arguments[2], count > 3 ? std::atoi(arguments[3]) : 2,
               count > 4 ? std::atof(arguments[4]) : 1.0);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
