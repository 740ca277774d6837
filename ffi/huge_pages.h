// Where arrays lie in memory: pages of 2 MiB in place of 4 KiB.
#ifndef FSPARSE_HUGE_PAGES_H_
#define FSPARSE_HUGE_PAGES_H_

#include <cstdint>

namespace fsparse {

// Makes huge pages, of `page` bytes each, of those that lie whole in the range. What
// they hold stays where it is, and may be read and written meanwhile. Returns the bytes
// of those that the system made.
int64_t UseHugePages(uintptr_t begin, int64_t num_bytes, int64_t page);

}  // namespace fsparse

#endif  // FSPARSE_HUGE_PAGES_H_
