// Owns an open file.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_DESCRIPTOR_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_DESCRIPTOR_HPP

#include <unistd.h>

#include <utility>

namespace config_service {

/// An open file or folder.
class Descriptor {
 public:
  explicit Descriptor(int handle = -1) : handle_(handle) {}
  Descriptor(Descriptor&& other) noexcept : handle_(std::exchange(other.handle_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Descriptor() {
    if (handle_ >= 0) ::close(handle_);
  }
  [[nodiscard]] int get() const { return handle_; }
  [[nodiscard]] bool is_open() const { return handle_ >= 0; }

 private:
  int handle_;
};

}  // namespace config_service

#endif
