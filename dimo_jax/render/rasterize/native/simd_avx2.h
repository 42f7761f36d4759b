// Eight lanes of AVX2 with FMA. The including file sets the target before it includes this one.
#ifndef DIMO_NATIVE_SIMD_AVX2_H_
#define DIMO_NATIVE_SIMD_AVX2_H_

#include <immintrin.h>

#include <cstdint>

namespace dimo {
namespace {

struct Avx2 {
  static constexpr int kLanes = 8;
  using F = __m256;
  using I = __m256i;
  using M = __m256;

  static F Load(const float* p) { return _mm256_loadu_ps(p); }
  static I LoadInt(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static void Store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static void StoreInt(int32_t* p, I v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static F Set(float x) { return _mm256_set1_ps(x); }
  static I SetInt(int32_t x) { return _mm256_set1_epi32(x); }
  static F Fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F Fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
  static F Select(M m, F a, F b) { return _mm256_blendv_ps(b, a, m); }
  static I SelectInt(M m, I a, I b) { return _mm256_blendv_epi8(b, a, _mm256_castps_si256(m)); }
  static F KeepIf(M m, F a) { return _mm256_and_ps(m, a); }
  static F Min(F a, F b) { return _mm256_min_ps(a, b); }
  static F Max(F a, F b) { return _mm256_max_ps(a, b); }
  static M Less(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
  static M LessEqual(F a, F b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
  static M LessInt(I a, I b) { return _mm256_castsi256_ps(_mm256_cmpgt_epi32(b, a)); }
  static M And(M a, M b) { return _mm256_and_ps(a, b); }
  static M AndNot(M a, M b) { return _mm256_andnot_ps(a, b); }  // b without a
  static bool Any(M m) { return _mm256_movemask_ps(m) != 0; }
  static bool All(M m) { return _mm256_movemask_ps(m) == 0xff; }
  static F Negative(F a) { return _mm256_or_ps(a, _mm256_set1_ps(-0.0f)); }
  static M IsNegative(F a) { return _mm256_castsi256_ps(_mm256_srai_epi32(_mm256_castps_si256(a), 31)); }
  static I Truncate(F a) { return _mm256_cvttps_epi32(a); }
  // Bits low..high-1 of each lane, four bits to a lane, lane 0 lowest.
  static uint64_t PackSpans(I low, I high) {
    const I one = _mm256_set1_epi32(1);
    I bits = _mm256_sub_epi32(_mm256_sllv_epi32(one, high), _mm256_sllv_epi32(one, low));
    bits = _mm256_sllv_epi32(bits, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    __m128i half = _mm_or_si128(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    half = _mm_or_si128(half, _mm_unpackhi_epi64(half, half));
    half = _mm_or_si128(half, _mm_shuffle_epi32(half, 1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(half));
  }
  static F Sqrt(F a) { return _mm256_sqrt_ps(a); }
  static F Reciprocal(F a) { return _mm256_div_ps(_mm256_set1_ps(1.0f), a); }

  // 2^x for x <= 1; the polynomial's relative error is 1e-7 (Remez on -1/2..1/2).
  static F Exp2(F x) {
    const F shift = Set(12582912.0f);  // 1.5 * 2^23: the rounded integer is in the low bits
    x = Max(x, Set(-125.0f));
    const F biased = _mm256_add_ps(x, shift);
    const F f = _mm256_sub_ps(x, _mm256_sub_ps(biased, shift));
    F p = Set(1.327647198e-03f);
    p = Fma(p, f, Set(9.675541334e-03f));
    p = Fma(p, f, Set(5.550713274e-02f));
    p = Fma(p, f, Set(2.402211972e-01f));
    p = Fma(p, f, Set(6.931469671e-01f));
    p = Fma(p, f, Set(1.000000072e+00f));
    const I exponent = _mm256_slli_epi32(_mm256_castps_si256(biased), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
  }

  // Sums of the lanes of 13 vectors, into 16 floats.
  static void ReduceRow(const F* v, int count, float* row) {
    const F zero = _mm256_setzero_ps();
    for (int i = 0; i < 16; i += 8) {
      F w[8];
      for (int j = 0; j < 8; ++j) w[j] = i + j < count ? v[i + j] : zero;
      const F low = _mm256_hadd_ps(_mm256_hadd_ps(w[0], w[1]), _mm256_hadd_ps(w[2], w[3]));
      const F high = _mm256_hadd_ps(_mm256_hadd_ps(w[4], w[5]), _mm256_hadd_ps(w[6], w[7]));
      Store(row + i, _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31)));
    }
  }
};

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_SIMD_AVX2_H_
