// Four lanes in the vector extensions of GCC and Clang: SSE2, NEON or whatever the target has.
#ifndef DIMO_NATIVE_SIMD_BASELINE_H_
#define DIMO_NATIVE_SIMD_BASELINE_H_

#include <cmath>
#include <cstdint>
#include <cstring>

namespace dimo {
namespace {

struct Baseline {
  static constexpr int kLanes = 4;
  static constexpr int kUnroll = 2;  // Gaussians whose alphas are computed side by side, to hide latency
  typedef float F __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));
  using M = I;

  static F Load(const float* p) {
    F v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static I LoadInt(const int32_t* p) {
    I v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static void Store(float* p, F v) { std::memcpy(p, &v, sizeof(v)); }
  static void StoreInt(int32_t* p, I v) { std::memcpy(p, &v, sizeof(v)); }
  static F Set(float x) { return F{x, x, x, x}; }
  static I SetInt(int32_t x) { return I{x, x, x, x}; }
  static F Fma(F a, F b, F c) { return a * b + c; }
  static F Fnma(F a, F b, F c) { return c - a * b; }
  static F Select(M m, F a, F b) { return (F)((m & (I)a) | (~m & (I)b)); }
  static I SelectInt(M m, I a, I b) { return (m & a) | (~m & b); }
  static F KeepIf(M m, F a) { return (F)(m & (I)a); }
  // As in SSE, the second argument where either is NaN.
  static F Min(F a, F b) { return Select(a < b, a, b); }
  static F Max(F a, F b) { return Select(a > b, a, b); }
  static M Less(F a, F b) { return a < b; }
  static M LessEqual(F a, F b) { return a <= b; }
  static M LessInt(I a, I b) { return a < b; }
  static M And(M a, M b) { return a & b; }
  static M AndNot(M a, M b) { return ~a & b; }  // b without a
  static bool Any(M m) { return (m[0] | m[1] | m[2] | m[3]) != 0; }
  static bool All(M m) { return (m[0] & m[1] & m[2] & m[3]) != 0; }
  static F Negative(F a) { return (F)((I)a | SetInt(INT32_MIN)); }
  static M IsNegative(F a) { return (I)a < 0; }
  static I Truncate(F a) { return I{(int)a[0], (int)a[1], (int)a[2], (int)a[3]}; }
  // Bits low..high-1 of each lane, shifted up.
  static I SpanBits(I low, I high, int shift) { return ((SetInt(1) << high) - (SetInt(1) << low)) << shift; }
  static I OrInt(I a, I b) { return a | b; }
  static I AndInt(I a, I b) { return a & b; }
  static I SubtractInt(I a, I b) { return a - b; }
  static I BitsOf(F a) { return (I)a; }
  static F FromBits(I a) { return (F)a; }
  static F ToFloat(I a) { return F{(float)a[0], (float)a[1], (float)a[2], (float)a[3]}; }
  static M ToMaskInt(M m) { return m; }  // -1 where true
  // a c - b^2, near full precision in spite of cancellation.
  static F Determinant(F a, F b, F c) {
    F result;
    for (int i = 0; i < kLanes; ++i) result[i] = (float)((double)a[i] * c[i] - (double)b[i] * b[i]);
    return result;
  }
  static F Sqrt(F a) { return F{std::sqrt(a[0]), std::sqrt(a[1]), std::sqrt(a[2]), std::sqrt(a[3])}; }
  static F Reciprocal(F a) { return 1.0f / a; }

  // 2^x for x <= 1; the polynomial's relative error is 1e-7 (Remez on -1/2..1/2).
  static F Exp2(F x) {
    x = Max(x, Set(-125.0f));
    const F biased = x + 12582912.0f;  // 1.5 * 2^23: the rounded integer is in the low bits
    const F f = x - (biased - 12582912.0f);
    F p = Set(1.327647198e-03f);
    p = Fma(p, f, Set(9.675541334e-03f));
    p = Fma(p, f, Set(5.550713274e-02f));
    p = Fma(p, f, Set(2.402211972e-01f));
    p = Fma(p, f, Set(6.931469671e-01f));
    p = Fma(p, f, Set(1.000000072e+00f));
    return (F)((I)p + ((I)biased << 23));
  }

  // Writes the places of the set bits; may write up to 16 bytes more. Returns how many.
  static int ListBits(uint64_t mask, uint8_t* places) {
    int count = 0;
    for (; mask; mask &= mask - 1) places[count++] = static_cast<uint8_t>(__builtin_ctzll(mask));
    return count;
  }

  // For each of `num_bits` bits lists the words that have it, in places[bit * stride ...], and counts them.
  static void ListWords(const uint64_t* words, int num_words, int num_bits, int stride, int32_t* places, int* counts) {
    for (int bit = 0; bit < num_bits; ++bit) counts[bit] = 0;
    for (int i = 0; i < num_words; ++i) {
      for (uint64_t mask = words[i]; mask; mask &= mask - 1) {
        const int bit = __builtin_ctzll(mask);
        places[bit * stride + counts[bit]++] = i;
      }
    }
  }

  // Sums of the lanes of `count` vectors.
  static void ReduceRow(const F* v, int count, float* row) {
    for (int i = 0; i < count; ++i) row[i] = (v[i][0] + v[i][2]) + (v[i][1] + v[i][3]);
  }
};

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_SIMD_BASELINE_H_
