// What one thing takes of a room that many share.
#ifndef SYNCSTATE_DETAIL_SERVER_BYTE_SHARE_HPP
#define SYNCSTATE_DETAIL_SERVER_BYTE_SHARE_HPP

#include <atomic>
#include <cstddef>
#include <limits>
#include <memory>
#include <utility>

#include "syncstate/detail/requirements.hpp"

namespace syncstate::detail {

/// Bytes in use, counted by all who have a share of them.
using SharedBytesCount = std::shared_ptr<std::atomic<std::size_t>>;

/// What one of them takes; given back at its end.
class ByteShare {
 public:
  explicit ByteShare(SharedBytesCount all) : all_(std::move(all)) {}
  ByteShare(ByteShare&& other) noexcept
      : all_(std::move(other.all_)), bytes_(std::exchange(other.bytes_, 0)) {}
  ByteShare& operator=(ByteShare&&) = delete;
  ~ByteShare() {
    if (all_) *all_ -= bytes_;
  }

  [[nodiscard]] std::size_t bytes() const { return bytes_; }

  /// Counts `bytes` more. Returns false if all shares together are then more than `most`.
  bool take(std::size_t bytes, std::size_t most = (std::numeric_limits<std::size_t>::max)()) {
    bytes_ += bytes;
    return (*all_ += bytes) <= most;
  }

  /// Takes or gives back what is missing to `bytes`. Returns false if all shares together are then more than `most`.
  bool set(std::size_t bytes, std::size_t most) {
    if (bytes >= bytes_) return take(bytes - bytes_, most);
    give_back(bytes_ - bytes);
    return *all_ <= most;
  }

  /// So many of those taken are not needed any more.
  void give_back(std::size_t bytes) {
    bytes_ -= bytes;
    *all_ -= bytes;
  }

 private:
  SharedBytesCount all_;
  std::size_t bytes_ = 0;
};

}  // namespace syncstate::detail

#endif
