// "host:port" in and out.
#include "syncstate/tcp/endpoint.hpp"

#include <string>

#include "support/catch.hpp"

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
