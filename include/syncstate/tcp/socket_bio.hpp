// OpenSSL's reads and writes on a non-blocking socket, without SIGPIPE.
#ifndef SYNCSTATE_TCP_SOCKET_BIO_HPP
#define SYNCSTATE_TCP_SOCKET_BIO_HPP

#include <openssl/bio.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <new>

namespace syncstate::tcp::detail {

/// What the BIO of one link knows of its socket.
///
/// Lifetime: outlives the BIO made for it.
struct SocketIo {
  int handle = -1;
  bool is_drained = false;      ///< a short read emptied the socket: the next read can only say "try again"
  bool is_at_end = false;       ///< the peer sends no more
  int read_error = 0;           ///< errno of a read that failed for good
  int write_error = 0;          ///< errno of a write that failed for good
  std::uint64_t bytes_in = 0;   ///< read from the socket so far
  std::uint64_t bytes_out = 0;  ///< taken by the socket so far
};

inline int socket_bio_write(BIO* bio, const char* data, std::size_t size, std::size_t* written) {
  auto& io = *static_cast<SocketIo*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  *written = 0;
  if (io.write_error == 0) {
    ssize_t sent = 0;
    do {
      sent = ::send(io.handle, data, size, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    if (sent >= 0) {
      io.bytes_out += static_cast<std::uint64_t>(sent);
      *written = static_cast<std::size_t>(sent);
      return 1;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      BIO_set_retry_write(bio);
      return 0;
    }
    io.write_error = errno;
  }
  // The peer reads no more, but what it sent before (an alert, a goodbye) may still lie in our socket and says
  // why. So the bytes are dropped as if sent: the read side, which can no longer be blocked, finds that reason
  // and then the end of the stream.
  if (io.write_error == EPIPE || io.write_error == ECONNRESET) {
    *written = size;
    return 1;
  }
  return 0;
}

inline int socket_bio_read(BIO* bio, char* data, std::size_t size, std::size_t* read) {
  auto& io = *static_cast<SocketIo*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  *read = 0;
  if (io.is_drained) {
    BIO_set_retry_read(bio);
    return 0;
  }
  ssize_t got = 0;
  do {
    got = ::recv(io.handle, data, size, 0);
  } while (got < 0 && errno == EINTR);
  if (got > 0) {
    io.bytes_in += static_cast<std::uint64_t>(got);
    io.is_drained = static_cast<std::size_t>(got) < size;
    *read = static_cast<std::size_t>(got);
    return 1;
  }
  if (got == 0) {
    io.is_at_end = true;
  } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
    BIO_set_retry_read(bio);
  } else {
    io.read_error = errno;
  }
  return 0;
}

inline long socket_bio_control(BIO* bio, int command, long, void*) {
  switch (command) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_EOF: return static_cast<const SocketIo*>(BIO_get_data(bio))->is_at_end ? 1 : 0;
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
