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
  // Bits low..high-1 of each lane, four bits to a lane, lane 0 lowest.
  static uint64_t PackSpans(I low, I high) {
    uint64_t mask = 0;
    for (int i = 0; i < kLanes; ++i) mask |= static_cast<uint64_t>((1u << high[i]) - (1u << low[i])) << (4 * i);
    return mask;
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

  // Sums of the lanes of `count` vectors.
  static void ReduceRow(const F* v, int count, float* row) {
    for (int i = 0; i < count; ++i) row[i] = (v[i][0] + v[i][2]) + (v[i][1] + v[i][3]);
  }
};

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_SIMD_BASELINE_H_
