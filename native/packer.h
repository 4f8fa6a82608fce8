// Packs matrices behind the back of the caller, who has other things to do while a model is loaded, and computes with
// what there is: one thread of its own leaves him his core. When he has nothing left to do, he and all the other
// threads take part.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "weight.h"

namespace nkat {

class Packer {
 public:
  // `threads`: that may work at a time, the caller's included; at least one works beside him.
  explicit Packer(int threads) : threads_(threads) { in_hand_.reserve(size_t(threads) + 1); }
  ~Packer();
  Packer(const Packer&) = delete;

  // Have a matrix packed, part by part. Its file and memory must stay until all are; so must its shape. Throws
  // `std::bad_alloc`, with parts of it waiting.
  void add(Weight& weight);

  // Pack until all matrices are.
  void settle();

  // Leave the rest of a matrix as it is; nobody reads its file or writes to its memory any more.
  void drop(const Weight& weight);

  // Whether all are.
  bool settled();

  // While one lives, somebody computes: the packer's own thread rests, though never longer in all than it has worked.
  class Rest {
   public:
    explicit Rest(Packer& packer) : packer_(packer) { packer_.set_computing(true); }
    ~Rest() { packer_.set_computing(false); }
    Rest(const Rest&) = delete;

   private:
    Packer& packer_;
  };

 private:
  using Clock = std::chrono::steady_clock;

  struct Job {
    Weight* weight;
    int part;
  };

  // Jobs until there are none.
  void work(bool own = false);
  // The same for the packer's own thread, which new jobs keep going.
  void work_on();
  void rest(std::unique_lock<std::mutex>& lock);
  void set_computing(bool computing);

  const int threads_;

  std::mutex mutex_;
  std::deque<Job> jobs_;
  std::vector<const Weight*> in_hand_;  // of each job that is being done; has room for one a thread
  std::condition_variable done_;
  bool working_ = false;  // there is a thread that looks for jobs
  bool computing_ = false;
  std::condition_variable computed_;
  Clock::duration worked_{};  // by the packer's own thread, less what it has rested
  std::thread thread_;
};

}  // namespace nkat
