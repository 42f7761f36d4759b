// Sixteen lanes of AVX-512. The including file sets the target before it includes this one.
#ifndef DIMO_NATIVE_SIMD_AVX512_H_
#define DIMO_NATIVE_SIMD_AVX512_H_

#include <immintrin.h>

#include <cstdint>

namespace dimo {
namespace {

struct Avx512 {
  static constexpr int kLanes = 16;
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

  // Sums of the lanes of up to 16 vectors: four rounds that each add two vectors into one, interleaved.
  static void ReduceRow(const F* v, int count, float* row) {
    const F zero = _mm512_setzero_ps();
    F w[16];
    for (int i = 0; i < 16; ++i) w[i] = i < count ? v[i] : zero;
    F quads[4];
    for (int i = 0; i < 4; ++i) {
      const F ab = _mm512_add_ps(_mm512_unpacklo_ps(w[4 * i], w[4 * i + 1]), _mm512_unpackhi_ps(w[4 * i], w[4 * i + 1]));
      const F cd = _mm512_add_ps(_mm512_unpacklo_ps(w[4 * i + 2], w[4 * i + 3]),
                                 _mm512_unpackhi_ps(w[4 * i + 2], w[4 * i + 3]));
      const __m512d abd = _mm512_castps_pd(ab), cdd = _mm512_castps_pd(cd);
      quads[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(abd, cdd)),
                               _mm512_castpd_ps(_mm512_unpackhi_pd(abd, cdd)));
    }
    const F low = _mm512_add_ps(_mm512_shuffle_f32x4(quads[0], quads[1], 0x88),
                                _mm512_shuffle_f32x4(quads[0], quads[1], 0xdd));
    const F high = _mm512_add_ps(_mm512_shuffle_f32x4(quads[2], quads[3], 0x88),
                                 _mm512_shuffle_f32x4(quads[2], quads[3], 0xdd));
    Store(row, _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd)));
  }
};

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_SIMD_AVX512_H_
