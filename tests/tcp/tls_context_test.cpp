// Certificates and keys that can't be used are refused by name, before anything is sent.
#include "syncstate/tcp/tls_context.hpp"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/catch.hpp"
#include "support/certificates.hpp"
#include "syncstate/tcp/test_data.hpp"

namespace tls_context_test {

namespace {

using namespace syncstate;
using namespace syncstate::tcp;
using syncstate::testing::contains_text;

// A folder that goes away with the test.
struct Folder {
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "syncstate-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string write(const std::string& name, std::string_view content) const {
    std::ofstream(path / name, std::ios::binary) << content;
    return (path / name).string();
  }
  std::filesystem::path path;
};

template <class Tls>
void check_refused(const Tls& tls, const std::string& why) {
  try {
    const TlsContext context(tls);
    FAIL("not refused, expected: " << why);
  } catch (const StateError& error) {
    CHECK(error.code() == StateErrc::invalid_option);
    CHECK_THAT(error.detail(), contains_text(why));
  }
}

}  // namespace

TEST_CASE("certificate and key are read from files or text") {
  const Folder folder;
  const std::string certificate = folder.write("server.crt", test_data::certificate_pem);
  const std::string key = folder.write("server.key", test_data::private_key_pem);
  CHECK_NOTHROW(TlsContext(ServerTls::from_files(certificate, key)));
  CHECK_NOTHROW(TlsContext(ServerTls::from_files(certificate, key).require_client_certificates(certificate)));
  CHECK_NOTHROW(TlsContext(ServerTls::from_pem(test_data::certificate_pem, test_data::private_key_pem)));
  CHECK_NOTHROW(TlsContext(ClientTls::trusting_file(certificate)));
  CHECK_NOTHROW(TlsContext(ClientTls::trusting_file(certificate).with_certificate(certificate, key)));
  CHECK_NOTHROW(TlsContext(ClientTls::trusting_system()));
  CHECK(!ServerTls::from_files(certificate, key).requires_client_certificates());
}

TEST_CASE("what can't be used is refused with the file's name and the reason") {
  const Folder folder;
  const support::Certificate other = support::make_certificate({});
  const std::string certificate = folder.write("server.crt", test_data::certificate_pem);
  const std::string key = folder.write("server.key", test_data::private_key_pem);
  const std::string other_key = folder.write("other.key", other.key_pem);
  const std::string garbage = folder.write("garbage", "no PEM at all");
  const std::string torn = folder.write("torn", test_data::certificate_pem.substr(0, 300));
  const std::string missing = (folder.path / "missing").string();

  check_refused(ServerTls(), "a server needs a certificate");
  check_refused(ClientTls(), "whom should a client trust");
  check_refused(ServerTls::from_files(missing, key), "'" + missing + "': No such file");
  check_refused(ServerTls::from_files(certificate, missing), "'" + missing + "': No such file");
  check_refused(ServerTls::from_files(folder.path.string(), key), "Is a directory");
  check_refused(ServerTls::from_files(garbage, key), "'" + garbage + "': no certificate");
  check_refused(ServerTls::from_files(certificate, garbage), "'" + garbage + "': no private key");
  check_refused(ServerTls::from_files(certificate, certificate), "no private key");
  check_refused(ServerTls::from_files(torn, key), "'" + torn + "'");
  check_refused(ServerTls::from_files(certificate, other_key), "does not belong to");
  check_refused(ServerTls::from_pem("", ""), "no certificate");
  check_refused(ServerTls::from_files(certificate, key).require_client_certificates(missing), "No such file");
  check_refused(ClientTls::trusting_file(missing), "'" + missing + "': No such file");
  check_refused(ClientTls::from_pem("x"), "no certificate");
  check_refused(ClientTls::trusting_file(certificate).with_certificate(certificate, other_key),
                "does not belong to");
  CHECK_THROWS_AS(ServerTls::from_context(nullptr), StateError);
  CHECK_THROWS_AS(ClientTls::from_context(nullptr), StateError);
}

TEST_CASE("an encrypted key is refused, and nobody is asked for a pass phrase") {
  check_refused(ServerTls::from_pem(test_data::certificate_pem,
                                    "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"
                                    "DEK-Info: AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\n"
                                    "AAAAAAAAAAAAAAAAAAAAAA==\n-----END EC PRIVATE KEY-----\n"),
                "it is encrypted");
}

}  // namespace tls_context_test
