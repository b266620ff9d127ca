// The passwords of a server, and which of them a client's proof is made with.
#ifndef SYNCSTATE_PROTOCOL_PASSWORDS_HPP
#define SYNCSTATE_PROTOCOL_PASSWORDS_HPP

#include <cstddef>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "syncstate/bytes.hpp"
#include "syncstate/protocol/messages.hpp"
#include "syncstate/protocol/proof.hpp"

namespace syncstate::protocol {

/// The passwords of a server. `ServerCore` makes them, each `ServerSession` checks proofs against them.
struct Passwords {
  /// Each of these lets a client in; several at once while one is being replaced.
  std::vector<std::string> current;
  /// Former passwords. They let nobody in, but a client that still has one is not taken for one that guesses.
  std::vector<std::string> retired;

  explicit Passwords(std::vector<std::string> current_, std::vector<std::string> retired_ = {})
      : current(std::move(current_)), retired(std::move(retired_)) {}
};

/// Overwrites each of these passwords, and removes them.
inline void wipe_all(std::vector<std::string>& passwords) {
  for (std::string& password : passwords) wipe(password);
  passwords.clear();
}

/// Overwrites passwords at the end of a block, also where an exception leaves it. It does not wipe passwords that were
/// moved to a new owner.
///
/// Lifetime: the passwords must outlive it.
template <class... Secrets>
class WipesAtEnd {
 public:
  /// Takes strings and lists of strings.
  explicit WipesAtEnd(Secrets&... secrets) : secrets_(secrets...) {}
  WipesAtEnd(const WipesAtEnd&) = delete;
  WipesAtEnd& operator=(const WipesAtEnd&) = delete;
  ~WipesAtEnd() {
    std::apply([](Secrets&... secrets) { (wipe_one(secrets), ...); }, secrets_);
  }

 private:
  static void wipe_one(std::string& secret) { wipe(secret); }
  static void wipe_one(std::vector<std::string>& secrets) { wipe_all(secrets); }

  std::tuple<Secrets&...> secrets_;
};

/// Shares passwords that are wiped when the last owner is gone.
inline std::shared_ptr<const Passwords> keep_passwords(std::vector<std::string> current,
                                                       std::vector<std::string> retired = {}) {
  struct Wipe {
    void operator()(Passwords* kept) const {
      wipe_all(kept->current);
      wipe_all(kept->retired);
      delete kept;
    }
  };
  return std::shared_ptr<const Passwords>(new Passwords(std::move(current), std::move(retired)), Wipe{});
}

/// What a client's proof was made with.
enum class ProofStanding {
  wrong,    ///< no password of this server
  retired,  ///< one of `Passwords::retired`, and none of `Passwords::current`
  right     ///< one of `Passwords::current`
};

/// A client's proof, checked.
struct CheckedProof {
  ProofStanding standing = ProofStanding::wrong;
  std::size_t index = 0;  ///< of the password in `Passwords::current`, where the standing is `right`
};

/// Checks a client's proof against all passwords of a server.
///
/// Every password is tried, retired ones included, and each comparison takes constant time. So the time taken depends on
/// the number of passwords alone. A password that is both current and retired counts as current.
/// Errors    : `tls_failed` if OpenSSL can't compute an HMAC.
/// Complexity: one HMAC for each password.
inline CheckedProof check_client_proof(const Proof& proof, const Passwords& passwords,
                                       ByteView channel_binding) {
  const auto is_made_with = [&](const std::string& password) {
    return proofs_equal(proof, make_proof(password, ProofRole::client, channel_binding));
  };
  CheckedProof checked;
  for (const std::string& password : passwords.retired) {
    if (is_made_with(password)) checked.standing = ProofStanding::retired;
  }
  for (std::size_t i = passwords.current.size(); i-- > 0;) {  // of two that are equal, the first counts
    if (is_made_with(passwords.current[i])) checked = CheckedProof{ProofStanding::right, i};
  }
  return checked;
}

}  // namespace syncstate::protocol

#endif
