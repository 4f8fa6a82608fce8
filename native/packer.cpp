#include "packer.h"

#include <algorithm>
#include <system_error>
#include <vector>

namespace nkat {

namespace {

// Large enough that taking it costs nothing, small enough that nobody waits long for the last one.
constexpr size_t kJobBytes = size_t(1) << 20;

}  // namespace

void Packer::add(const Weight& weight, const uint8_t* file, uint8_t* memory) {
  const int panels = int(weight.panels()), step = int(std::max<size_t>(1, kJobBytes / weight.panel_bytes));
  const std::lock_guard<std::mutex> lock(mutex_);
  for (int first = 0; first < panels; first += step)
    jobs_.push_back({&weight, file, memory, first, std::min(first + step, panels)});
  if (working_) return;
  if (thread_.joinable()) thread_.join();  // it has found nothing more to do
  working_ = true;
  thread_ = std::thread(&Packer::work_on, this);
}

void Packer::settle() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!thread_.joinable()) return;
  std::thread own = std::move(thread_);
  const int useful = std::min(threads_ - 2, int(jobs_.size()));
  lock.unlock();
  std::vector<std::thread> others;
  try {
    for (int i = 0; i < useful; ++i) others.emplace_back(&Packer::work, this);
  } catch (const std::system_error&) {
    // then those that there are do it
  }
  work();
  for (std::thread& other : others) other.join();
  own.join();
}

void Packer::work() {
  for (;;) {
    Job job;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (jobs_.empty()) return;
      job = jobs_.front();
      jobs_.pop_front();
    }
    pack_panels(*job.weight, job.file, job.memory, job.first, job.last);
  }
}

void Packer::work_on() {
  for (;;) {
    work();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!jobs_.empty()) continue;
    working_ = false;
    return;
  }
}

}  // namespace nkat
