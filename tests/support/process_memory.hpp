// The memory of a process as the kernel counts it.
#ifndef SYNCSTATE_TESTS_SUPPORT_PROCESS_MEMORY_HPP
#define SYNCSTATE_TESTS_SUPPORT_PROCESS_MEMORY_HPP

#include <unistd.h>

#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

namespace support {

/// Reads the memory of one process from its folder under /proc. Pages that it shares with others count, too.
/// Errors: each member throws std::runtime_error if the kernel does not let this process read or reset it.
class ProcessMemory {
 public:
  /// This process, or the one whose folder is named.
  explicit ProcessMemory(std::string folder = "/proc/self") : folder_(std::move(folder)) {}

  /// What is resident now, in bytes.
  [[nodiscard]] double resident_bytes() const {
    std::ifstream file(folder_ + "/statm");
    double all = 0;
    double resident = 0;
    if (!(file >> all >> resident)) throw std::runtime_error("cannot read " + folder_ + "/statm");
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
  }

  /// The most that was ever resident since `forget_peak`, in bytes.
  [[nodiscard]] double peak_resident_bytes() const {
    std::ifstream file(folder_ + "/status");
    for (std::string word; file >> word; file.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
      double kibibytes = 0;
      if (word == "VmHWM:" && file >> kibibytes) return kibibytes * 1024;
    }
    throw std::runtime_error("cannot read VmHWM of " + folder_ + "/status");
  }

  /// The peak is what is resident now.
  void forget_peak() const {
    std::ofstream file(folder_ + "/clear_refs");
    if (!(file << 5 << std::flush)) throw std::runtime_error("cannot write " + folder_ + "/clear_refs");
  }

 private:
  std::string folder_;
};

}  // namespace support

#endif
