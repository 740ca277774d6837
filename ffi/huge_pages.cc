#include "huge_pages.h"

#ifdef __linux__
#include <sys/mman.h>

#include <cerrno>
#endif

namespace fsparse {

#ifdef __linux__

namespace {

constexpr int kCollapse = 25;  // MADV_COLLAPSE, which older headers lack
constexpr int kTries = 3;      // since others may hold a page for a moment

bool Collapse(void* memory, int64_t page) {
  madvise(memory, page, MADV_HUGEPAGE);
  for (int i = 0; i < kTries; ++i) {
    if (madvise(memory, page, kCollapse) == 0) return true;
    if (errno != EAGAIN && errno != EBUSY) return false;
  }
  return false;
}

}  // namespace

int64_t UseHugePages(uintptr_t begin, int64_t num_bytes, int64_t page) {
  const uintptr_t end = (begin + num_bytes) / page * page;
  int64_t made = 0;
  for (uintptr_t at = (begin + page - 1) / page * page; at < end; at += page) {
    if (Collapse(reinterpret_cast<void*>(at), page)) made += page;
  }
  return made;
}

#else

int64_t UseHugePages(uintptr_t, int64_t, int64_t) { return 0; }

#endif

}  // namespace fsparse
