// Projection of Gaussians and its derivative, over the vector type V of the including file.
#ifndef DIMO_NATIVE_PROJECTION_H_
#define DIMO_NATIVE_PROJECTION_H_

#include "project/camera_space.h"
#include "project/harmonics.h"

namespace dimo {
namespace {

// One column for each number of a splat; cotangents have those before kDepth.
enum SplatField { kPixel = 0, kConic = 2, kOpacity = 5, kFeature = 6, kDepth = 13, kExtent = 14, kSplatFields = 16 };
using SplatColumns = float[kSplatFields][kGroup];

// Rows to columns, zeros beyond `size`.
inline void Split(const float* rows, size_t size, int width, float (*columns)[kGroup]) {
  for (int c = 0; c < width; ++c) {
    for (size_t i = 0; i < size; ++i) columns[c][i] = rows[i * static_cast<size_t>(width) + static_cast<size_t>(c)];
    for (size_t i = size; i < kGroup; ++i) columns[c][i] = 0.0f;
  }
}

inline void Merge(const float (*columns)[kGroup], size_t size, int width, float* rows) {
  for (size_t i = 0; i < size; ++i) {
    for (int c = 0; c < width; ++c) *rows++ = columns[c][i];
  }
}

inline void SplitCloud(const Cloud& cloud, size_t first, size_t size, Columns columns) {
  Split(cloud.means + 3 * first, size, 3, columns + kMean);
  Split(cloud.log_scales + 3 * first, size, 3, columns + kLogScale);
  Split(cloud.quats + 4 * first, size, 4, columns + kQuat);
  Split(cloud.logit_opacities + first, size, 1, columns + kLogit);
  for (size_t i = size; i < kGroup; ++i) columns[kLogit][i] = -__builtin_inff();  // never drawn
  const size_t row = 3 * static_cast<size_t>(cloud.num_harmonics);
  Split(cloud.sh + row * first, size, static_cast<int>(row), columns + kHarmonic);
}

// Where the camera sees a Gaussian from, and the colour from there.
struct Look {
  F view[3], direction[3], inverse_distance;
  F basis[kMaxHarmonics];
  F colour[3];  // may be negative
};

inline void FindLook(const View& view, const Columns& columns, const Place& place, M sane, int count, int i,
                     Look* look) {
  for (int j = 0; j < 3; ++j) look->view[j] = place.mean[j] - Set(view.position[j]);
  const F squared = Dot(look->view, look->view), one = Set(1.0f);
  look->inverse_distance = one / V::Sqrt(V::Select(V::Less(Set(0.0f), squared), squared, one));
  for (int j = 0; j < 3; ++j) look->direction[j] = look->view[j] * look->inverse_distance;
  EvaluateHarmonics(look->direction, count, look->basis);
  for (int c = 0; c < 3; ++c) {
    F sum = Set(0.0f);
    for (int b = 0; b < count; ++b) sum = sum + look->basis[b] * V::Load(columns[kHarmonic + 3 * b + c] + i);
    look->colour[c] = V::KeepIf(sane, sum) + Set(0.5f);
  }
}

// 1 or -1: turns the normal n towards the camera.
inline F FacingSign(const F* n, const Look& look) {
  return V::Select(V::Less(Set(0.0f), Dot(n, look.view)), Set(-1.0f), Set(1.0f));
}

inline void ProjectVector(const View& view, const Columns& columns, int count, int i, SplatColumns splats) {
  const F zero = Set(0.0f), one = Set(1.0f);
  const M sane = FindSane(columns, count, i);
  Place place;
  Axes axes;
  Footprint footprint;
  Reach reach;
  Look look;
  F normal[3];
  FindPlace(view, columns, sane, i, &place);
  FindAxes(view, columns, sane, i, &axes);
  FindFootprint(view, place, axes, &footprint);
  FindReach(view, columns, place, footprint, i, &reach);
  const M drawn = reach.drawn;
  FindLook(view, columns, place, sane, count, i, &look);
  for (int j = 0; j < 3; ++j) normal[j] = OfShortest(axes, axes.own[j]);
  const F sign = FacingSign(normal, look);
  for (int j = 0; j < 2; ++j) {
    V::Store(splats[kPixel + j] + i, V::KeepIf(drawn, place.pixel[j]));
    V::Store(splats[kExtent + j] + i, V::KeepIf(drawn, reach.extents[j]));
  }
  for (int j = 0; j < 3; ++j) {
    V::Store(splats[kConic + j] + i, V::Select(drawn, footprint.conic[j], j == 1 ? zero : one));
    V::Store(splats[kFeature + j] + i, V::KeepIf(drawn, V::Max(look.colour[j], zero)));
    V::Store(splats[kFeature + 4 + j] + i, V::KeepIf(drawn, sign * normal[j]));
  }
  V::Store(splats[kOpacity] + i, V::KeepIf(drawn, reach.opacity));
  V::Store(splats[kFeature + 3] + i, V::KeepIf(drawn, place.point[2]));
  V::Store(splats[kDepth] + i, V::Select(drawn, place.point[2], one));
}

void ProjectBlock(const View& view, const Cloud& cloud, size_t first, size_t end, const Projected<float>& out) {
  alignas(64) Columns columns;
  alignas(64) SplatColumns splats;
  for (; first < end; first += kGroup) {
    const size_t size = end - first < kGroup ? end - first : kGroup;
    SplitCloud(cloud, first, size, columns);
    for (int i = 0; i < static_cast<int>(size); i += V::kLanes) {
      ProjectVector(view, columns, cloud.num_harmonics, i, splats);
    }
    Merge(splats + kPixel, size, 2, out.means + 2 * first);
    Merge(splats + kConic, size, 3, out.conics + 3 * first);
    Merge(splats + kOpacity, size, 1, out.opacities + first);
    Merge(splats + kFeature, size, kFeatures, out.features + kFeatures * first);
    Merge(splats + kDepth, size, 1, out.depths + first);
    Merge(splats + kExtent, size, 2, out.extents + 2 * first);
  }
}

// Cotangents of what both passes compute, of one vector of Gaussians.
struct Change {
  F mean[3], point[3], slope[2], gain[2], own[3][3], focal[2], center[2], view[3];
};

// From the conic C to the 2x3 matrix U of the rows u and v in pixels, and to the logs of the scales (stored). With
// P = C U and the cotangent G of C, that of U is -2 C G P, and that of a log scale -2 P_k^T G P_k for its column k. P is
// written without cancellation, so that needles lose no digits, and none of it can overflow.
inline void DifferentiateFootprint(const Footprint& f, const F* d_conic, M drawn, int i, Columns gradients, F* d_u,
                                   F* d_v) {
  const F minus_two = Set(-2.0f), off_diagonal = Set(0.5f) * d_conic[1];
  const F scale = f.inverse * f.unit;
  for (int k = 0; k < 3; ++k) {
    const int l = (k + 1) % 3, m = (k + 2) % 3;
    const F p_u = (f.v[l] * f.cross[m] - f.v[m] * f.cross[l] + f.dilation * f.u[k]) * scale;
    const F p_v = (f.cross[l] * f.u[m] - f.cross[m] * f.u[l] + f.dilation * f.v[k]) * scale;
    const F g_u = d_conic[0] * p_u + off_diagonal * p_v, g_v = off_diagonal * p_u + d_conic[2] * p_v;
    d_u[k] = minus_two * (f.conic[0] * g_u + f.conic[1] * g_v);
    d_v[k] = minus_two * (f.conic[1] * g_u + f.conic[2] * g_v);
    V::Store(gradients[kLogScale + k] + i, V::KeepIf(drawn, minus_two * (p_u * g_u + p_v * g_v)));
  }
}

// From u and v to the axes, slopes and gains; adds the rotation's part to the camera's sums.
inline void DifferentiateAxes(const View& view, const Place& place, const Axes& axes, M drawn, const F* d_u,
                              const F* d_v, Change* change, F* sums) {
  for (int j = 0; j < 2; ++j) change->slope[j] = change->gain[j] = Set(0.0f);
  for (int k = 0; k < 3; ++k) {
    const F d_x = d_u[k] * axes.scales[k], d_y = d_v[k] * axes.scales[k];
    const F third = axes.turned[2][k];
    change->gain[0] = change->gain[0] + d_x * (axes.turned[0][k] - place.slope[0] * third);
    change->gain[1] = change->gain[1] + d_y * (axes.turned[1][k] - place.slope[1] * third);
    F d_turned[3] = {d_x * place.gain[0], d_y * place.gain[1], Set(0.0f)};
    d_turned[2] = Set(0.0f) - d_turned[0] * place.slope[0] - d_turned[1] * place.slope[1];
    for (int j = 0; j < 2; ++j) change->slope[j] = change->slope[j] - d_turned[j] * third;
    for (int j = 0; j < 3; ++j) {
      change->own[j][k] = DotColumn(view.rotation, j, d_turned);
      for (int l = 0; l < 3; ++l) {
        F& sum = sums[kRotationSum + 3 * j + l];
        sum = sum + V::KeepIf(drawn, d_turned[j] * axes.own[l][k]);
      }
    }
  }
}

// From pixels, slopes, gains and camera z to the point, focal length and centre.
inline void DifferentiatePlace(const View& view, const Place& place, const F* d_pixel, F d_z, Change* change) {
  const F inverse_z = Set(1.0f) / place.point[2], zero = Set(0.0f);
  F depth = d_z;
  for (int j = 0; j < 2; ++j) {
    const F inverse_focal = Set(1.0f / view.focal[j]);
    const F d_ratio = V::KeepIf(place.within[j], change->slope[j]);
    // Beyond them the slope is a limit, (constant - center) / focal.
    const F d_limit = (change->slope[j] - d_ratio) * inverse_focal;
    const F d_x = d_pixel[j] * place.gain[j] + d_ratio * inverse_z;
    change->point[j] = d_x;
    depth = depth - d_x * place.ratio[j] - change->gain[j] * place.gain[j] * inverse_z;
    change->focal[j] = d_pixel[j] * place.ratio[j] + change->gain[j] * inverse_z - d_limit * place.slope[j];
    change->center[j] = d_pixel[j] + (zero - d_limit);
  }
  change->point[2] = depth;
}

// From the colour to the harmonics (stored) and the vector from camera to Gaussian.
inline void DifferentiateLook(const Columns& columns, const Look& look, M drawn, int count, const F* d_colour, int i,
                              Columns gradients, Change* change) {
  const F zero = Set(0.0f), half = Set(0.5f);
  F d_basis[kMaxHarmonics], d_raw[3], d_direction[3];
  for (int c = 0; c < 3; ++c) {
    // At 0 the maximum of jax passes half of the gradient.
    const F share = V::Select(V::Less(zero, look.colour[c]), Set(1.0f), half);
    d_raw[c] = V::KeepIf(V::And(drawn, V::LessEqual(zero, look.colour[c])), share * d_colour[c]);
  }
  for (int b = 0; b < count; ++b) {
    d_basis[b] = zero;
    for (int c = 0; c < 3; ++c) {
      V::Store(gradients[kHarmonic + 3 * b + c] + i, look.basis[b] * d_raw[c]);
      d_basis[b] = d_basis[b] + d_raw[c] * V::Load(columns[kHarmonic + 3 * b + c] + i);
    }
  }
  DifferentiateHarmonics(look.direction, count, d_basis, d_direction);
  const F radial = Dot(look.direction, d_direction);
  for (int j = 0; j < 3; ++j) {
    change->view[j] = (d_direction[j] - look.direction[j] * radial) * look.inverse_distance;
  }
}

// From the axes to the quaternion as given (stored).
inline void DifferentiateQuaternion(const Axes& axes, const F (*g)[3], M drawn, int i, Columns gradients) {
  const F two = Set(2.0f);
  const F w = axes.unit[0], x = axes.unit[1], y = axes.unit[2], z = axes.unit[3];
  const F turn[3] = {g[2][1] - g[1][2], g[0][2] - g[2][0], g[1][0] - g[0][1]};
  const F xy = g[0][1] + g[1][0], xz = g[0][2] + g[2][0], yz = g[1][2] + g[2][1];
  const F d[4] = {two * (x * turn[0] + y * turn[1] + z * turn[2]),
                  two * (y * xy + z * xz + w * turn[0] - two * x * (g[1][1] + g[2][2])),
                  two * (x * xy + z * yz + w * turn[1] - two * y * (g[0][0] + g[2][2])),
                  two * (x * xz + y * yz + w * turn[2] - two * z * (g[0][0] + g[1][1]))};
  const F radial = w * d[0] + x * d[1] + y * d[2] + z * d[3];
  for (int j = 0; j < 4; ++j) {
    V::Store(gradients[kQuat + j] + i, V::KeepIf(drawn, (d[j] - axes.unit[j] * radial) * axes.inverse_norm));
  }
}

// From point and view to the mean (stored), and the rest of the camera's sums.
inline void DifferentiateMean(const View& view, const Place& place, const Change& change, M drawn, int i,
                              Columns gradients, F* sums) {
  const auto add = [&](int k, F value) { sums[k] = sums[k] + V::KeepIf(drawn, value); };
  for (int j = 0; j < 3; ++j) {
    const F d_mean = DotColumn(view.rotation, j, change.point) + change.view[j];
    V::Store(gradients[kMean + j] + i, V::KeepIf(drawn, d_mean));
    for (int l = 0; l < 3; ++l) add(kRotationSum + 3 * j + l, change.point[j] * place.mean[l]);
    add(kShiftSum + j, change.point[j]);
    add(kViewSum + j, change.view[j]);
  }
  for (int j = 0; j < 2; ++j) {
    add(kFocalSum + j, change.focal[j]);
    add(kCenterSum + j, change.center[j]);
  }
}

inline void DifferentiateVector(const View& view, const Columns& columns, const SplatColumns& cotangents, int count,
                                int i, Columns gradients, F* sums) {
  const M sane = FindSane(columns, count, i);
  Place place;
  Axes axes;
  Footprint footprint;
  Reach reach;
  Look look;
  Change change;
  F normal[3], d[kDepth], d_u[3], d_v[3];
  FindPlace(view, columns, sane, i, &place);
  FindAxes(view, columns, sane, i, &axes);
  FindFootprint(view, place, axes, &footprint);
  FindReach(view, columns, place, footprint, i, &reach);
  const M drawn = reach.drawn;
  if (!V::Any(drawn)) {
    for (int k = 0; k < kHarmonic + 3 * count; ++k) V::Store(gradients[k] + i, Set(0.0f));
    return;
  }
  FindLook(view, columns, place, sane, count, i, &look);
  for (int j = 0; j < 3; ++j) normal[j] = OfShortest(axes, axes.own[j]);
  const F sign = FacingSign(normal, look);
  for (int k = 0; k < kDepth; ++k) d[k] = V::Load(cotangents[k] + i);
  DifferentiateFootprint(footprint, d + kConic, drawn, i, gradients, d_u, d_v);
  DifferentiateAxes(view, place, axes, drawn, d_u, d_v, &change, sums);
  DifferentiatePlace(view, place, d + kPixel, d[kFeature + 3], &change);
  DifferentiateLook(columns, look, drawn, count, d + kFeature, i, gradients, &change);
  for (int j = 0; j < 3; ++j) {
    const F d_normal = sign * d[kFeature + 4 + j], zero = Set(0.0f);
    change.own[j][0] = change.own[j][0] + V::KeepIf(axes.first, d_normal);
    change.own[j][1] = change.own[j][1] + V::Select(axes.first, zero, V::KeepIf(axes.second, d_normal));
    change.own[j][2] = change.own[j][2] + V::Select(axes.first, zero, V::Select(axes.second, zero, d_normal));
  }
  DifferentiateQuaternion(axes, change.own, drawn, i, gradients);
  DifferentiateMean(view, place, change, drawn, i, gradients, sums);
  V::Store(gradients[kLogit] + i, V::KeepIf(drawn, d[kOpacity] * reach.opacity * reach.clarity));
}

void DifferentiateProjection(const View& view, const Cloud& cloud, size_t first, size_t end,
                             const Projected<const float>& cotangents, const CloudGradients& out, double* sums) {
  alignas(64) Columns columns, gradients;
  alignas(64) SplatColumns d;
  F lanes[kCameraSums];
  for (F& sum : lanes) sum = Set(0.0f);
  const size_t row = 3 * static_cast<size_t>(cloud.num_harmonics);
  for (; first < end; first += kGroup) {
    const size_t size = end - first < kGroup ? end - first : kGroup;
    SplitCloud(cloud, first, size, columns);
    Split(cotangents.means + 2 * first, size, 2, d + kPixel);
    Split(cotangents.conics + 3 * first, size, 3, d + kConic);
    Split(cotangents.opacities + first, size, 1, d + kOpacity);
    Split(cotangents.features + kFeatures * first, size, kFeatures, d + kFeature);
    for (int i = 0; i < static_cast<int>(size); i += V::kLanes) {
      DifferentiateVector(view, columns, d, cloud.num_harmonics, i, gradients, lanes);
    }
    Merge(gradients + kMean, size, 3, out.means + 3 * first);
    Merge(gradients + kLogScale, size, 3, out.log_scales + 3 * first);
    Merge(gradients + kQuat, size, 4, out.quats + 4 * first);
    Merge(gradients + kLogit, size, 1, out.logit_opacities + first);
    Merge(gradients + kHarmonic, size, static_cast<int>(row), out.sh + row * first);
  }
  float values[V::kLanes];
  for (int k = 0; k < kCameraSums; ++k) {
    V::Store(values, lanes[k]);
    sums[k] = 0.0;
    for (float value : values) sums[k] += static_cast<double>(value);
  }
}

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_PROJECTION_H_
