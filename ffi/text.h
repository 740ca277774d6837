// Host-side text: strings to rows of hashed features, and a parser of sparse files.
#ifndef FSPARSE_FFI_TEXT_H_
#define FSPARSE_FFI_TEXT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace fsparse {

// Row r holds entries indptr[r] .. indptr[r + 1] of ids and values.
struct TextRows {
  std::vector<int64_t> indptr{0};
  std::vector<int32_t> ids;
  std::vector<float> values;
};

// The feature of an n-gram of bytes:
//   h = 0xcbf29ce484222325 ^ fmix64(seed)               FNV-1a, 64 bits
//   for byte in ngram: h = (h ^ byte) * 0x100000001b3
//   id = (fmix64(h) >> 32) * num_features >> 32         murmur3's finaliser
// where fmix64(h) does h ^= h >> 33, h *= 0xff51afd7ed558ccd, h ^= h >> 33,
// h *= 0xc4ceb9fe1a85ec53, h ^= h >> 33.
//
// The functions below take m strings, text[offsets[r] .. offsets[r + 1]). The first two
// return m rows of ascending ids with the number of times each occurs.

// for r in range(m):
//   points = [0x02] + code points of string r + [0x03]
//   for n in min_n .. max_n: count every n consecutive points that are not markers only
TextRows HashCharNgrams(const char* text, const int64_t* offsets, int64_t m, int min_n,
                        int max_n, int32_t num_features, uint64_t seed);

// for r in range(m):
//   words = runs of ASCII letters, digits and bytes >= 0x80, ASCII in lower case
//   for n in 1 .. max_n: count " ".join of every n consecutive words
TextRows HashWords(const char* text, const int64_t* offsets, int64_t m, int max_n,
                   int32_t num_features, uint64_t seed);

// One number a string: hashes[r] = fmix64(h), h as above with no fmix64(seed) in it.
std::vector<uint64_t> HashStrings(const char* text, const int64_t* offsets, int64_t m);

struct XcRows {
  std::vector<int64_t> label_indptr{0};
  std::vector<int32_t> label_ids;
  TextRows features;
  std::vector<std::pair<int64_t, std::string>> errors;  // line number, what is wrong
};

// Parses lines of `label,label,... id:value id:value ...`, one example a line.
//
// A line without labels starts with a space; an empty line is no example. Values are
// rounded as float32(float(token)) is in Python. A malformed line leaves one error
// and no example. Lines are numbered from first_line. Nothing beyond size is read.
XcRows ParseXc(const char* text, int64_t size, int32_t num_features, int32_t num_labels,
               int64_t first_line);

}  // namespace fsparse

#endif  // FSPARSE_FFI_TEXT_H_
