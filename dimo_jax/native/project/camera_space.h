// Where a vector of Gaussians lies in the camera and what of it reaches the image, over the vector type V of the
// including file. Both passes of the projection compute it; the formulas are those of dimo_jax/render/project.py.
#ifndef DIMO_NATIVE_CAMERA_SPACE_H_
#define DIMO_NATIVE_CAMERA_SPACE_H_

namespace dimo {
namespace {

using F = V::F;
using M = V::M;

// As in dimo_jax/render/project.py and dimo_jax/geometry/safe.py.
constexpr float kNear = 0.01f;
constexpr float kMaxLength = 1e12f;
constexpr float kMaxLogLength = 27.6310211f;
constexpr float kSmallestNormal = 1.17549435e-38f;
constexpr float kLargest = 3.40282347e38f;
constexpr float kLargestDerivative = 1.84467430e19f;

// Gaussians come in groups, one column for each parameter; the last group is padded with dead ones.
constexpr int kGroup = 64;
enum Field { kMean = 0, kLogScale = 3, kQuat = 6, kLogit = 10, kHarmonic = 11, kMaxFields = 11 + 3 * 16 };
using Columns = float[kMaxFields][kGroup];

inline F Set(float x) { return V::Set(x); }
inline F Dot(const F* a, const F* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
inline F DotRow(const float* a, const F* b) { return Set(a[0]) * b[0] + Set(a[1]) * b[1] + Set(a[2]) * b[2]; }
inline F DotColumn(const float (*a)[3], int column, const F* b) {
  return Set(a[0][column]) * b[0] + Set(a[1][column]) * b[1] + Set(a[2][column]) * b[2];
}
inline F Magnitude(F x) { return V::FromBits(V::AndInt(V::BitsOf(x), V::SetInt(0x7fffffff))); }

// e^x, 0 below -87, no more than e^88; relative error 1e-7 (coefficients of Cephes, S. Moshier).
inline F Exp(F x) {
  const F bounded = V::Min(V::Max(x, Set(-87.0f)), Set(88.0f)), round = Set(12582912.0f);  // 1.5 * 2^23
  const F n = bounded * Set(kLog2E) + round - round;
  const F r = bounded - n * Set(0.693359375f) + n * Set(2.12194440e-4f);
  F p = Set(1.9875691500e-4f);
  p = p * r + Set(1.3981999507e-3f);
  p = p * r + Set(8.3334519073e-3f);
  p = p * r + Set(4.1665795894e-2f);
  p = p * r + Set(1.6666665459e-1f);
  p = p * r + Set(5.0000001201e-1f);
  p = p * (r * r) + r + Set(1.0f);
  const F power = V::FromBits(V::Truncate((n + Set(127.0f)) * Set(8388608.0f)));  // 2^n
  return V::KeepIf(V::LessEqual(Set(-87.0f), x), p * power);
}

// log(x) of a normal x >= 1, to the last bits, next to 1 too: the series of atanh.
inline F Log(F x) {
  const F one = Set(1.0f), half = Set(0.5f);
  const V::I bits = V::BitsOf(x);
  const V::I mantissa = V::OrInt(V::AndInt(bits, V::SetInt(0x007fffff)), V::BitsOf(one));
  const F m = V::FromBits(mantissa), exponent = V::ToFloat(V::SubtractInt(bits, mantissa)) * Set(1.0f / (1 << 23));
  const M upper = V::Less(Set(1.41421356f), m);
  const F centred = V::Select(upper, m * half, m), power = V::Select(upper, exponent + one, exponent);
  const F s = (centred - one) / (centred + one), t = s * s;
  const F series = one + t * (Set(1.0f / 3) + t * (Set(1.0f / 5) + t * (Set(1.0f / 7) + t * Set(1.0f / 9))));
  return Set(2.0f) * s * series + power * Set(0.693147181f);
}

// Every parameter is in the range that the projection can work with.
inline M FindSane(const Columns& columns, int num_harmonics, int i) {
  const F infinity = Set(__builtin_inff());
  const F logit = V::Load(columns[kLogit] + i);
  M sane = V::LessEqual(logit, logit);
  for (int j = 0; j < 3; ++j) {
    sane = V::And(sane, V::Less(Magnitude(V::Load(columns[kMean + j] + i)), Set(kMaxLength)));
    sane = V::And(sane, V::Less(V::Load(columns[kLogScale + j] + i), Set(kMaxLogLength)));
  }
  for (int j = 0; j < 4; ++j) sane = V::And(sane, V::Less(Magnitude(V::Load(columns[kQuat + j] + i)), infinity));
  for (int j = 0; j < 3 * num_harmonics; ++j) {
    sane = V::And(sane, V::Less(Magnitude(V::Load(columns[kHarmonic + j] + i)), infinity));
  }
  return sane;
}

struct Place {
  M usable;
  F mean[3];    // world
  F point[3];   // camera
  F ratio[2];   // x/z, y/z
  F slope[2];   // the same, kept within the limits of the view
  M within[2];  // it lies there by itself
  F gain[2];    // focal / z
  F pixel[2];
};

// Unusable Gaussians continue on the optical axis.
inline void FindPlace(const View& view, const Columns& columns, M sane, int i, Place* place) {
  for (int j = 0; j < 3; ++j) place->mean[j] = V::KeepIf(sane, V::Load(columns[kMean + j] + i));
  F p[3];
  for (int j = 0; j < 3; ++j) p[j] = DotRow(view.rotation[j], place->mean) + Set(view.shift[j]);
  M usable = V::And(sane, V::And(V::Less(Set(kNear), p[2]), V::Less(p[2], Set(kMaxLength))));
  for (int j = 0; j < 2; ++j) usable = V::And(usable, V::Less(Magnitude(p[j]), Set(kMaxLength)));
  place->usable = usable;
  for (int j = 0; j < 2; ++j) place->point[j] = V::KeepIf(usable, p[j]);
  const F z = V::Select(usable, p[2], Set(1.0f));
  place->point[2] = z;
  for (int j = 0; j < 2; ++j) {
    const F focal = Set(view.focal[j]), low = Set(view.low[j]), high = Set(view.high[j]);
    place->pixel[j] = focal * place->point[j] / z + Set(view.center[j]);
    place->gain[j] = focal / z;
    place->ratio[j] = place->point[j] / z;
    place->slope[j] = V::Min(V::Max(place->ratio[j], low), high);
    place->within[j] = V::And(V::LessEqual(low, place->ratio[j]), V::LessEqual(place->ratio[j], high));
  }
}

struct Axes {
  F unit[4];       // quaternion
  F inverse_norm;  // of the quaternion as given; 0 where it counts as zero
  F own[3][3];     // own[j][k]: world component j of own axis k
  F turned[3][3];  // the same in the camera
  F scales[3];
  M first, second;  // the shortest axis is the first; else it is the second, or the third
};

inline void FindAxes(const View& view, const Columns& columns, M sane, int i, Axes* axes) {
  const F one = Set(1.0f), two = Set(2.0f);
  F q[4], largest = Set(0.0f), logs[3];
  for (int j = 0; j < 4; ++j) {
    q[j] = V::Select(sane, V::Load(columns[kQuat + j] + i), one);
    largest = V::Max(largest, Magnitude(q[j]));
  }
  const M alive = V::LessEqual(Set(kSmallestNormal), largest);
  const F scale = V::Select(alive, largest, one);
  F squared = Set(0.0f);
  for (int j = 0; j < 4; ++j) {
    q[j] = V::KeepIf(alive, q[j] / scale);
    squared = squared + q[j] * q[j];
  }
  const F length = V::Select(alive, V::Sqrt(squared), one);
  for (int j = 0; j < 4; ++j) axes->unit[j] = q[j] / length;
  axes->unit[0] = V::Select(alive, axes->unit[0], one);
  const F norm = V::Min(scale * length, Set(kLargest));
  axes->inverse_norm = V::KeepIf(alive, V::Min(one / norm, Set(kLargestDerivative)));

  const F w = axes->unit[0], x = axes->unit[1], y = axes->unit[2], z = axes->unit[3];
  const F matrix[3][3] = {{one - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y)},
                          {two * (x * y + w * z), one - two * (x * x + z * z), two * (y * z - w * x)},
                          {two * (x * z - w * y), two * (y * z + w * x), one - two * (x * x + y * y)}};
  for (int k = 0; k < 3; ++k) {
    const F axis[3] = {matrix[0][k], matrix[1][k], matrix[2][k]};
    for (int j = 0; j < 3; ++j) {
      axes->own[j][k] = axis[j];
      axes->turned[j][k] = DotRow(view.rotation[j], axis);
    }
    logs[k] = V::KeepIf(sane, V::Load(columns[kLogScale + k] + i));
    axes->scales[k] = Exp(logs[k]);
  }
  axes->first = V::And(V::LessEqual(logs[0], logs[1]), V::LessEqual(logs[0], logs[2]));
  axes->second = V::LessEqual(logs[1], logs[2]);
}

// Of three, that of the shortest axis.
inline F OfShortest(const Axes& axes, const F* values) {
  return V::Select(axes.first, values[0], V::Select(axes.second, values[1], values[2]));
}

// The covariance is [[u.u, u.v], [u.v, v.v]] + dilation, relative to `unit` as in project.py:_invert_covariance.
struct Footprint {
  F u[3], v[3], cross[3];
  F unit, dilation;
  F inverse;  // 1 / (determinant unit^2)
  F conic[3], spread[2];
  M regular;
};

inline void FindFootprint(const View& view, const Place& place, const Axes& axes, Footprint* out) {
  const F one = Set(1.0f);
  F unit = one;
  for (int k = 0; k < 3; ++k) {
    out->u[k] = place.gain[0] * (axes.turned[0][k] - place.slope[0] * axes.turned[2][k]) * axes.scales[k];
    out->v[k] = place.gain[1] * (axes.turned[1][k] - place.slope[1] * axes.turned[2][k]) * axes.scales[k];
    unit = V::Max(unit, V::Max(Magnitude(out->u[k]), Magnitude(out->v[k])));
  }
  const F inverse_unit = one / unit;
  for (int k = 0; k < 3; ++k) {
    out->u[k] = out->u[k] * inverse_unit;
    out->v[k] = out->v[k] * inverse_unit;
  }
  const F *u = out->u, *v = out->v;
  const F dilation = Set(view.dilation) * inverse_unit * inverse_unit;
  const F uu = Dot(u, u), uv = Dot(u, v), vv = Dot(v, v);
  out->cross[0] = u[1] * v[2] - u[2] * v[1];
  out->cross[1] = u[2] * v[0] - u[0] * v[2];
  out->cross[2] = u[0] * v[1] - u[1] * v[0];
  const F determinant = Dot(out->cross, out->cross) + dilation * (uu + vv) + dilation * dilation;
  out->regular = V::Less(Set(0.0f), determinant);
  out->inverse = one / V::Select(out->regular, determinant, one) * inverse_unit * inverse_unit;
  out->conic[0] = (vv + dilation) * out->inverse;
  out->conic[1] = (Set(0.0f) - uv) * out->inverse;
  out->conic[2] = (uu + dilation) * out->inverse;
  for (int j = 0; j < 3; ++j) {
    out->regular = V::And(out->regular, V::LessEqual(Magnitude(out->conic[j]), Set(kLargest)));
  }
  out->spread[0] = unit * V::Sqrt(uu + dilation);
  out->spread[1] = unit * V::Sqrt(vv + dilation);
  out->unit = unit;
  out->dilation = dilation;
}

struct Reach {
  M drawn;  // it reaches the image
  F opacity, clarity;  // clarity: 1 - opacity, without cancellation
  F extents[2];
};

inline void FindReach(const View& view, const Columns& columns, const Place& place, const Footprint& footprint, int i,
                      Reach* out) {
  const F one = Set(1.0f), odds = Exp(Set(0.0f) - V::Load(columns[kLogit] + i));
  out->opacity = one / (one + odds);
  out->clarity = odds * out->opacity;
  const F reach = V::Sqrt(Set(2.0f) * Log(V::Max(out->opacity / Set(kMinAlpha), one)));
  M drawn = V::And(V::And(place.usable, footprint.regular), V::LessEqual(Set(kMinAlpha), out->opacity));
  for (int j = 0; j < 2; ++j) {
    out->extents[j] = reach * footprint.spread[j];
    drawn = V::And(drawn, V::LessEqual(Set(0.5f), place.pixel[j] + out->extents[j]));
    drawn = V::And(drawn, V::LessEqual(place.pixel[j] - out->extents[j], Set(view.last[j])));
  }
  out->drawn = drawn;
}

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_CAMERA_SPACE_H_
