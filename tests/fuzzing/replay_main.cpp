// Runs a fuzz target on inputs that were kept, with any compiler and without libFuzzer.
//
//   fuzz_replay_<target> <corpus> [<regressions>]
//
// A corpus without a file is a failure: nothing would have been checked. Of regressions there may be none.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "fuzz_input.hpp"

namespace {

namespace fs = std::filesystem;

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  if (!fs::is_directory(folder)) return files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file()) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// From a buffer of exactly its size, so that a sanitizer sees each byte read beyond it. False if the file
/// can't be read.
bool replay(const fs::path& file) {
  // Named before it is run: an input that ends the program is the last one named.
  std::fprintf(stderr, "%s\n", file.c_str());
  std::ifstream stream(file, std::ios::binary);
  std::vector<std::uint8_t> bytes((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  if (!stream.good() && !stream.eof()) return false;
  bytes.shrink_to_fit();
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  return true;
}

int run(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s <corpus> [<regressions>]\n", argv[0]);
    return 2;
  }
  std::size_t played = 0;
  for (int i = 1; i < argc; ++i) {
    const std::vector<fs::path> files = files_in(argv[i]);
    if (i == 1 && files.empty()) {
      std::fprintf(stderr, "%s holds no inputs\n", argv[i]);
      return 1;
    }
    for (const fs::path& file : files) {
      if (!replay(file)) {
        std::fprintf(stderr, "can't be read\n");
        return 1;
      }
      ++played;
    }
  }
  std::printf("%zu inputs replayed\n", played);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "an exception got out: %s\n", error.what());
    return 1;
  }
}
