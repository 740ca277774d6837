// What this machine can do: bytes from memory and operations in registers, a second.
// Compiled by roofline.py for the machine it runs on; no part of the library.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined(__AVX512F__)
constexpr int kBytes = 64, kSums = 16;
#define KEEP_IN_REGISTER(v) asm volatile("" : "+v"(v))
#elif defined(__AVX__)
constexpr int kBytes = 32, kSums = 10;
#define KEEP_IN_REGISTER(v) asm volatile("" : "+x"(v))
#elif defined(__aarch64__)
constexpr int kBytes = 16, kSums = 16;
#define KEEP_IN_REGISTER(v) asm volatile("" : "+w"(v))
#else
constexpr int kBytes = 16, kSums = 10;
#define KEEP_IN_REGISTER(v) asm volatile("" : "+x"(v))
#endif
typedef float Vector __attribute__((vector_size(kBytes), aligned(4)));
constexpr int kLanes = kBytes / 4;

void on_threads(int threads, const std::function<void(int)>& body) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back(body, t);
  body(0);
  for (auto& other : others) other.join();
}

Vector load(const float* p) {
  Vector v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

float sum(const float* p, int64_t n) {
  Vector s[8] = {};
  int64_t i = 0;
  for (; i + 8 * kLanes <= n; i += 8 * kLanes)
    for (int j = 0; j < 8; ++j) s[j] += load(p + i + j * kLanes);
  for (int j = 1; j < 8; ++j) s[0] += s[j];
  float total = 0;
  for (int j = 0; j < kLanes; ++j) total += s[0][j];
  for (; i < n; ++i) total += p[i];
  return total;
}

volatile float sink;

}  // namespace

extern "C" {

void read_all(const float* p, int64_t n, int threads) {
  on_threads(threads, [&](int t) {
    sink = sum(p + n * t / threads, n * (t + 1) / threads - n * t / threads);
  });
}

void copy_all(float* to, const float* from, int64_t n, int threads) {
  on_threads(threads, [&](int t) {
    int64_t begin = n * t / threads, end = n * (t + 1) / threads;
    std::memcpy(to + begin, from + begin, 4 * (end - begin));
  });
}

void read_rows(const float* p, const int32_t* ids, int64_t m, int64_t d, int threads) {
  on_threads(threads, [&](int t) {
    float total = 0;
    int64_t end = m * (t + 1) / threads;
    for (int64_t i = m * t / threads; i < end; ++i) {
      const float* ahead = p + d * ids[std::min(i + 8, m - 1)];
      for (int64_t j = 0; j < d; j += 16) __builtin_prefetch(ahead + j);
      total += sum(p + d * ids[i], d);
    }
    sink = total;
  });
}

void update_rows(float* p, const int32_t* ids, int64_t m, int64_t d, int threads) {
  on_threads(threads, [&](int t) {
    int64_t end = m * (t + 1) / threads;
    for (int64_t i = m * t / threads; i < end; ++i) {
      float* ahead = p + d * ids[std::min(i + 8, m - 1)];
      for (int64_t j = 0; j < d; j += 16) __builtin_prefetch(ahead + j, 1);
      float* row = p + d * ids[i];
      for (int64_t j = 0; j < d; ++j) row[j] = 0.5f * row[j] + 1.0f;
    }
  });
}

// Operations done, of `steps` rounds a thread.
double multiply_f32(int64_t steps, int threads) {
  on_threads(threads, [&](int) {
    Vector x = Vector{} + 0.5f, y = Vector{} + 1.0f, s[kSums] = {};
    for (int64_t i = 0; i < steps; ++i)
      for (int j = 0; j < kSums; ++j) {
        s[j] = s[j] * x + y;
        KEEP_IN_REGISTER(s[j]);
      }
    for (int j = 1; j < kSums; ++j) s[0] += s[j];
    sink = s[0][0];
  });
  return 2.0 * kLanes * kSums * static_cast<double>(steps) * threads;
}

#if defined(__AMX_BF16__)
double multiply_bf16(int64_t steps, int threads) {
  constexpr int kArchReqXcompPerm = 0x1023, kTileData = 18;
  if (syscall(SYS_arch_prctl, kArchReqXcompPerm, kTileData) != 0) return 0;
  on_threads(threads, [&](int) {
    alignas(64) uint8_t config[64] = {1}, zeros[1024] = {};
    for (int t = 0; t < 8; ++t) config[16 + 2 * t] = 64, config[48 + t] = 16;
    _tile_loadconfig(config);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, zeros, 64);
    _tile_loadd(5, zeros, 64);
    _tile_loadd(6, zeros, 64);
    _tile_loadd(7, zeros, 64);
    for (int64_t i = 0; i < steps; ++i) {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
  });
  return 4.0 * 2 * 16 * 16 * 32 * static_cast<double>(steps) * threads;
}
#elif defined(__AVX512BF16__)
double multiply_bf16(int64_t steps, int threads) {
  on_threads(threads, [&](int) {
    __m512 s[kSums];
    for (auto& each : s) each = _mm512_setzero_ps();
    __m512bh x = (__m512bh)_mm512_set1_epi32(0x3f003f00);
    for (int64_t i = 0; i < steps; ++i)
      for (int j = 0; j < kSums; ++j) {
        s[j] = _mm512_dpbf16_ps(s[j], x, x);
        KEEP_IN_REGISTER(s[j]);
      }
    for (int j = 1; j < kSums; ++j) s[0] = _mm512_add_ps(s[0], s[j]);
    sink = _mm512_cvtss_f32(s[0]);
  });
  return 2.0 * 32 * kSums * static_cast<double>(steps) * threads;
}
#else
double multiply_bf16(int64_t, int) { return 0; }  // this CPU has no such instruction
#endif

}  // extern "C"
