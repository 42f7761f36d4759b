// Sixteen lanes of AVX-512. The including file sets the target before it includes this one.
#ifndef DIMO_NATIVE_SIMD_AVX512_H_
#define DIMO_NATIVE_SIMD_AVX512_H_

#include <immintrin.h>

#include <cstdint>

namespace dimo {
namespace {

struct Avx512 {
  static constexpr int kLanes = 16;
  static constexpr int kUnroll = 4;  // Gaussians whose alphas are computed side by side, to hide latency
  using F = __m512;
  using I = __m512i;
  using M = __mmask16;

  static F Load(const float* p) { return _mm512_loadu_ps(p); }
  static I LoadInt(const int32_t* p) { return _mm512_loadu_si512(p); }
  static void Store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static void StoreInt(int32_t* p, I v) { _mm512_storeu_si512(p, v); }
  static F Set(float x) { return _mm512_set1_ps(x); }
  static I SetInt(int32_t x) { return _mm512_set1_epi32(x); }
  static F Fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F Fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
  static F Select(M m, F a, F b) { return _mm512_mask_blend_ps(m, b, a); }
  static I SelectInt(M m, I a, I b) { return _mm512_mask_blend_epi32(m, b, a); }
  static F KeepIf(M m, F a) { return _mm512_maskz_mov_ps(m, a); }
  static F Min(F a, F b) { return _mm512_min_ps(a, b); }
  static F Max(F a, F b) { return _mm512_max_ps(a, b); }
  static M Less(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
  static M LessEqual(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
  static M LessInt(I a, I b) { return _mm512_cmplt_epi32_mask(a, b); }
  static M And(M a, M b) { return static_cast<M>(a & b); }
  static M AndNot(M a, M b) { return static_cast<M>(~a & b); }  // b without a
  static bool Any(M m) { return m != 0; }
  static bool All(M m) { return m == 0xffff; }
  static F Negative(F a) { return _mm512_or_ps(a, _mm512_set1_ps(-0.0f)); }
  static M IsNegative(F a) { return _mm512_movepi32_mask(_mm512_castps_si512(a)); }
  static I Truncate(F a) { return _mm512_cvttps_epi32(a); }
  static F Sqrt(F a) { return _mm512_sqrt_ps(a); }
  // Bits low..high-1 of each lane, shifted up.
  static I SpanBits(I low, I high, int shift) {
    const I one = _mm512_set1_epi32(1);
    return _mm512_slli_epi32(_mm512_sub_epi32(_mm512_sllv_epi32(one, high), _mm512_sllv_epi32(one, low)), shift);
  }
  static I OrInt(I a, I b) { return _mm512_or_si512(a, b); }
  static I AndInt(I a, I b) { return _mm512_and_si512(a, b); }
  static I SubtractInt(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I BitsOf(F a) { return _mm512_castps_si512(a); }
  static F FromBits(I a) { return _mm512_castsi512_ps(a); }
  static F ToFloat(I a) { return _mm512_cvtepi32_ps(a); }
  static I ToMaskInt(M m) { return _mm512_movm_epi32(m); }  // -1 where true
  // a c - b^2, near full precision in spite of cancellation (Kahan).
  static F Determinant(F a, F b, F c) {
    const F square = _mm512_mul_ps(b, b);
    return _mm512_add_ps(_mm512_fmsub_ps(a, c, square), _mm512_fnmadd_ps(b, b, square));
  }
  static F Reciprocal(F a) {
    const F r = _mm512_rcp14_ps(a);  // one Newton step takes its 14 bits to full precision
    return Fma(r, Fnma(a, r, Set(1.0f)), r);
  }

  // 2^x; the polynomial's relative error is 1e-7 (Remez on 0..1).
  static F Exp2(F x) {
    const F f = _mm512_reduce_ps(x, 1);  // x - floor(x)
    F p = Set(1.877576673e-03f);
    p = Fma(p, f, Set(8.989340095e-03f));
    p = Fma(p, f, Set(5.582631805e-02f));
    p = Fma(p, f, Set(2.401536170e-01f));
    p = Fma(p, f, Set(6.931530732e-01f));
    p = Fma(p, f, Set(9.999999251e-01f));
    return _mm512_scalef_ps(p, x);
  }

  // Writes the places of the set bits of the low 16; may write up to 16 bytes more. Returns how many.
  static int ListBits(uint64_t mask, uint8_t* places) {
    const I lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const I packed = _mm512_maskz_compress_epi32(static_cast<M>(mask), lanes);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(places), _mm512_cvtepi32_epi8(packed));
    return __builtin_popcountll(mask & 0xffff);
  }

  // For each of `num_bits` bits lists the words that have it, in places[bit * stride ...], and counts them. May write
  // up to 16 places more.
  static void ListWords(const uint64_t* words, int num_words, int num_bits, int stride, int32_t* places, int* counts) {
    for (int bit = 0; bit < num_bits; ++bit) counts[bit] = 0;
    I lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int first = 0; first < num_words; first += kLanes, lanes = _mm512_add_epi32(lanes, SetInt(kLanes))) {
      const int left = num_words - first;
      const __mmask8 low_lanes = static_cast<__mmask8>(left >= 8 ? 0xff : (1 << left) - 1);
      const __mmask8 high_lanes = static_cast<__mmask8>(left >= 16 ? 0xff : left > 8 ? (1 << (left - 8)) - 1 : 0);
      const __m256i low = _mm512_cvtepi64_epi32(_mm512_maskz_loadu_epi64(low_lanes, words + first));
      const __m256i high = _mm512_cvtepi64_epi32(_mm512_maskz_loadu_epi64(high_lanes, words + first + 8));
      const I group = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
      for (int bit = 0; bit < num_bits; ++bit) {
        const M mask = _mm512_test_epi32_mask(group, SetInt(1 << bit));
        StoreInt(places + bit * stride + counts[bit], _mm512_maskz_compress_epi32(mask, lanes));
        counts[bit] += __builtin_popcount(mask);
      }
    }
  }

  // Sums of the lanes of up to 16 vectors: four rounds that each add two vectors into one, interleaved.
  static void ReduceRow(const F* v, int count, float* row) {
    const F zero = _mm512_setzero_ps();
    F w[16];
    for (int i = 0; i < 16; ++i) w[i] = i < count ? v[i] : zero;
    F quads[4];
    for (int i = 0; i < 4; ++i) {
      const F ab =
          _mm512_add_ps(_mm512_unpacklo_ps(w[4 * i], w[4 * i + 1]), _mm512_unpackhi_ps(w[4 * i], w[4 * i + 1]));
      const F cd =
          _mm512_add_ps(_mm512_unpacklo_ps(w[4 * i + 2], w[4 * i + 3]), _mm512_unpackhi_ps(w[4 * i + 2], w[4 * i + 3]));
      const __m512d abd = _mm512_castps_pd(ab), cdd = _mm512_castps_pd(cd);
      quads[i] =
          _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(abd, cdd)), _mm512_castpd_ps(_mm512_unpackhi_pd(abd, cdd)));
    }
    const F low =
        _mm512_add_ps(_mm512_shuffle_f32x4(quads[0], quads[1], 0x88), _mm512_shuffle_f32x4(quads[0], quads[1], 0xdd));
    const F high =
        _mm512_add_ps(_mm512_shuffle_f32x4(quads[2], quads[3], 0x88), _mm512_shuffle_f32x4(quads[2], quads[3], 0xdd));
    Store(row, _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd)));
  }
};

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_SIMD_AVX512_H_
