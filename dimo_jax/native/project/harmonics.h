// Spherical harmonics of dimo_jax/geometry/harmonics.py and their derivatives, over the vector type V of the including
// file.
#ifndef DIMO_NATIVE_HARMONICS_H_
#define DIMO_NATIVE_HARMONICS_H_

namespace dimo {
namespace {

constexpr int kMaxHarmonics = 16;
constexpr float kDegree0 = 0.282094792f;
constexpr float kDegree1 = 0.488602512f;  // sqrt(3 / (4 pi))
// sqrt(n / (16 pi)) for n = 60, 5, 15
constexpr float kMixed2 = 1.09254843f, kZonal2 = 0.315391565f, kPlanar2 = 0.546274215f;
// sqrt(n / (32 pi)) for n = 35, 840, 21, 14, 210
constexpr float kSectoral3 = 0.590043590f, kMixed3 = 2.89061144f, kTilted3 = 0.457045799f, kZonal3 = 0.373176333f,
                kPlanar3 = 1.44530572f;

// Values at unit vectors d, for the first 1, 4, 9 or 16 functions.
inline void EvaluateHarmonics(const V::F* d, int count, V::F* values) {
  const V::F x = d[0], y = d[1], z = d[2], zero = V::Set(0.0f);
  values[0] = V::Set(kDegree0);
  if (count < 4) return;
  values[1] = zero - V::Set(kDegree1) * y;
  values[2] = V::Set(kDegree1) * z;
  values[3] = zero - V::Set(kDegree1) * x;
  if (count < 9) return;
  const V::F xx = x * x, yy = y * y, zz = z * z;
  values[4] = V::Set(kMixed2) * x * y;
  values[5] = zero - V::Set(kMixed2) * y * z;
  values[6] = V::Set(kZonal2) * (zz + zz - xx - yy);
  values[7] = zero - V::Set(kMixed2) * x * z;
  values[8] = V::Set(kPlanar2) * (xx - yy);
  if (count < 16) return;
  const V::F three = V::Set(3.0f), ring = V::Set(4.0f) * zz - xx - yy;
  values[9] = zero - V::Set(kSectoral3) * y * (three * xx - yy);
  values[10] = V::Set(kMixed3) * x * y * z;
  values[11] = zero - V::Set(kTilted3) * y * ring;
  values[12] = V::Set(kZonal3) * z * (zz + zz - three * (xx + yy));
  values[13] = zero - V::Set(kTilted3) * x * ring;
  values[14] = V::Set(kPlanar3) * z * (xx - yy);
  values[15] = zero - V::Set(kSectoral3) * x * (xx - three * yy);
}

// Cotangent of d, given those of the values.
inline void DifferentiateHarmonics(const V::F* d, int count, const V::F* g, V::F* d_direction) {
  const V::F x = d[0], y = d[1], z = d[2], zero = V::Set(0.0f);
  V::F dx = zero, dy = zero, dz = zero;
  if (count >= 4) {
    dx = zero - V::Set(kDegree1) * g[3];
    dy = zero - V::Set(kDegree1) * g[1];
    dz = V::Set(kDegree1) * g[2];
  }
  const V::F two = V::Set(2.0f), xx = x * x, yy = y * y, zz = z * z;
  if (count >= 9) {
    const V::F mixed = V::Set(kMixed2), zonal = V::Set(2.0f * kZonal2) * g[6], planar = V::Set(2.0f * kPlanar2) * g[8];
    dx = dx + mixed * (y * g[4] - z * g[7]) + x * (planar - zonal);
    dy = dy + mixed * (x * g[4] - z * g[5]) - y * (planar + zonal);
    dz = dz - mixed * (y * g[5] + x * g[7]) + two * zonal * z;
  }
  if (count >= 16) {
    const V::F three = V::Set(3.0f), six = V::Set(6.0f), ring = V::Set(4.0f) * zz - xx - yy, xy = x * y, xz = x * z,
               yz = y * z;
    const V::F g9 = V::Set(kSectoral3) * g[9], g10 = V::Set(kMixed3) * g[10], g11 = V::Set(kTilted3) * g[11],
               g12 = V::Set(kZonal3) * g[12], g13 = V::Set(kTilted3) * g[13], g14 = V::Set(kPlanar3) * g[14],
               g15 = V::Set(kSectoral3) * g[15];
    dx = dx - six * xy * g9 + yz * g10 + two * xy * g11 - six * xz * g12 - (ring - two * xx) * g13 + two * xz * g14 -
         three * (xx - yy) * g15;
    dy = dy - three * (xx - yy) * g9 + xz * g10 - (ring - two * yy) * g11 - six * yz * g12 + two * xy * g13 -
         two * yz * g14 + six * xy * g15;
    dz = dz + xy * g10 - V::Set(8.0f) * (yz * g11 + xz * g13) + (six * zz - three * (xx + yy)) * g12 + (xx - yy) * g14;
  }
  d_direction[0] = dx;
  d_direction[1] = dy;
  d_direction[2] = dz;
}

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_HARMONICS_H_
