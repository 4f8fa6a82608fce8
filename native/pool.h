// Threads that share the work of one caller, and sleep when there is none.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace nkat {

// The caller hands out a job of numbered chunks and works on it itself; workers that are awake take chunks too.
//
// A job ends when its chunks are done, not when all workers have come by: a worker that another process keeps
// off its core costs the chunk that it holds at most, and a sleeping one costs nothing. Workers spin for some
// microseconds between jobs, for the next one is usually there by then, and then sleep on a futex.
class Pool {
 public:
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;

  // Threads in all, the caller included.
  int threads() const { return int(workers_.size()) + 1; }

  // Call work(chunk, thread) for each chunk below `chunks`, by any threads at once; returns when all are done.
  // `thread`, below `threads()`, tells apart those that run at the same time. For one caller at a time.
  template <class Work>
  void run(int chunks, const Work& work) {
    if (chunks <= 1 || workers_.empty()) {
      for (int chunk = 0; chunk < chunks; ++chunk) work(chunk, 0);
      return;
    }
    run(chunks, [](const void* job, int chunk, int thread) { (*static_cast<const Work*>(job))(chunk, thread); },
        &work);
  }

 private:
  using Call = void (*)(const void*, int, int);

  void run(int chunks, Call call, const void* job);
  void serve(int thread);
  bool take_part(int thread);
  void wait_for_job(uint32_t seen);

  // The number of the job in the upper half, its next chunk in the lower: one swap takes a chunk and proves
  // that the job is still the one whose description was read.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int> open_{0};  // chunks that are not done
  std::atomic<uint32_t> caller_sleeps_{0};
  alignas(64) std::atomic<uint32_t> job_number_{0};  // what sleeping workers wait for
  std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  std::atomic<int> chunks_{0};
  std::atomic<Call> call_{nullptr};
  std::atomic<const void*> job_{nullptr};
  std::vector<std::thread> workers_;
};

}  // namespace nkat
