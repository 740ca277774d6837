#include "text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>

namespace fsparse {
namespace {

constexpr uint64_t kFnvBasis = 0xcbf29ce484222325;
constexpr uint64_t kFnvPrime = 0x100000001b3;
constexpr unsigned char kBegin = 0x02;
constexpr unsigned char kEnd = 0x03;

uint64_t Mix(uint64_t h) {
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccd;
  h = (h ^ (h >> 33)) * 0xc4ceb9fe1a85ec53;
  return h ^ (h >> 33);
}

uint64_t Fnv(uint64_t h, unsigned char byte) { return (h ^ byte) * kFnvPrime; }

// Collects the features of one row, then merges equal ones into counts.
class RowBuilder {
 public:
  RowBuilder(int32_t num_features, TextRows* rows)
      : num_features_(num_features), rows_(rows) {}

  void Add(uint64_t hash) {
    row_.push_back(static_cast<int32_t>((Mix(hash) >> 32) * num_features_ >> 32));
  }

  void FinishRow() {
    std::sort(row_.begin(), row_.end());
    for (size_t i = 0, j; i < row_.size(); i = j) {
      for (j = i + 1; j < row_.size() && row_[j] == row_[i];) ++j;
      rows_->ids.push_back(row_[i]);
      rows_->values.push_back(static_cast<float>(j - i));
    }
    rows_->indptr.push_back(static_cast<int64_t>(rows_->ids.size()));
    row_.clear();
  }

 private:
  uint64_t num_features_;
  TextRows* rows_;
  std::vector<int32_t> row_;
};

bool StartsPoint(unsigned char byte) { return (byte & 0xC0) != 0x80; }

// Where each point of `bytes` begins, and where the last one ends.
void FindPoints(const std::vector<unsigned char>& bytes, std::vector<size_t>* starts) {
  starts->clear();
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (StartsPoint(bytes[i])) starts->push_back(i);
  }
  starts->push_back(bytes.size());
}

// Entries before merging, for one allocation: pages that stay unused cost nothing.
size_t CountCharNgrams(const char* text, const int64_t* offsets, int64_t m, int min_n,
                       int max_n) {
  size_t total = 0;
  for (int64_t r = 0; r < m; ++r) {
    const int64_t points =
        2 + std::count_if(text + offsets[r], text + offsets[r + 1], StartsPoint);
    const int64_t longest = std::min<int64_t>(max_n, points);
    for (int64_t n = min_n; n <= longest; ++n) total += points + 1 - n;
  }
  return total;
}

bool IsWordByte(unsigned char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         c >= 0x80;
}

unsigned char Lower(unsigned char c) { return c >= 'A' && c <= 'Z' ? c | 0x20 : c; }

struct Span {
  const char* begin;
  const char* end;
};

void FindWords(const char* p, const char* end, std::vector<Span>* words) {
  words->clear();
  while (p < end) {
    const char* begin = p;
    while (p < end && IsWordByte(*p)) ++p;
    if (p > begin) {
      words->push_back({begin, p});
    } else {
      ++p;
    }
  }
}

}  // namespace

TextRows HashCharNgrams(const char* text, const int64_t* offsets, int64_t m, int min_n,
                        int max_n, int32_t num_features, uint64_t seed) {
  TextRows rows;
  const size_t capacity = CountCharNgrams(text, offsets, m, min_n, max_n);
  rows.ids.reserve(capacity);
  rows.values.reserve(capacity);
  rows.indptr.reserve(m + 1);
  RowBuilder builder(num_features, &rows);
  std::vector<unsigned char> bytes;
  std::vector<size_t> starts;
  for (int64_t r = 0; r < m; ++r) {
    bytes.assign(1, kBegin);
    bytes.insert(bytes.end(), text + offsets[r], text + offsets[r + 1]);
    bytes.push_back(kEnd);
    FindPoints(bytes, &starts);
    const size_t points = starts.size() - 1;
    for (size_t i = 0; points > 2 && i < points; ++i) {
      const size_t last = std::min<size_t>(points, i + max_n);
      uint64_t h = kFnvBasis ^ Mix(seed);
      for (size_t j = i; j < last; ++j) {
        for (size_t k = starts[j]; k < starts[j + 1]; ++k) h = Fnv(h, bytes[k]);
        const bool marker_only = i == j && (i == 0 || i == points - 1);
        if (j + 1 >= i + min_n && !marker_only) builder.Add(h);
      }
    }
    builder.FinishRow();
  }
  return rows;
}

TextRows HashWords(const char* text, const int64_t* offsets, int64_t m, int max_n,
                   int32_t num_features, uint64_t seed) {
  TextRows rows;
  rows.indptr.reserve(m + 1);
  RowBuilder builder(num_features, &rows);
  std::vector<Span> words;
  for (int64_t r = 0; r < m; ++r) {
    FindWords(text + offsets[r], text + offsets[r + 1], &words);
    for (size_t i = 0; i < words.size(); ++i) {
      const size_t last = std::min<size_t>(words.size(), i + max_n);
      uint64_t h = kFnvBasis ^ Mix(seed);
      for (size_t j = i; j < last; ++j) {
        if (j > i) h = Fnv(h, ' ');
        for (const char* p = words[j].begin; p < words[j].end; ++p) {
          h = Fnv(h, Lower(*p));
        }
        builder.Add(h);
      }
    }
    builder.FinishRow();
  }
  return rows;
}

std::vector<uint64_t> HashStrings(const char* text, const int64_t* offsets, int64_t m) {
  std::vector<uint64_t> hashes(m);
  for (int64_t r = 0; r < m; ++r) {
    uint64_t h = kFnvBasis;
    for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i) h = Fnv(h, text[i]);
    hashes[r] = Mix(h);
  }
  return hashes;
}

namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsSpace(char c) { return c == ' ' || c == '\t'; }

// The token at p, in quotes, in printable ASCII and not too long for a message.
std::string Quote(const char* p, const char* end) {
  constexpr int kMaxLength = 32;
  std::string quoted = "'";
  for (int i = 0; p < end && !IsSpace(*p); ++p, ++i) {
    if (i == kMaxLength) {
      quoted += "...";
      break;
    }
    if (*p >= ' ' && *p <= '~') {
      quoted += *p;
    } else {
      const unsigned char c = *p;
      quoted += "\\x";
      quoted += "0123456789abcdef"[c >> 4];
      quoted += "0123456789abcdef"[c & 15];
    }
  }
  return quoted + "'";
}

// Values up to 2**53 times a power of ten that is a double too: one rounding.
constexpr uint64_t kMaxExactMantissa = uint64_t{1} << 53;
constexpr double kExactPowers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr int64_t kMaxExactPower = 22;
constexpr int64_t kMaxDigits = 19;  // 10**19 - 1 fits in 64 bits
constexpr int64_t kFarPower = 60;   // float32 ends at 1e39 and at 1e-46

// An unsigned decimal: value = mantissa * 10**exponent if digits <= kMaxDigits.
struct Decimal {
  uint64_t mantissa = 0;
  int64_t digits = 0;  // significant ones
  int64_t exponent = 0;

  void Push(char c) {
    mantissa = mantissa * 10 + (c - '0');
    digits += digits > 0 || c != '0';
  }
};

// Past the exponent at p, or p where there is none: `1e` is `1` and a stray `e`.
const char* ScanExponent(const char* p, const char* end, int64_t* exponent) {
  const char* q = p;
  if (q == end || (*q != 'e' && *q != 'E')) return p;
  ++q;
  const bool negative = q < end && *q == '-';
  if (q < end && (*q == '-' || *q == '+')) ++q;
  if (q == end || !IsDigit(*q)) return p;
  int64_t power = 0;
  for (; q < end && IsDigit(*q); ++q) {
    // Capped far beyond any count of digits that could make up for it.
    power = std::min<int64_t>(power * 10 + (*q - '0'), int64_t{1} << 58);
  }
  *exponent += negative ? -power : power;
  return q;
}

// Past the decimal at p, or null if there is no digit.
const char* ScanDecimal(const char* p, const char* end, Decimal* decimal) {
  const char* digits = p;
  for (; p < end && IsDigit(*p); ++p) decimal->Push(*p);
  int64_t count = p - digits;
  if (p < end && *p == '.') {
    digits = ++p;
    for (; p < end && IsDigit(*p); ++p) decimal->Push(*p);
    decimal->exponent = digits - p;
    count += p - digits;
  }
  return count ? ScanExponent(p, end, &decimal->exponent) : nullptr;
}

double ToDouble(const Decimal& d, const char* begin, const char* end) {
  if (d.digits == 0 || d.digits + d.exponent < -kFarPower) return 0;
  if (d.digits + d.exponent > kFarPower) return std::numeric_limits<double>::infinity();
  if (d.digits <= kMaxDigits && d.mantissa <= kMaxExactMantissa) {
    const double mantissa = static_cast<double>(d.mantissa);
    if (d.exponent >= 0 && d.exponent <= kMaxExactPower) {
      return mantissa * kExactPowers[d.exponent];
    }
    if (d.exponent < 0 && -d.exponent <= kMaxExactPower) {
      return mantissa / kExactPowers[-d.exponent];
    }
  }
  double value = 0;
  std::from_chars(begin, end, value);
  return value;
}

// Past the number at p, or null if there is none.
const char* ParseFloat(const char* p, const char* end, float* value) {
  const bool negative = p < end && *p == '-';
  if (p < end && (*p == '-' || *p == '+')) ++p;
  Decimal decimal;
  const char* stop = ScanDecimal(p, end, &decimal);
  if (!stop) return nullptr;
  // Rounded twice, to double and to float, as Python and numpy do.
  const double magnitude = ToDouble(decimal, p, stop);
  *value = static_cast<float>(negative ? -magnitude : magnitude);
  return stop;
}

bool IsNotFinite(const char* p, const char* end) {
  if (p < end && (*p == '-' || *p == '+')) ++p;
  if (end - p < 3) return false;
  char word[3];
  std::transform(p, p + 3, word, Lower);
  return !std::memcmp(word, "nan", 3) || !std::memcmp(word, "inf", 3);
}

// Parses one line; `error` says what is wrong with it.
class LineParser {
 public:
  LineParser(const char* begin, const char* end) : p_(begin), end_(end) {}

  bool Parse(int32_t num_features, int32_t num_labels, XcRows* rows) {
    return ParseLabels(num_labels, rows) && ParseFeatures(num_features, rows);
  }

  std::string error;

 private:
  bool ParseLabels(int32_t num_labels, XcRows* rows) {
    if (p_ == end_ || IsSpace(*p_)) return true;
    for (;; ++p_) {
      int32_t id;
      if (!ParseId("label", num_labels, &id)) return false;
      rows->label_ids.push_back(id);
      if (p_ == end_ || IsSpace(*p_)) return true;
      if (*p_ != ',') return Fail("expected ',' or ' ' after a label, got ", p_);
    }
  }

  bool ParseFeatures(int32_t num_features, XcRows* rows) {
    for (;;) {
      while (p_ < end_ && IsSpace(*p_)) ++p_;
      if (p_ == end_) return true;
      int32_t id;
      float value;
      if (!ParseId("feature", num_features, &id)) return false;
      if (p_ == end_ || *p_ != ':')
        return Fail("expected ':' after a feature, got ", p_);
      ++p_;
      if (!ParseValue(&value)) return false;
      rows->features.ids.push_back(id);
      rows->features.values.push_back(value);
    }
  }

  bool ParseId(const char* kind, int32_t bound, int32_t* id) {
    const char* begin = p_;
    const bool negative = p_ < end_ && *p_ == '-';
    if (negative) ++p_;
    const char* digits = p_;
    int64_t value = 0;
    for (; p_ < end_ && IsDigit(*p_); ++p_) {
      value = std::min<int64_t>(value * 10 + (*p_ - '0'), int64_t{1} << 32);
    }
    const std::string name = kind;
    if (p_ == digits) return Fail("expected a " + name + " id, got ", begin);
    if (negative) return Fail("a " + name + " id must not be negative, got ", begin);
    if (value >= bound) {
      error = name + " id must be less than " + std::to_string(bound) + ", got " +
              Quote(begin, p_);
      return false;
    }
    *id = static_cast<int32_t>(value);
    return true;
  }

  bool ParseValue(float* value) {
    const char* begin = p_;
    const char* stop = ParseFloat(p_, end_, value);
    if (stop ? !std::isfinite(*value) : IsNotFinite(begin, end_)) {
      return Fail("a value must be finite in float32, got ", begin);
    }
    if (!stop) return Fail("expected a number after ':', got ", begin);
    if (stop < end_ && !IsSpace(*stop)) {
      return Fail("expected ' ' after a number, got ", stop);
    }
    p_ = stop;
    return true;
  }

  bool Fail(const std::string& message, const char* token) {
    error = message + (token == end_ ? "the end of the line" : Quote(token, end_));
    return false;
  }

  const char* p_;
  const char* end_;
};

}  // namespace

XcRows ParseXc(const char* text, int64_t size, int32_t num_features, int32_t num_labels,
               int64_t first_line) {
  XcRows rows;
  const char* const end = text + size;
  for (int64_t number = first_line; text < end; ++number) {
    const void* newline = std::memchr(text, '\n', end - text);
    const char* stop = newline ? static_cast<const char*>(newline) : end;
    const char* next = newline ? stop + 1 : end;
    if (stop > text && stop[-1] == '\r') --stop;
    if (stop > text) {
      LineParser parser(text, stop);
      if (parser.Parse(num_features, num_labels, &rows)) {
        rows.label_indptr.push_back(static_cast<int64_t>(rows.label_ids.size()));
        rows.features.indptr.push_back(static_cast<int64_t>(rows.features.ids.size()));
      } else {
        rows.label_ids.resize(rows.label_indptr.back());
        rows.features.ids.resize(rows.features.indptr.back());
        rows.features.values.resize(rows.features.indptr.back());
        rows.errors.emplace_back(number, std::move(parser.error));
      }
    }
    text = next;
  }
  return rows;
}

}  // namespace fsparse
