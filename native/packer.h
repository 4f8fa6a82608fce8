// Packs matrices behind the back of the caller, who has other things to do while a model is loaded: one thread of its
// own leaves him his core. When he has nothing left to do, he and all the other threads take part.
#pragma once

#include <deque>
#include <mutex>
#include <thread>

#include "weight.h"

namespace nkat {

class Packer {
 public:
  // `threads`: that may work at a time, the caller's included; at least one works beside him.
  explicit Packer(int threads) : threads_(threads) {}
  ~Packer() { settle(); }
  Packer(const Packer&) = delete;

  // Have the file's rows [rows][bytes of a row] packed into `memory`. All must stay until `settle`; so must the shape
  // of the weight.
  void add(const Weight& weight, const uint8_t* file, uint8_t* memory);

  // Pack until all matrices are.
  void settle();

 private:
  struct Job {
    const Weight* weight;
    const uint8_t* file;
    uint8_t* memory;
    int first, last;  // panels
  };

  // Jobs until there are none.
  void work();
  // The same for the packer's own thread, which new jobs keep going.
  void work_on();

  const int threads_;

  std::mutex mutex_;
  std::deque<Job> jobs_;
  bool working_ = false;  // there is a thread that looks for jobs
  std::thread thread_;
};

}  // namespace nkat
