#include "packer.h"

namespace nkat {

void Packer::add(const Weight& weight, const uint8_t* file, uint8_t* memory) {
  const std::lock_guard<std::mutex> lock(mutex_);
  jobs_.push_back({&weight, file, memory});
  if (working_) return;
  if (thread_.joinable()) thread_.join();  // it has found nothing more to do
  working_ = true;
  thread_ = std::thread(&Packer::work, this);
}

void Packer::settle() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!thread_.joinable()) return;
  std::thread last = std::move(thread_);
  lock.unlock();
  last.join();
}

void Packer::work() {
  for (;;) {
    Job job;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (jobs_.empty()) {
        working_ = false;
        return;
      }
      job = jobs_.front();
      jobs_.pop_front();
    }
    pack_panels(*job.weight, job.file, job.memory);
  }
}

}  // namespace nkat
