// What projection works on, row-major as jax gives it (dimo_jax/render/project.py).
#ifndef DIMO_NATIVE_PROJECT_H_
#define DIMO_NATIVE_PROJECT_H_

#include <cstddef>

namespace dimo {

// One image's camera.
struct View {
  float rotation[3][3], shift[3];  // world to camera
  float position[3];               // in the world
  float focal[2], center[2];
  float low[2], high[2];  // limits of x/z and y/z in the Jacobian
  float last[2];          // centre of the last pixel
  float dilation;         // pixel^2 added to the diagonal of the 2D covariance
};

struct Cloud {
  const float* means;            // [N,3]
  const float* log_scales;       // [N,3]
  const float* quats;            // [N,4]
  const float* logit_opacities;  // [N]
  const float* sh;               // [N,num_harmonics,3]
  int num_harmonics;             // (degree + 1)^2
};

// Projected Gaussians, or their cotangents; depths and extents have none.
template <typename T>
struct Projected {
  T* means;      // [N,2]
  T* conics;     // [N,3]
  T* opacities;  // [N]
  T* features;   // [N,7]
  T* depths;     // [N]
  T* extents;    // [N,2]
};

struct CloudGradients {
  float *means, *log_scales, *quats, *logit_opacities, *sh;
};

// Sums over Gaussians from which the camera's gradient follows.
enum CameraSum { kRotationSum = 0, kShiftSum = 9, kViewSum = 12, kFocalSum = 15, kCenterSum = 17, kCameraSums = 19 };

// Gaussians first .. end - 1.
using ProjectForward = void (*)(const View& view, const Cloud& cloud, size_t first, size_t end,
                                const Projected<float>& splats);
// Writes gradients and sums.
using ProjectBackward = void (*)(const View& view, const Cloud& cloud, size_t first, size_t end,
                                 const Projected<const float>& cotangents, const CloudGradients& gradients,
                                 double* sums);

}  // namespace dimo

#endif  // DIMO_NATIVE_PROJECT_H_
