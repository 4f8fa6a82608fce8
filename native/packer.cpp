#include "packer.h"

#include <algorithm>
#include <bit>
#include <exception>
#include <system_error>

#include "guard.h"

namespace nkat {

namespace {

// Large enough that taking it costs nothing, small enough that nobody waits long for the last one.
constexpr size_t kJobBytes = size_t(1) << 20;

}  // namespace

void Packer::add(Weight& weight) {
  weight.part_bits = std::bit_width(std::max<size_t>(1, kJobBytes / weight.panel_bytes)) - 1;
  weight.packed = std::make_unique<std::atomic<bool>[]>(weight.parts());
  const std::lock_guard<std::mutex> lock(mutex_);
  for (int part = 0; part < weight.parts(); ++part) jobs_.push_back({&weight, part});
  if (working_) return;
  if (thread_.joinable()) thread_.join();  // it has found nothing more to do
  try {
    thread_ = std::thread(&Packer::work_on, this);
    working_ = true;
  } catch (const std::system_error&) {
    // No thread to be had: whoever settles does it.
  }
}

Packer::~Packer() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.clear();
  }
  if (thread_.joinable()) thread_.join();
}

void Packer::drop(const Weight& weight) {
  std::unique_lock<std::mutex> lock(mutex_);
  std::erase_if(jobs_, [&](const Job& job) { return job.weight == &weight; });
  done_.wait(lock, [&] { return std::find(in_hand_.begin(), in_hand_.end(), &weight) == in_hand_.end(); });
}

void Packer::settle() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!thread_.joinable() && jobs_.empty()) return;
  std::thread own = std::move(thread_);
  const int useful = std::min(threads_ - 2, int(jobs_.size()));
  lock.unlock();
  std::vector<std::thread> others;
  try {
    others.reserve(size_t(std::max(useful, 0)));
    for (int i = 0; i < useful; ++i) others.emplace_back(&Packer::work, this, false);
  } catch (const std::exception&) {
    // then those that there are do it
  }
  work();
  for (std::thread& other : others) other.join();
  if (own.joinable()) own.join();
}

bool Packer::settled() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return jobs_.empty() && !working_;
}

void Packer::work(bool own) {
  for (;;) {
    Job job;
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (own) rest(lock);
      if (jobs_.empty()) return;
      job = jobs_.front();
      jobs_.pop_front();
      in_hand_.push_back(job.weight);
    }
    const Clock::time_point start = Clock::now();
    Weight& weight = *job.weight;
    const int first = job.part << weight.part_bits, next = (job.part + 1) << weight.part_bits;
    pack_panels(weight, first, std::min(next, weight.panels()), weight.data + first * weight.panel_bytes);
    weight.packed[job.part].store(true, std::memory_order_release);
    if (own) worked_ += Clock::now() - start;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      in_hand_.erase(std::find(in_hand_.begin(), in_hand_.end(), &weight));
      // All has been read: what happens to the file from now on harms nobody.
      if (jobs_.empty() && in_hand_.empty()) look_at_mappings();
    }
    done_.notify_all();
  }
}

void Packer::rest(std::unique_lock<std::mutex>& lock) {
  if (!computing_) return;
  const Clock::time_point start = Clock::now();
  computed_.wait_for(lock, worked_, [&] { return !computing_; });
  worked_ -= Clock::now() - start;
}

void Packer::set_computing(bool computing) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    computing_ = computing;
  }
  if (!computing) computed_.notify_one();
}

void Packer::work_on() {
  for (;;) {
    work(true);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!jobs_.empty()) continue;
    working_ = false;
    return;
  }
}

}  // namespace nkat
