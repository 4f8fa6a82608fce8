// Packs matrices behind the back of the caller, who has other things to do while a model is loaded: one thread
// of its own leaves him his core, and is done as soon as he is.
#pragma once

#include <deque>
#include <mutex>
#include <thread>

#include "weight.h"

namespace nkat {

class Packer {
 public:
  Packer() = default;
  ~Packer() { settle(); }
  Packer(const Packer&) = delete;

  // Have the file's rows [rows][bytes of a row] packed into `memory`. All must stay until `settle`.
  void add(const Weight& weight, const uint8_t* file, uint8_t* memory);

  // Wait until all matrices are packed.
  void settle();

 private:
  struct Job {
    const Weight* weight;
    const uint8_t* file;
    uint8_t* memory;
  };

  void work();

  std::mutex mutex_;
  std::deque<Job> jobs_;
  bool working_ = false;  // there is a thread that looks for jobs
  std::thread thread_;
};

}  // namespace nkat
