#include "buckets.h"

#include <algorithm>
#include <vector>

namespace fsparse {

void Buckets::Build(const uint16_t* codes, int64_t num_rows) {
  std::fill(sizes, sizes + num_buckets, 0);
  int64_t total = 0;
  for (int64_t i = 0; i < num_rows; ++i) {
    if (codes[i] >= num_buckets) continue;
    ++sizes[codes[i]];
    ++total;
  }
  const int64_t each = (capacity - total) / num_buckets;
  const int64_t rest = (capacity - total) % num_buckets;
  std::vector<int32_t> next(num_buckets);
  int64_t at = 0;
  for (int64_t c = 0; c < num_buckets; ++c) {
    next[c] = starts[c] = static_cast<int32_t>(at);
    at += sizes[c] + each + (c < rest);
  }
  starts[num_buckets] = static_cast<int32_t>(capacity);
  std::fill(entries, entries + capacity, padding);
  for (int64_t i = 0; i < num_rows; ++i) {
    if (codes[i] < num_buckets) entries[next[codes[i]]++] = static_cast<int32_t>(i);
  }
}

int64_t Buckets::Find(int64_t c, int32_t id) const {
  constexpr int64_t kGroup = 32;
  if (!IsSound(c)) return -1;
  const int64_t end = starts[c] + sizes[c];
  for (int64_t i = starts[c]; i < end; i += kGroup) {
    const int64_t stop = std::min(i + kGroup, end);
    int found = 0;
    for (int64_t j = i; j < stop; ++j) found |= entries[j] == id;
    if (found) return std::find(entries + i, entries + stop, id) - entries;
  }
  return -1;
}

bool Buckets::Remove(int64_t c, int32_t id) {
  const int64_t at = Find(c, id);
  if (at < 0) return false;
  const int64_t last = starts[c] + --sizes[c];
  entries[at] = entries[last];
  entries[last] = padding;
  return true;
}

bool Buckets::Insert(int64_t c, int32_t id) {
  if (!IsSound(c) || (!HasRoom(c) && !MakeRoom(c))) return false;
  entries[starts[c] + sizes[c]++] = id;
  return true;
}

bool Buckets::MakeRoom(int64_t c) {
  for (int64_t hops = 1; hops < num_buckets; ++hops) {
    const int64_t left = c - hops, right = c + hops;
    if ((left >= 0 && !IsSound(left)) || (right < num_buckets && !IsSound(right))) {
      return false;  // what lies behind it would be written to through it
    }
    if (right < num_buckets && HasRoom(right)) {
      for (int64_t j = right; j > c; --j) {  // first entries go to the ends
        std::swap(entries[starts[j]], entries[starts[j] + sizes[j]]);
        ++starts[j];
      }
      return true;
    }
    if (left >= 0 && HasRoom(left)) {
      for (int64_t j = left + 1; j <= c; ++j) {  // last entries go to the fronts
        --starts[j];
        std::swap(entries[starts[j]], entries[starts[j] + sizes[j]]);
      }
      return true;
    }
  }
  return false;
}

void TableState::Move(int32_t id, uint16_t code) {
  const uint16_t old = codes[id];
  if (old == code) return;
  if (old < buckets.num_buckets) buckets.Remove(old, id);
  codes[id] = code;
  if (code >= buckets.num_buckets) return;
  if (*num_inserted > 0 && buckets.Find(code, id) >= 0) {
    --*num_inserted;  // what was inserted is now where the row belongs
  } else if (!buckets.Insert(code, id)) {
    ++*num_lost;
  }
}

void TableState::InsertEntry(int32_t id, uint16_t code, int32_t most) {
  if (code >= buckets.num_buckets || buckets.Find(code, id) >= 0) return;
  if (*num_inserted < most && buckets.Insert(code, id)) {
    ++*num_inserted;
  } else {
    ++*num_lost;
  }
}

}  // namespace fsparse
