// Runs benchmark cases in turn, each time in a process of its own, and prints the medians as Markdown tables.
#ifndef SYNCSTATE_BENCHMARKS_SUPPORT_HARNESS_HPP
#define SYNCSTATE_BENCHMARKS_SUPPORT_HARNESS_HPP

#include <sched.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/statistics.hpp"

namespace benchmarks {

using Clock = std::chrono::steady_clock;

[[nodiscard]] inline double microseconds(Clock::duration time) {
  return std::chrono::duration<double, std::micro>(time).count();
}
[[nodiscard]] inline double seconds(Clock::duration time) {
  return std::chrono::duration<double>(time).count();
}

/// Has the compiler believe that `value` is used.
template <class T>
void keep(const T& value) {
  asm volatile("" : : "r"(&value) : "memory");
}

/// The figure of what could not be measured, as of a server that is not installed.
inline constexpr double missing = std::numeric_limits<double>::quiet_NaN();

struct Settings {
  bool is_quick = false;  ///< only to see that it works: the figures mean nothing

  [[nodiscard]] std::size_t count(std::size_t usual, std::size_t quick) const {
    return is_quick ? quick : usual;
  }
};

/// Takes the figures of one run of one case.
class Report {
 public:
  explicit Report(std::FILE* out) : out_(out) {}

  /// `name` must not hold a tab. `bar` says what is asked for, if anything is: `"≤ 1.25"`, with `<`, `≤`, `>` or `≥`.
  void add(std::string_view name, std::string_view unit, double value, std::string_view bar = "") {
    write("", name, unit, bar, value);
  }

  /// A figure of one of several that stand beside each other: `column` says whose it is, `name` what.
  void add_beside(std::string_view column, std::string_view name, std::string_view unit, double value) {
    write(column, name, unit, "", value);
  }

 private:
  void write(std::string_view column, std::string_view name, std::string_view unit, std::string_view bar,
             double value) {
    for (const std::string_view text : {column, name, unit, bar}) {
      std::fwrite(text.data(), 1, text.size(), out_);
      std::fputc('\t', out_);
    }
    std::fprintf(out_, "%.9g\n", value);
  }

  std::FILE* out_;
};

struct Case {
  std::string_view name;   ///< for `--case`
  std::string_view title;  ///< above its table
  void (*run)(const Settings&, Report&);
  bool is_on_one_cpu = false;  ///< everything the case starts stays on one CPU
  bool is_once = false;        ///< in the first run only, for it takes long
};

namespace detail {

/// One figure, over all runs.
struct Row {
  std::string column;  // whose, where several stand beside each other
  std::string name;
  std::string unit;
  std::string bar;
  std::vector<double> values;
};

inline void stay_on_one_cpu() {
  cpu_set_t allowed;
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0)
    throw std::runtime_error("sched_getaffinity failed");
  for (std::size_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    if (::sched_setaffinity(0, sizeof one, &one) != 0) throw std::runtime_error("sched_setaffinity failed");
    return;
  }
}

/// In a process of its own: memory, threads and connections of one run are not those of the next.
[[noreturn]] inline void run_here(const Case& what, const Settings& settings, int out) {
  // A run that hangs is a failure, too.
  ::alarm(300);
  std::FILE* file = ::fdopen(out, "w");
  try {
    if (what.is_on_one_cpu) stay_on_one_cpu();
    Report report(file);
    what.run(settings, report);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%.*s: %s\n", static_cast<int>(what.name.size()), what.name.data(), error.what());
    std::_Exit(1);
  }
  std::fclose(file);
  std::_Exit(0);
}

/// Adds what one run gives to `rows`.
inline void run_once(const Case& what, const Settings& settings, std::vector<Row>& rows) {
  int ends[2];
  if (::pipe(ends) != 0) throw std::runtime_error("pipe failed");
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) {
    ::close(ends[0]);
    run_here(what, settings, ends[1]);
  }
  ::close(ends[1]);
  std::string text;
  char chunk[4096];
  for (ssize_t size = 0; (size = ::read(ends[0], chunk, sizeof chunk)) > 0;) {
    text.append(chunk, static_cast<std::size_t>(size));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) throw std::runtime_error("the case '" + std::string(what.name) + "' failed");

  std::istringstream lines(text);
  for (std::string column, name, unit, bar, value;
       std::getline(lines, column, '\t') && std::getline(lines, name, '\t') &&
       std::getline(lines, unit, '\t') && std::getline(lines, bar, '\t') && std::getline(lines, value);) {
    auto row = std::find_if(rows.begin(), rows.end(),
                            [&](const Row& known) { return known.name == name && known.column == column; });
    if (row == rows.end()) row = rows.insert(rows.end(), Row{column, name, unit, bar, {}});
    row->values.push_back(std::stod(value));
  }
}

[[nodiscard]] inline std::string write_or_missing(double value) {
  return std::isnan(value) ? "not installed" : std::isinf(value) ? "never" : write_figure(value);
}

/// Whether a bar is met; nothing where it is none.
[[nodiscard]] inline std::optional<bool> is_met(const std::string& bar, double value) {
  const std::size_t space = bar.find(' ');
  if (space == std::string::npos) return std::nullopt;
  const std::string relation = bar.substr(0, space);
  std::string digits = bar.substr(space + 1);
  std::erase(digits, ',');
  const double limit = std::stod(digits);
  if (relation == "<") return value < limit;
  if (relation == "≤" || relation == "<=") return value <= limit;
  if (relation == ">") return value > limit;
  if (relation == "≥" || relation == ">=") return value >= limit;
  throw std::runtime_error("a bar that can't be read: " + bar);
}

/// Appends the rows with a bar to `file`, as rows of a Markdown table: case, what, median, min, max, bar, met or not.
inline void append_bars(const char* path, const Case& what, const std::vector<Row>& rows) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "a"), std::fclose);
  if (!file) throw std::runtime_error(std::string("can't write ") + path);
  for (const Row& row : rows) {
    const double value = median(row.values);
    const std::optional<bool> met = is_met(row.bar, value);
    if (!met) continue;
    const auto [min, max] = std::minmax_element(row.values.begin(), row.values.end());
    std::fprintf(file.get(), "| %.*s: %s | %s | %s | %s | %s | %s |\n", static_cast<int>(what.title.size()),
                 what.title.data(), row.name.c_str(), write_or_missing(value).c_str(),
                 write_or_missing(*min).c_str(), write_or_missing(*max).c_str(), row.bar.c_str(),
                 *met ? "met" : "**not met**");
  }
}

/// `median (min to max)`, the latter where there are several.
[[nodiscard]] inline std::string write_cell(const Row& row) {
  const auto [min, max] = std::minmax_element(row.values.begin(), row.values.end());
  const std::string middle = write_or_missing(median(row.values));
  if (row.values.size() == 1 || std::isnan(*min)) return middle;
  return middle + " (" + write_figure(*min) + " to " + write_figure(*max) + ")";
}

/// Those with a column: what is measured downwards, whose it is beside each other.
inline void print_columns(const std::vector<Row>& rows) {
  std::vector<std::string> columns;
  std::vector<std::pair<std::string, std::string>> names;
  for (const Row& row : rows) {
    if (row.column.empty()) continue;
    if (std::find(columns.begin(), columns.end(), row.column) == columns.end()) columns.push_back(row.column);
    const std::pair name(row.name, row.unit);
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  if (columns.empty()) return;
  std::printf("\n| | unit |");
  for (const std::string& column : columns) std::printf(" %s |", column.c_str());
  std::printf("\n| --- | --- |");
  for (std::size_t i = 0; i < columns.size(); ++i) std::printf(" ---: |");
  std::printf("\n");
  for (const auto& [name, unit] : names) {
    std::printf("| %s | %s |", name.c_str(), unit.c_str());
    for (const std::string& column : columns) {
      const auto cell = std::find_if(rows.begin(), rows.end(), [&, what = &name](const Row& row) {
        return row.column == column && row.name == *what;
      });
      std::printf(" %s |", cell == rows.end() ? "" : write_cell(*cell).c_str());
    }
    std::printf("\n");
  }
}

inline void print_table(const Case& what, const std::vector<Row>& rows) {
  std::printf("\n### %.*s\n", static_cast<int>(what.title.size()), what.title.data());
  print_columns(rows);
  bool is_first = true;
  for (const Row& row : rows) {
    if (!row.column.empty()) continue;
    if (std::exchange(is_first, false)) {
      std::printf(
          "\n| | unit | median | min | max | asked for |\n| --- | --- | ---: | ---: | ---: | --- |\n");
    }
    const auto [min, max] = std::minmax_element(row.values.begin(), row.values.end());
    std::printf("| %s | %s | %s | %s | %s | %s |\n", row.name.c_str(), row.unit.c_str(),
                write_or_missing(median(row.values)).c_str(), write_or_missing(*min).c_str(),
                write_or_missing(*max).c_str(), row.bar.c_str());
  }
}

inline int print_usage(const char* program, const std::vector<Case>& cases) {
  std::printf(
      "usage: %s [--quick] [--runs N] [--bars FILE] [--case NAME]...\n\n"
      "  --quick      one short run of everything, to see that it works; the figures mean nothing\n"
      "  --runs N     how often each case is run, in turn with the others; 5 if not said\n"
      "  --bars FILE  appends what is asked for, and whether it is met, to this file\n"
      "  --case NAME  only this one; one of:",
      program);
  for (const Case& one : cases) std::printf(" %.*s", static_cast<int>(one.name.size()), one.name.data());
  std::printf("\n");
  return 2;
}

}  // namespace detail

/// The `main` of a benchmark program: runs every case, in turn, as often as asked, and prints a table of
/// each.
inline int run_benchmarks(int argc, char** argv, const std::vector<Case>& cases) {
  Settings settings;
  std::size_t runs = 5;
  const char* bars = nullptr;
  std::vector<std::string_view> wanted;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == "--quick") {
      settings.is_quick = true;
      runs = 1;
    } else if (argument == "--runs" && i + 1 < argc && std::atoi(argv[i + 1]) > 0) {
      runs = static_cast<std::size_t>(std::atoi(argv[++i]));
    } else if (argument == "--bars" && i + 1 < argc) {
      bars = argv[++i];
    } else if (argument == "--case" && i + 1 < argc &&
               std::any_of(cases.begin(), cases.end(),
                           [&](const Case& c) { return c.name == argv[i + 1]; })) {
      wanted.emplace_back(argv[++i]);
    } else {
      return detail::print_usage(argv[0], cases);
    }
  }

  // A connection is a descriptor, and the usual limit is lower than what a server is made for.
  rlimit descriptors{};
  if (::getrlimit(RLIMIT_NOFILE, &descriptors) == 0) {
    descriptors.rlim_cur = descriptors.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &descriptors);
  }

  std::vector<std::vector<detail::Row>> rows(cases.size());
  try {
    for (std::size_t run = 0; run < runs; ++run) {
      for (std::size_t i = 0; i < cases.size(); ++i) {
        if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), cases[i].name) == wanted.end())
          continue;
        if (cases[i].is_once && run > 0) continue;
        std::fprintf(stderr, "run %zu of %zu: %.*s\n", run + 1, runs, static_cast<int>(cases[i].name.size()),
                     cases[i].name.data());
        detail::run_once(cases[i], settings, rows[i]);
      }
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (rows[i].empty()) continue;
    detail::print_table(cases[i], rows[i]);
    if (bars != nullptr) detail::append_bars(bars, cases[i], rows[i]);
  }
  return 0;
}

}  // namespace benchmarks

#endif
