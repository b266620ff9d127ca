// "host:port" in and out.
#include "syncstate/tcp/endpoint.hpp"

#include <string>

#include "support/catch.hpp"
#include "syncstate/tcp/native_socket.hpp"

namespace endpoint_test {

namespace {

using syncstate::StateErrc;
using syncstate::StateError;
using syncstate::tcp::Endpoint;
using syncstate::tcp::parse_endpoint;

}  // namespace

TEST_CASE("an endpoint is a host and a port") {
  CHECK(parse_endpoint("localhost:80") == Endpoint{"localhost", 80});
  CHECK(parse_endpoint("127.0.0.1:0") == Endpoint{"127.0.0.1", 0});
  CHECK(parse_endpoint("[::1]:65535") == Endpoint{"::1", 65535});
  for (const char* text : {"localhost:80", "127.0.0.1:0", "[::1]:65535"}) {
    CHECK(to_string(parse_endpoint(text)) == text);
  }
}

TEST_CASE("what is no endpoint is refused by name") {
  const std::string text = GENERATE("", "localhost", ":80", "localhost:", "localhost:65536", "localhost:-1",
                                    "localhost:8o", "localhost:80 ", "::1:80", "[::1:80", "[::1]80", "[::1]",
                                    "a b:80", "https://localhost:80", "localhost:+80");
  INFO(text);
  try {
    (void)parse_endpoint(text);
    FAIL("not refused");
  } catch (const StateError& error) {
    CHECK(error.code() == StateErrc::invalid_option);
    CHECK(error.detail().find("'" + text + "'") != std::string::npos);
  }
}

TEST_CASE("limits count a v4 address, and of a v6 address what its owner shares with nobody") {
  const auto network = [](const std::string& host) { return syncstate::tcp::network_of({host, 1}); };
  CHECK(network("192.0.2.1") == "192.0.2.1");
  CHECK(network("2001:db8:1:2:3:4:5:6") == "2001:db8:1:2::/64");
  CHECK(network("2001:db8:1:2::") == "2001:db8:1:2::/64");
  CHECK(network("2001:db8:1:3::1") == "2001:db8:1:3::/64");
  CHECK(network("fe80::1%eth0") == "fe80::1%eth0");
  CHECK(network("64:ff9b::c000:201") == "192.0.2.1");
  CHECK(network("64:ff9b::c000:202") == "192.0.2.2");
}

}  // namespace endpoint_test
