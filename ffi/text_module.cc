// Python's side of text.h: bytes and arrays in, arrays out, no lock held while working.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

#include "text.h"

namespace nb = nanobind;

namespace fsparse {
namespace {

using Offsets = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A numpy array that owns the vector's memory.
template <typename T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> Array(std::vector<T> values) {
  auto* owned = new std::vector<T>(std::move(values));
  nb::capsule owner(owned,
                    [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return nb::ndarray<nb::numpy, T, nb::ndim<1>>(owned->data(), {owned->size()}, owner);
}

nb::tuple Arrays(TextRows rows) {
  return nb::make_tuple(Array(std::move(rows.indptr)), Array(std::move(rows.ids)),
                        Array(std::move(rows.values)));
}

void CheckOffsets(const nb::bytes& text, const Offsets& offsets) {
  const int64_t* v = offsets.data();
  const size_t count = offsets.shape(0);
  bool good = count > 0 && v[0] >= 0 && v[count - 1] <= int64_t(text.size());
  for (size_t i = 1; good && i < count; ++i) good = v[i - 1] <= v[i];
  if (!good) throw std::invalid_argument("offsets must rise within the text.");
}

void CheckPositive(int value, const char* name) {
  if (value < 1) {
    throw std::invalid_argument(std::string(name) + " must be positive, got " +
                                std::to_string(value) + ".");
  }
}

nb::tuple CharNgrams(nb::bytes text, Offsets offsets, int min_n, int max_n,
                     int32_t num_features, uint64_t seed) {
  CheckOffsets(text, offsets);
  CheckPositive(min_n, "min_n");
  CheckPositive(max_n, "max_n");
  CheckPositive(num_features, "num_features");
  TextRows rows;
  {
    nb::gil_scoped_release unlocked;
    rows = HashCharNgrams(text.c_str(), offsets.data(), offsets.shape(0) - 1, min_n,
                          max_n, num_features, seed);
  }
  return Arrays(std::move(rows));
}

nb::tuple Words(nb::bytes text, Offsets offsets, int max_n, int32_t num_features,
                uint64_t seed) {
  CheckOffsets(text, offsets);
  CheckPositive(max_n, "max_n");
  CheckPositive(num_features, "num_features");
  TextRows rows;
  {
    nb::gil_scoped_release unlocked;
    rows = HashWords(text.c_str(), offsets.data(), offsets.shape(0) - 1, max_n,
                     num_features, seed);
  }
  return Arrays(std::move(rows));
}

nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>> Strings(nb::bytes text, Offsets offsets) {
  CheckOffsets(text, offsets);
  std::vector<uint64_t> hashes;
  {
    nb::gil_scoped_release unlocked;
    hashes = HashStrings(text.c_str(), offsets.data(), offsets.shape(0) - 1);
  }
  return Array(std::move(hashes));
}

nb::tuple Xc(nb::bytes chunk, int32_t num_features, int32_t num_labels,
             int64_t first_line) {
  XcRows rows;
  {
    nb::gil_scoped_release unlocked;
    rows = ParseXc(chunk.c_str(), static_cast<int64_t>(chunk.size()), num_features,
                   num_labels, first_line);
  }
  nb::list errors;
  for (const auto& [line, message] : rows.errors) {
    errors.append(nb::make_tuple(line, nb::str(message.c_str(), message.size())));
  }
  return nb::make_tuple(
      Array(std::move(rows.label_indptr)), Array(std::move(rows.label_ids)),
      Array(std::move(rows.features.indptr)), Array(std::move(rows.features.ids)),
      Array(std::move(rows.features.values)), errors);
}

}  // namespace

void DefineText(nb::module_& m) {
  m.def("hash_char_ngrams", &CharNgrams, nb::arg("text"), nb::arg("offsets"),
        nb::arg("min_n"), nb::arg("max_n"), nb::arg("num_features"), nb::arg("seed"));
  m.def("hash_words", &Words, nb::arg("text"), nb::arg("offsets"), nb::arg("max_n"),
        nb::arg("num_features"), nb::arg("seed"));
  m.def("hash_strings", &Strings, nb::arg("text"), nb::arg("offsets"));
  m.def("parse_xc", &Xc, nb::arg("chunk"), nb::arg("num_features"),
        nb::arg("num_labels"), nb::arg("first_line"));
}

}  // namespace fsparse
