#include "pool.h"

#include <climits>
#include <utility>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nkat {
namespace {

// Turns of the waiting loops before they sleep: about a tenth of a millisecond, enough for what the caller does
// between two calls of a step and far less than a time slice.
constexpr int kSpins = 5000;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Bytes that a waiting worker fetches ahead: a part of a second level cache.
constexpr size_t kFetched = size_t(128) << 10;

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

constexpr uint64_t state_of(uint32_t job, int first, int last) {
  return uint64_t(job) << 32 | uint64_t(first) << 16 | uint64_t(last);
}

}  // namespace

Pool::Pool(int threads) : ranges_(threads) {
  try {
    workers_.reserve(threads);
    for (int thread = 1; thread < threads; ++thread) workers_.emplace_back(&Pool::serve, this, thread);
  } catch (...) {
    stop();
    throw;
  }
}

Pool::~Pool() { stop(); }

void Pool::stop() {
  stop_.store(true);
  job_number_.fetch_add(1);
  wake(job_number_);
  for (std::thread& worker : workers_) worker.join();
}

void Pool::share(int items, Call call, const void* job) {
  const uint32_t number = job_number_.load(std::memory_order_relaxed) + 1;
  // Empty while the description changes: who has read any of it cannot take items of the last job any more.
  for (Range& range : ranges_) range.state.store(state_of(number, 0, 0), std::memory_order_relaxed);
  call_.store(call, std::memory_order_release);
  job_.store(job, std::memory_order_release);
  open_.store(items, std::memory_order_release);
  const int64_t threads = int64_t(ranges_.size());
  for (int64_t i = 0; i < threads; ++i)
    ranges_[i].state.store(state_of(number, int(items * i / threads), int(items * (i + 1) / threads)),
                           std::memory_order_release);
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
  if (failed_.load(std::memory_order_acquire)) {
    failed_.store(false);
    std::rethrow_exception(std::exchange(failure_, nullptr));
  }
}

// Do some items of the present job, one's own or another's; false when none are left.
bool Pool::take_part(int thread) {
  const int threads = int(ranges_.size());
  for (int other = 0; other < threads; ++other)
    if (take((thread + other) % threads, thread)) return true;
  return false;
}

bool Pool::take(int owner, int thread) {
  std::atomic<uint64_t>& state = ranges_[owner].state;
  uint64_t seen = state.load(std::memory_order_acquire);
  for (;;) {
    const uint32_t number = uint32_t(seen >> 32);
    int first = int(seen >> 16 & 0xffff), last = int(seen & 0xffff);
    const int left = last - first;
    if (left <= 0) return false;
    const Call call = call_.load(std::memory_order_acquire);
    const void* job = job_.load(std::memory_order_acquire);
    uint64_t rest;
    if (owner == thread) {
      // Pieces get smaller, so that the threads end together.
      last = first + (left + 3) / 4;
      rest = state_of(number, last, int(seen & 0xffff));
    } else {
      first = last - (left + 1) / 2;
      rest = state_of(number, int(seen >> 16 & 0xffff), first);
    }
    if (!state.compare_exchange_weak(seen, rest, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    try {
      call(job, first, last, thread);
    } catch (...) {
      // The job ends as if the piece were done; `open_` hands over what is written here.
      if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
    const int done = last - first;
    if (open_.fetch_sub(done) == done && caller_sleeps_.exchange(0) == 1) wake(caller_sleeps_);
    return true;
  }
}

void Pool::wait_for_job(int thread, uint32_t seen) {
  const uint8_t* memory = expected_.load(std::memory_order_relaxed);
  const size_t share = memory == nullptr ? 0 : expected_bytes_.load(std::memory_order_relaxed) / ranges_.size();
  const size_t most = share < kFetched ? share : kFetched;
  memory += share * thread;
  size_t fetched = 0;
  for (int spin = 0; spin < kSpins; ++spin) {
    if (job_number_.load(std::memory_order_acquire) != seen) return;
    if (fetched < most)
      for (int line = 0; line < 4; ++line, fetched += 64) __builtin_prefetch(memory + fetched, 0, 2);
    else
      pause();
  }
  sleepers_.fetch_add(1);
  while (job_number_.load() == seen) sleep_while(job_number_, seen);
  sleepers_.fetch_sub(1);
}

void Pool::serve(int thread) {
  uint32_t seen = 0;
  while (!stop_.load(std::memory_order_relaxed)) {
    wait_for_job(thread, seen);
    seen = job_number_.load(std::memory_order_acquire);
    while (take_part(thread)) {}
  }
}

}  // namespace nkat
