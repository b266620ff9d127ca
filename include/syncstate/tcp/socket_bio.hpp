// OpenSSL's reads and writes on a non-blocking socket, without SIGPIPE.
#ifndef SYNCSTATE_TCP_SOCKET_BIO_HPP
#define SYNCSTATE_TCP_SOCKET_BIO_HPP

#include <openssl/bio.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <new>
#include <optional>
#include <span>
#include <string_view>

#include "syncstate/bytes.hpp"
#include "syncstate/tcp/hello_guard.hpp"

namespace syncstate::tcp::detail {

/// One link's socket as its BIO sees it: reads may have to wait, writes never do.
///
/// What the kernel does not take is kept here. So OpenSSL is never left with a record half written, in which
/// state it refuses to answer a second key update ("bad length") and kills the connection.
///
/// Lifetime: outlives the BIO made for it.
class SocketIo {
 public:
  explicit SocketIo(int handle) : handle_(handle) {}
  SocketIo(const SocketIo&) = delete;
  SocketIo& operator=(const SocketIo&) = delete;

  /// Bytes that the kernel did not take yet.
  [[nodiscard]] std::size_t unsent_bytes() const { return unsent_.size() - unsent_begin_; }

  /// Offers them again. False if writing failed for good.
  bool flush() {
    while (unsent_bytes() > 0) {
      const ByteView rest = ByteView(unsent_).subspan(unsent_begin_);
      const std::size_t sent = send(rest);
      if (write_error_ != 0) return drops_output();
      if (sent == 0) return true;
      unsent_begin_ += sent;
    }
    unsent_ = Bytes();  // nothing kept for the next time
    unsent_begin_ = 0;
    return true;
  }

  /// Takes all bytes, whatever the kernel does. False if writing failed for good.
  bool write(ByteView bytes) {
    if (unsent_bytes() == 0 && write_error_ == 0) bytes = bytes.subspan(send(bytes));
    if (write_error_ != 0) return drops_output();
    if (!bytes.empty()) unsent_.insert(unsent_.end(), bytes.begin(), bytes.end());
    return true;
  }

  enum class Read { some, nothing_yet, end };

  enum class Gathered { more, whole, no_handshake, too_large, end };

  /// Keeps what a client sends first until its ClientHello is whole, so that nothing but its bytes is held before. `read`
  /// gives them out afterwards. To be called after `guard_hellos`, whenever the socket is readable.
  ///
  /// Memory    : twice the limit on a ClientHello, for what its records add.
  /// Complexity: O(bytes that have come).
  Gathered gather(std::size_t most_hello_bytes) {
    std::array<char, 2048> part;
    const std::size_t most = 2 * most_hello_bytes;
    while (true) {
      if (gathered_.size() >= most) return Gathered::too_large;
      ssize_t size = 0;
      do {
        size = ::recv(handle_, part.data(), (std::min)(part.size(), most - gathered_.size()), 0);
      } while (size < 0 && errno == EINTR);
      if (size < 0 && must_wait(errno)) return Gathered::more;
      if (size <= 0) {
        if (size < 0) read_error_ = errno;
        is_at_end_ = true;
        return Gathered::end;
      }
      const ByteView bytes = as_byte_view(std::string_view(part.data(), static_cast<std::size_t>(size)));
      if (gathered_.empty() && bytes.front() != handshake_record) return Gathered::no_handshake;
      if (!guard_->passes(bytes)) return Gathered::too_large;
      gathered_.insert(gathered_.end(), bytes.begin(), bytes.end());
      if (guard_->has_message()) return Gathered::whole;
    }
  }

  /// Reads at most `size` bytes.
  Read read(char* data, std::size_t size, std::size_t& got) {
    got = 0;
    if (!gathered_.empty()) {
      got = (std::min)(size, gathered_.size() - gathered_begin_);
      std::memcpy(data, gathered_.data() + gathered_begin_, got);
      gathered_begin_ += got;
      if (gathered_begin_ < gathered_.size()) return Read::some;
      gathered_ = Bytes();
      gathered_begin_ = 0;
      return Read::some;
    }
    if (is_drained_ || share_ == 0) return Read::nothing_yet;
    ssize_t result = 0;
    do {
      result = ::recv(handle_, data, size, 0);
    } while (result < 0 && errno == EINTR);
    if (result > 0) {
      got = static_cast<std::size_t>(result);
      is_drained_ = got < size;
      share_ -= (std::min)(share_, got);
      if (guard_ && !guard_->passes(as_byte_view(std::string_view(data, got)))) {
        is_at_end_ = true;
        got = 0;
        return Read::end;
      }
      return Read::some;
    }
    if (result < 0 && must_wait(errno)) return Read::nothing_yet;
    if (result < 0) read_error_ = errno;
    is_at_end_ = true;
    return Read::end;
  }

  /// Ends the stream where a peer's handshake message begins that is larger than `most_bytes` and not encrypted.
  void guard_hellos(std::size_t most_bytes) { guard_.emplace(most_bytes); }
  /// From now on everything is encrypted.
  void end_guard() { guard_.reset(); }
  /// The size of the message that the guard refused; 0 if it refused none.
  [[nodiscard]] std::size_t refused_hello_bytes() const { return guard_ ? guard_->refused_bytes() : 0; }

  /// The socket may have news: begins a new share. Until then a read that came back short counts as the last,
  /// which saves the system call that would only say so; and one share is all that is read, for OpenSSL goes
  /// through any number of key updates before it comes back.
  void look_again() {
    is_drained_ = false;
    share_ = most_per_look;
  }

  /// The socket gave less than there was room for: it was empty then.
  [[nodiscard]] bool is_drained() const { return is_drained_; }

  /// No more will come.
  [[nodiscard]] bool is_at_end() const { return is_at_end_; }

  /// errno of what ended it, reading before writing; 0 if nothing failed.
  [[nodiscard]] int error() const { return read_error_ != 0 ? read_error_ : write_error_; }

 private:
  // Returns whether `error` says that the socket is not ready. The two names are one number on most systems.
  static constexpr bool must_wait(int error) {
#if EAGAIN == EWOULDBLOCK
    return error == EAGAIN;
#else
    return error == EAGAIN || error == EWOULDBLOCK;
#endif
  }

  // Returns what was taken, 0 if nothing is for now.
  std::size_t send(ByteView bytes) {
    ssize_t sent = 0;
    do {
      sent = ::send(handle_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) return static_cast<std::size_t>(sent);
    if (!must_wait(errno)) write_error_ = errno;
    return 0;
  }

  // The peer reads no more, but what it sent before (an alert, a goodbye) may still lie in our socket and
  // says why. So the bytes are dropped as if sent: the read side finds that reason, and then the end of the
  // stream.
  bool drops_output() {
    unsent_ = Bytes();
    unsent_begin_ = 0;
    return write_error_ == EPIPE || write_error_ == ECONNRESET;
  }

  static constexpr std::byte handshake_record{22};
  static constexpr std::size_t most_per_look = std::size_t{80} << 10;

  const int handle_;
  std::size_t share_ = 0;
  bool is_drained_ = false;
  bool is_at_end_ = false;
  int read_error_ = 0;
  int write_error_ = 0;
  std::optional<HelloGuard> guard_;
  // What `gather` took from the socket and `read` has not given out; both are empty again once it has.
  Bytes gathered_;
  std::size_t gathered_begin_ = 0;
  Bytes unsent_;
  std::size_t unsent_begin_ = 0;
};

inline int socket_bio_write(BIO* bio, const char* data, std::size_t size, std::size_t* written) {
  BIO_clear_retry_flags(bio);
  *written = 0;
  try {
    auto& io = *static_cast<SocketIo*>(BIO_get_data(bio));
    if (!io.write(std::as_bytes(std::span<const char>(data, size)))) return 0;
  } catch (const std::bad_alloc&) {  // must not pass through OpenSSL
    return 0;
  }
  *written = size;
  return 1;
}

inline int socket_bio_read(BIO* bio, char* data, std::size_t size, std::size_t* got) {
  BIO_clear_retry_flags(bio);
  switch (static_cast<SocketIo*>(BIO_get_data(bio))->read(data, size, *got)) {
    case SocketIo::Read::some: return 1;
    case SocketIo::Read::nothing_yet: BIO_set_retry_read(bio); return 0;
    case SocketIo::Read::end: return 0;
  }
  return 0;
}

inline long socket_bio_control(BIO* bio, int command, long, void*) {
  switch (command) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_EOF: return static_cast<const SocketIo*>(BIO_get_data(bio))->is_at_end() ? 1 : 0;
    default: return 0;
  }
}

/// The method table of our BIOs; made once, kept until the process ends because BIOs point at it.
inline const BIO_METHOD* socket_bio_method() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "syncstate socket");
    if (made == nullptr) throw std::bad_alloc();
    BIO_meth_set_write_ex(made, socket_bio_write);
    BIO_meth_set_read_ex(made, socket_bio_read);
    BIO_meth_set_ctrl(made, socket_bio_control);
    return made;
  }();
  return method;
}

/// A BIO over `io`; the caller owns it.
inline BIO* make_socket_bio(SocketIo& io) {
  BIO* bio = BIO_new(socket_bio_method());
  if (bio == nullptr) throw std::bad_alloc();
  BIO_set_data(bio, &io);
  BIO_set_init(bio, 1);
  return bio;
}

}  // namespace syncstate::tcp::detail

#endif
