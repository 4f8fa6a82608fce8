#include "guard.h"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <mutex>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace nkat {
namespace {

// Mappings guarded at the same time; a split model has one for each part.
constexpr int64_t kMost = 1024;

struct Mapping {
  std::atomic<uintptr_t> start{0}, end{0};  // 0: the place is free
  std::atomic<bool> failed{false};
  int file = -1;
  size_t bytes = 0;
};

Mapping mappings[kMost];
std::mutex changing;
struct sigaction previous;
uintptr_t page_size = 0;  // 0: the signal is not caught yet

// Give the failed page and all behind it other memory, and let the read be tried again. The system calls are all that
// happens here, and the signal comes at a read: no lock can be held by this thread that they need.
bool patch(uintptr_t address) {
  for (Mapping& mapping : mappings) {
    const uintptr_t start = mapping.start.load(std::memory_order_acquire), end = mapping.end.load();
    if (start == 0 || address < start || address >= end) continue;
    const uintptr_t page = address / page_size * page_size;
    mapping.failed.store(true);
    void* const zeros = mmap(reinterpret_cast<void*>(page), end - page, PROT_READ,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    return zeros != MAP_FAILED;
  }
  return false;
}

void on_bus_error(int, siginfo_t* info, void*) {
  const int error = errno;
  // What nobody guards is for whoever had the signal before: the read that is tried again raises it again.
  if (!patch(reinterpret_cast<uintptr_t>(info->si_addr))) sigaction(SIGBUS, &previous, nullptr);
  errno = error;
}

bool catch_signal() {
  if (page_size != 0) return true;
  page_size = uintptr_t(sysconf(_SC_PAGESIZE));
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  if (sigaction(SIGBUS, &action, &previous) == 0) return true;
  page_size = 0;
  return false;
}

}  // namespace

int64_t guard_mapping(const uint8_t* start, size_t bytes, int file) {
  const std::lock_guard<std::mutex> alone(changing);
  if (start == nullptr || bytes == 0 || !catch_signal()) return -1;
  for (int64_t number = 0; number < kMost; ++number) {
    Mapping& mapping = mappings[number];
    if (mapping.start.load() != 0) continue;
    mapping.file = fcntl(file, F_DUPFD_CLOEXEC, 0);
    mapping.bytes = bytes;
    mapping.failed.store(false);
    mapping.end.store(reinterpret_cast<uintptr_t>(start) + bytes);
    mapping.start.store(reinterpret_cast<uintptr_t>(start), std::memory_order_release);
    return number;
  }
  return -1;
}

void look_at_mappings() {
  const std::lock_guard<std::mutex> alone(changing);
  for (Mapping& mapping : mappings) {
    struct stat found;
    if (mapping.start.load() == 0 || mapping.file < 0) continue;
    if (fstat(mapping.file, &found) != 0 || size_t(found.st_size) < mapping.bytes) mapping.failed.store(true);
  }
}

bool has_failed(int64_t number) { return number >= 0 && number < kMost && mappings[number].failed.load(); }

void unguard_mapping(int64_t number) {
  if (number < 0 || number >= kMost) return;
  const std::lock_guard<std::mutex> alone(changing);
  Mapping& mapping = mappings[number];
  if (mapping.start.load() == 0) return;
  mapping.start.store(0);
  mapping.end.store(0);
  if (mapping.file >= 0) close(mapping.file);
  mapping.file = -1;
}

}  // namespace nkat
