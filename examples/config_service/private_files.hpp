// Files that only their owner may read or change: how they are made, and what is refused when they are read.
//
// Everything is checked on the open descriptor and never on a path, which another process may change in between.
#ifndef SYNCSTATE_EXAMPLES_CONFIG_SERVICE_PRIVATE_FILES_HPP
#define SYNCSTATE_EXAMPLES_CONFIG_SERVICE_PRIVATE_FILES_HPP

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>

#include "descriptor.hpp"
#include "failure.hpp"
#include "printable.hpp"
#include "read_file.hpp"

namespace config_service {

namespace fs = std::filesystem;

/// Returns a path as it is typed in a shell, also where it begins with "-" or holds what can't be printed.
inline std::string shell_quoted(const std::string& path) {
  const std::string start = path.starts_with('-') ? "./" : "";
  if (printable(path) == path) {
    std::string quoted = "'" + start;
    for (const char c : path) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return quoted + "'";
  }
  std::string quoted = "$'" + start;
  for (const char c : path) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7e || c == '\'' || c == '\\') {
      // Three octal digits: the next character can't be taken for a fourth.
      quoted += '\\';
      for (const int shift : {6, 3, 0}) quoted += static_cast<char>('0' + (byte >> shift & 7));
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

[[noreturn]] inline void refuse_file(const std::string& path, const std::string& why) {
  throw Failure(ExitCode::file, printable(path) + " " + why);
}

/// Which access to a file its mode may give to others.
enum class Privacy {
  secret,  ///< nobody else may read or change it
  public_  ///< nobody else may change it
};

/// What an open file or folder is, whose it is, and its mode.
inline struct stat stat_of(int file, const std::string& path) {
  struct stat info {};
  if (::fstat(file, &info) != 0)
    refuse_file(path, std::string("can't be looked at: ") + std::strerror(errno));
  return info;
}

/// Refuses an open file or folder that another user owns, or that others may read or change more than they should.
/// A file of root's may be readable by a group, as services have it.
inline void check_privacy(const struct stat& info, const std::string& path, Privacy privacy) {
  const bool is_folder = S_ISDIR(info.st_mode);
  const bool is_roots = info.st_uid == 0 && ::geteuid() != 0;
  if (info.st_uid != ::geteuid() && (is_folder || !is_roots)) {
    refuse_file(path, "belongs to another user (" + std::to_string(info.st_uid) +
                          "), who could read and change what is in it: use one of your own");
  }
  const mode_t forbidden = privacy == Privacy::public_ ? 022 : is_roots ? 037 : 077;
  if ((info.st_mode & forbidden) != 0) {
    // A file of root's is read through its group: without that, its service could not read it any more.
    const char* const mode = is_folder                     ? "700"
                             : privacy == Privacy::public_ ? "644"
                             : is_roots                    ? "640"
                                                           : "600";
    refuse_file(path, std::string(privacy == Privacy::public_ ? "can be changed by other users"
                                                              : "can be read or changed by other users") +
                          ": type" + (is_roots ? ", as root,  chmod " : "  chmod ") + mode + " " +
                          shell_quoted(path));
  }
}

/// A folder that nobody else may change; with `makes`, it and its parents are made where they are missing, for their
/// owner alone whatever the umask is.
/// Errors: Failure, also for a symbolic link, whose target could be anybody's.
inline Descriptor open_private_folder(const std::string& folder, bool makes) {
  std::string path = folder;
  // Behind a slash, or as the parent of ".", a link would be followed.
  while (path.size() > 1 && (path.ends_with('/') || path.ends_with("/."))) path.pop_back();
  const auto fail = [&] {
    const int error = errno;
    const bool is_link = fs::is_symlink(fs::symlink_status(path));
    throw Failure(ExitCode::file, "the folder " + printable(folder) + " can't be used: " +
                                      (is_link ? "it is a symbolic link" : std::strerror(error)) +
                                      "; --dir names another");
  };
  bool is_new = false;
  if (makes) {
    const fs::path parent = fs::path(path).parent_path();
    fs::path made;
    for (const fs::path& part : parent) {
      made /= part;
      if (::mkdir(made.c_str(), 0700) != 0 && errno != EEXIST && !fs::is_directory(made)) fail();
    }
    is_new = ::mkdir(path.c_str(), 0700) == 0;
    if (!is_new && errno != EEXIST) fail();
  }
  Descriptor opened(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!opened.is_open()) fail();
  check_privacy(stat_of(opened.get(), path), path, Privacy::public_);
  if (is_new && ::fchmod(opened.get(), 0700) != 0) fail();  // the umask may have taken our own rights, too
  return opened;
}

/// A certificate, key or password: in `folder` by its name alone, else wherever `path` says.
struct PrivateFile {
  std::string path;  ///< for messages, and to open where there is no folder
  int folder = -1;   ///< open; -1: the user named the file
  std::string name;  ///< within the folder
};

/// Reads such a file.
/// Errors: Failure for one that is missing, is no file, or is not private.
inline std::string read_private_file(const PrivateFile& from, Privacy privacy) {
  // Within our folder no link is followed. A file that the user names may be one, or a pipe.
  Descriptor file(from.folder >= 0 ? ::openat(from.folder, from.name.c_str(),
                                              O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
                                   : ::open(from.path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open()) {
    refuse_file(from.path, std::string("can't be read: ") +
                               (errno == ELOOP ? "it is a symbolic link" : std::strerror(errno)));
  }
  const struct stat info = stat_of(file.get(), from.path);
  // Before its mode is judged: the mode of a device or a folder is not to be changed for our sake.
  if (!S_ISREG(info.st_mode) && !(from.folder < 0 && S_ISFIFO(info.st_mode)))
    refuse_file(from.path, "is no file");
  check_privacy(info, from.path, privacy);
  return read_to_end(file.get(), printable(from.path), std::size_t{4} << 20U);
}

/// Writes a file that must not be there yet, whole or not at all, for its owner alone whatever the umask is.
inline void write_private_file(int folder, const std::string& name, std::string_view text) {
  const std::string draft = name + ".draft";
  const auto fail = [&] {
    throw Failure(ExitCode::file, name + " can't be written: " + std::strerror(errno));
  };
  ::unlinkat(folder, draft.c_str(), 0);
  Descriptor file(
      ::openat(folder, draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file.is_open() || ::fchmod(file.get(), 0600) != 0) fail();
  if (::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()) ||
      ::fsync(file.get()) != 0) {
    fail();
  }
  // A link, unlike a new name, replaces nothing.
  if (::linkat(folder, draft.c_str(), folder, name.c_str(), 0) != 0) fail();
  ::unlinkat(folder, draft.c_str(), 0);
}

/// Whether a name is there, be it a link that leads nowhere.
inline bool has_entry(int folder, const std::string& name) {
  struct stat info {};
  return ::fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0;
}

}  // namespace config_service

#endif
