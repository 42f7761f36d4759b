// Eight lanes of AVX2 with FMA. The including file sets the target before it includes this one.
#ifndef DIMO_NATIVE_SIMD_AVX2_H_
#define DIMO_NATIVE_SIMD_AVX2_H_

#include <immintrin.h>

#include <cstdint>

namespace dimo {
namespace {

// For each byte the places of its set bits, one to a byte, lowest first.
struct BitPlaces {
  uint64_t packed[256];
  constexpr BitPlaces() : packed() {
    for (int value = 0; value < 256; ++value) {
      int count = 0;
      for (uint64_t bit = 0; bit < 8; ++bit) {
        if (value >> bit & 1) packed[value] |= bit << (8 * count++);
      }
    }
  }
};
constexpr BitPlaces kBitPlaces;

struct Avx2 {
  static constexpr int kLanes = 8;
  static constexpr int kUnroll = 2;  // Gaussians whose alphas are computed side by side, to hide latency
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
  // Bits low..high-1 of each lane, shifted up.
  static I SpanBits(I low, I high, int shift) {
    const I one = _mm256_set1_epi32(1);
    return _mm256_slli_epi32(_mm256_sub_epi32(_mm256_sllv_epi32(one, high), _mm256_sllv_epi32(one, low)), shift);
  }
  static I OrInt(I a, I b) { return _mm256_or_si256(a, b); }
  static I AndInt(I a, I b) { return _mm256_and_si256(a, b); }
  static I SubtractInt(I a, I b) { return _mm256_sub_epi32(a, b); }
  static I BitsOf(F a) { return _mm256_castps_si256(a); }
  static F FromBits(I a) { return _mm256_castsi256_ps(a); }
  static F ToFloat(I a) { return _mm256_cvtepi32_ps(a); }
  static I ToMaskInt(M m) { return _mm256_castps_si256(m); }  // -1 where true
  // a c - b^2, near full precision in spite of cancellation (Kahan).
  static F Determinant(F a, F b, F c) {
    const F square = _mm256_mul_ps(b, b);
    return _mm256_add_ps(_mm256_fmsub_ps(a, c, square), _mm256_fnmadd_ps(b, b, square));
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

  // Writes the places of the set bits; may write up to 16 bytes more. Returns how many.
  static int ListBits(uint64_t mask, uint8_t* places) {
    int count = 0;
    for (uint64_t base = 0; mask; mask >>= 8, base += 0x0808080808080808u) {
      const uint64_t packed = kBitPlaces.packed[mask & 0xff] + base;
      __builtin_memcpy(places + count, &packed, sizeof(packed));
      count += __builtin_popcountll(mask & 0xff);
    }
    return count;
  }

  // For each of `num_bits` bits lists the words that have it, in places[bit * stride ...], and counts them. May write
  // up to 16 places more.
  static void ListWords(const uint64_t* words, int num_words, int num_bits, int stride, int32_t* places, int* counts) {
    for (int bit = 0; bit < num_bits; ++bit) counts[bit] = 0;
    for (int first = 0; first < num_words; first += kLanes) {
      alignas(32) int32_t group[kLanes] = {};
      for (int i = 0; i < kLanes && first + i < num_words; ++i) group[i] = static_cast<int32_t>(words[first + i]);
      I bits = LoadInt(group);
      for (int bit = num_bits - 1; bit >= 0; --bit) {
        // The bit in question stands in the lanes' signs.
        const I shifted = _mm256_sll_epi32(bits, _mm_cvtsi32_si128(31 - bit));
        const unsigned mask = static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(shifted)));
        const I lanes =
            _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(&kBitPlaces.packed[mask])));
        StoreInt(places + bit * stride + counts[bit], _mm256_add_epi32(lanes, SetInt(first)));
        counts[bit] += __builtin_popcount(mask);
      }
    }
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
