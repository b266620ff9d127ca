// A flood of TLS handshakes from many addresses, and what an authenticated link notices of it.
#ifndef SYNCSTATE_BENCHMARKS_ATTACK_FLOOD_HPP
#define SYNCSTATE_BENCHMARKS_ATTACK_FLOOD_HPP

#include "support/harness.hpp"

namespace benchmarks {

/// The same flood goes to the server of an honest client, and to another server that nobody uses. The other one runs on
/// the same CPU as the first, and the attacker on the same CPU as the honest client. So both runs differ in nothing but
/// the server that is attacked.
void measure_flood_ecdsa(const Settings& settings, Report& report);
void measure_flood_rsa(const Settings& settings, Report& report);

}  // namespace benchmarks

#endif
