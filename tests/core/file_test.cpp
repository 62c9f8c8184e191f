// Mapped reading and atomic writing, with every way the user's disk can be in the way.
#include "core/file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "core/error.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

/// The code and the message of what `body` throws.
std::pair<ErrorCode, std::string> error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  ADD_FAILURE() << "nothing was thrown";
  return {ErrorCode::internal, ""};
}

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder = fs::temp_directory_path() / ("octet_" + std::string(test->name()) + std::to_string(::getpid()));
    fs::create_directories(folder);
  }
  void TearDown() override {
    std::error_code ignored;
    fs::permissions(folder, fs::perms::owner_all, ignored);
    fs::remove_all(folder, ignored);
  }
  int entries() const {
    return static_cast<int>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
  }
  fs::path folder;
};

void put(const fs::path& path, const std::string& text) {
  FileWriter writer(path);
  writer.write(text);
  writer.commit();
}

TEST_F(Files, ReleasedPagesKeepTheirBytes) {
  const std::string text(100'000, 'x');
  put(folder / "a", text);
  MappedFile file = map_file(folder / "a");
  release_pages(file.bytes.data() + 10, 90'000);
  release_pages(file.bytes.data(), file.bytes.size());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()), text);
  // Memory of another kind must not be touched: dropping its pages would zero them.
  std::vector<char> own(100'000, 'y');
  release_pages(own.data(), own.size());
  EXPECT_EQ(own, std::vector<char>(100'000, 'y'));
}

TEST_F(Files, RoundTrip) {
  put(folder / "a", "first");
  put(folder / "a", "second");
  EXPECT_EQ(read_text(folder / "a"), "second");
  EXPECT_EQ(entries(), 1) << "no temporary file stays";
}

TEST_F(Files, EmptyFile) {
  put(folder / "a", "");
  EXPECT_EQ(read_text(folder / "a"), "");
  EXPECT_TRUE(map_file(folder / "a").bytes.empty());
}

TEST_F(Files, MappingOutlivesTheFile) {
  put(folder / "a", "content");
  MappedFile mapped = map_file(folder / "a");
  fs::remove(folder / "a");
  EXPECT_EQ(static_cast<char>(mapped.bytes[0]), 'c');
}

TEST_F(Files, WithoutCommitTheOldFileStays) {
  put(folder / "a", "old");
  {
    FileWriter writer(folder / "a");
    writer.write("half of the n");
  }
  EXPECT_EQ(read_text(folder / "a"), "old");
  EXPECT_EQ(entries(), 1);
}

TEST_F(Files, ReadingReportsWhatIsWrong) {
  auto [missing, missing_text] = error_of([&] { map_file(folder / "nothing"); });
  EXPECT_EQ(missing, ErrorCode::not_found);
  EXPECT_NE(missing_text.find("nothing"), std::string::npos);
  auto [directory, directory_text] = error_of([&] { map_file(folder); });
  EXPECT_EQ(directory, ErrorCode::invalid_argument);
  EXPECT_NE(directory_text.find("got a directory"), std::string::npos);
  put(folder / "a", "x");
  EXPECT_EQ(error_of([&] { map_file(folder / "a" / "below_a_file"); }).first, ErrorCode::not_found);
}

TEST_F(Files, WritingReportsWhatIsWrong) {
  EXPECT_EQ(error_of([&] { FileWriter writer(folder); }).first, ErrorCode::invalid_argument);
  EXPECT_EQ(error_of([&] { FileWriter writer(folder / "no" / "such" / "folder"); }).first, ErrorCode::not_found);
}

TEST_F(Files, UnwritableFolder) {
  fs::permissions(folder, fs::perms::owner_read | fs::perms::owner_exec);
  // Root may write anywhere, so it becomes nobody for one call.
  bool root = ::geteuid() == 0;
  if (root && ::seteuid(65534) != 0) GTEST_SKIP() << "cannot give up root's rights here";
  fs::path target = folder / "a";
  auto [code, text] = error_of([&] { FileWriter writer(target); });
  if (root) {
    ASSERT_EQ(::seteuid(0), 0);
  }
  EXPECT_EQ(code, ErrorCode::io);
  EXPECT_NE(text.find("permissions"), std::string::npos);
}

// A file size limit stands for a full disk: write() fails half way.
TEST_F(Files, DiskFullKeepsTheOldFile) {
  put(folder / "a", "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit small{4096, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  auto [code, text] = error_of([&] {
    FileWriter writer(folder / "a");
    writer.write(std::string(100000, 'x'));
    writer.commit();
  });
  ::setrlimit(RLIMIT_FSIZE, &before);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_EQ(code, ErrorCode::io);
  EXPECT_EQ(read_text(folder / "a"), "old");
  EXPECT_EQ(entries(), 1);
}

// A device is written to, never replaced by a file.
TEST_F(Files, FullDeviceSaysSo) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full here";
  auto [code, text] = error_of([] {
    FileWriter writer("/dev/full");
    writer.write("x");
    writer.commit();
  });
  EXPECT_EQ(code, ErrorCode::io);
  EXPECT_NE(text.find("free some space"), std::string::npos) << text;
  EXPECT_TRUE(fs::is_character_file("/dev/full"));
}

TEST_F(Files, NullDeviceSwallows) {
  put("/dev/null", "x");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST_F(Files, ALinkIsWrittenThrough) {
  put(folder / "target", "old");
  fs::create_symlink("target", folder / "link");
  put(folder / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(read_text(folder / "target"), "new");
}

}  // namespace
}  // namespace octet
