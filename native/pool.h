// Threads that share the work of one caller, and sleep when there is none.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace nkat {

// The caller hands out a job of numbered items and works on it himself; workers that are awake help.
//
// Each thread has a range of neighbouring items, takes pieces from its front, so that memory is read in one
// stream, and when it has none left takes half of what another one still has. A job ends when its items are done,
// not when all workers have come by: one that another process keeps off its core costs the piece that it holds at
// most, and a sleeping one costs nothing. Workers spin for some microseconds between jobs, for the next one is
// usually there by then, and then sleep on a futex.
class Pool {
 public:
  // Throws `std::system_error` where there cannot be so many threads.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;

  // What a later job will read, in about equal parts by all threads: workers with nothing to do fetch some of
  // theirs into their caches.
  void expect(const uint8_t* memory, size_t bytes) {
    expected_bytes_.store(bytes, std::memory_order_relaxed);
    expected_.store(memory, std::memory_order_relaxed);
  }

  // Threads in all, the caller included.
  int threads() const { return int(ranges_.size()); }

  // Call work(first, last, thread) for pieces of the items 0 to `items`, by any threads at once; returns
  // when all are done, and throws what the first one threw that did. `thread`, below `threads()`, tells apart those that run at the same time. For one caller at a
  // time.
  template <class Work>
  void run(int items, const Work& work) {
    if (items <= 1 || ranges_.size() == 1) {
      if (items > 0) work(0, items, 0);
      return;
    }
    const int each = (items + kMost - 1) / kMost;
    const auto some = [&](int first, int last, int thread) {
      work(first * each, last * each < items ? last * each : items, thread);
    };
    using Some = decltype(some);
    share((items + each - 1) / each, [](const void* job, int first, int last, int thread) {
      (*static_cast<const Some*>(job))(first, last, thread);
    }, &some);
  }

 private:
  using Call = void (*)(const void*, int, int, int);

  static constexpr int kMost = 0xffff;

  // The number of the job, then the first and the last of the items that are left: one swap takes items and
  // proves that the job is still the one whose description was read.
  struct alignas(64) Range {
    std::atomic<uint64_t> state{0};
  };

  void share(int items, Call call, const void* job);
  void stop();
  void serve(int thread);
  bool take_part(int thread);
  bool take(int owner, int thread);
  void wait_for_job(int thread, uint32_t seen);

  std::vector<Range> ranges_;
  alignas(64) std::atomic<int> open_{0};  // items that are not done
  std::atomic<uint32_t> caller_sleeps_{0};
  alignas(64) std::atomic<uint32_t> job_number_{0};  // what sleeping workers wait for
  std::atomic<int> sleepers_{0};
  std::atomic<bool> failed_{false};   // a piece of the present job has thrown ...
  std::exception_ptr failure_;        // ... this; whoever set the flag writes it
  std::atomic<bool> stop_{false};
  std::atomic<Call> call_{nullptr};
  std::atomic<const void*> job_{nullptr};
  std::atomic<const uint8_t*> expected_{nullptr};
  std::atomic<size_t> expected_bytes_{0};
  std::vector<std::thread> workers_;
};

}  // namespace nkat
