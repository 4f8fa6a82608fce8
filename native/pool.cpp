#include "pool.h"

#include <climits>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nkat {
namespace {

// Turns of the waiting loops before they sleep: some tens of microseconds, a few times what usually passes
// between two jobs and far less than a time slice.
constexpr int kSpins = 2000;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Sleep while the word holds `value`; may also return without reason.
void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
#ifdef __linux__
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
#else
  word.wait(value);
#endif
}

void wake(std::atomic<uint32_t>& word) {
#ifdef __linux__
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
#else
  word.notify_all();
#endif
}

constexpr uint64_t kClosed = INT_MAX;

constexpr uint64_t ticket_of(uint32_t job) { return uint64_t(job) << 32; }

}  // namespace

Pool::Pool(int threads) {
  for (int thread = 1; thread < threads; ++thread) workers_.emplace_back(&Pool::serve, this, thread);
}

Pool::~Pool() {
  stop_.store(true);
  job_number_.fetch_add(1);
  wake(job_number_);
  for (std::thread& worker : workers_) worker.join();
}

void Pool::run(int chunks, Call call, const void* job) {
  const uint32_t number = job_number_.load(std::memory_order_relaxed) + 1;
  // Closed while the description changes: who has read any of it cannot take a chunk with the old ticket.
  ticket_.store(ticket_of(number) | kClosed, std::memory_order_relaxed);
  chunks_.store(chunks, std::memory_order_release);
  call_.store(call, std::memory_order_release);
  job_.store(job, std::memory_order_release);
  open_.store(chunks, std::memory_order_release);
  ticket_.store(ticket_of(number), std::memory_order_release);
  // Sequentially consistent on both sides: either the worker sees the number, or it is seen sleeping.
  job_number_.store(number);
  if (sleepers_.load() > 0) wake(job_number_);

  while (take_part(0)) {}
  for (int spin = 0; open_.load(std::memory_order_acquire) > 0; ++spin) {
    if (spin < kSpins) {
      pause();
      continue;
    }
    caller_sleeps_.store(1);
    if (open_.load() > 0) sleep_while(caller_sleeps_, 1);
    caller_sleeps_.store(0);
  }
}

// Take one chunk of the present job and do it; false when there is none left.
bool Pool::take_part(int thread) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  for (;;) {
    const int chunk = int(uint32_t(ticket));
    if (chunk >= chunks_.load(std::memory_order_acquire)) {
      // Perhaps the count of the next job, of which the ticket read before knows nothing.
      const uint64_t now = ticket_.load(std::memory_order_acquire);
      if (now == ticket) return false;
      ticket = now;
      continue;
    }
    const Call call = call_.load(std::memory_order_acquire);
    const void* job = job_.load(std::memory_order_acquire);
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    call(job, chunk, thread);
    if (open_.fetch_sub(1) == 1 && caller_sleeps_.exchange(0) == 1) wake(caller_sleeps_);
    return true;
  }
}

void Pool::wait_for_job(uint32_t seen) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (job_number_.load(std::memory_order_acquire) != seen) return;
    pause();
  }
  sleepers_.fetch_add(1);
  while (job_number_.load() == seen) sleep_while(job_number_, seen);
  sleepers_.fetch_sub(1);
}

void Pool::serve(int thread) {
  uint32_t seen = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    wait_for_job(seen);
    seen = job_number_.load(std::memory_order_acquire);
    while (take_part(thread)) {}
  }
}

}  // namespace nkat
