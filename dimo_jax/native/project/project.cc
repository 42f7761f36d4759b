// The two calls that jax makes to project, forward and backward: batches, threads, and the camera's gradient.
#include "project/project.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/batch.h"
#include "common/parallel.h"
#include "common/threads.h"
#include "rasterize/scene.h"
#include "simd/levels.h"
#include "xla/ffi/api/ffi.h"

namespace dimo {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Results = ffi::Result<Floats>;

constexpr size_t kBlock = 1024;         // Gaussians that one thread takes at a time; sums are by blocks, in order
constexpr double kImageMargin = 0.15;  // as in dimo_jax/render/project.py

struct Operands {
  const Floats &means, &log_scales, &quats, &logit_opacities, &sh, &world_to_camera, &focal, &center;
  int64_t height, width;
  float dilation;

  int64_t Count() const { return logit_opacities.dimensions().back(); }
  int64_t NumHarmonics() const {
    const auto dimensions = sh.dimensions();
    return dimensions.size() < 2 ? 0 : dimensions[dimensions.size() - 2];
  }
  size_t NumBlocks() const { return (static_cast<size_t>(Count()) + kBlock - 1) / kBlock; }

  void Check(const Batch& batch) const {
    const int64_t n = Count(), harmonics = NumHarmonics();
    if (harmonics != 1 && harmonics != 4 && harmonics != 9 && harmonics != 16) {
      throw std::invalid_argument("native: unexpected shape of sh");
    }
    batch.Check(means.dimensions(), {n, 3}, "means");
    batch.Check(log_scales.dimensions(), {n, 3}, "log_scales");
    batch.Check(quats.dimensions(), {n, 4}, "quats");
    batch.Check(logit_opacities.dimensions(), {n}, "logit_opacities");
    batch.Check(sh.dimensions(), {n, harmonics, 3}, "sh");
    batch.Check(world_to_camera.dimensions(), {4, 4}, "world_to_camera");
    batch.Check(focal.dimensions(), {2}, "focal");
    batch.Check(center.dimensions(), {2}, "center");
  }

  Cloud CloudOf(const Batch& batch, size_t item) const {
    const size_t n = static_cast<size_t>(Count()), harmonics = static_cast<size_t>(NumHarmonics());
    return {ItemData(batch, item, means, 3 * n),         ItemData(batch, item, log_scales, 3 * n),
            ItemData(batch, item, quats, 4 * n),         ItemData(batch, item, logit_opacities, n),
            ItemData(batch, item, sh, 3 * harmonics * n), static_cast<int>(harmonics)};
  }

  View ViewOf(const Batch& batch, size_t item) const {
    const float* pose = ItemData(batch, item, world_to_camera, 16);
    const float* focals = ItemData(batch, item, focal, 2);
    const float* centers = ItemData(batch, item, center, 2);
    View view;
    view.dilation = dilation;
    for (int i = 0; i < 3; ++i) {
      for (int j = 0; j < 3; ++j) view.rotation[i][j] = pose[4 * i + j];
      view.shift[i] = pose[4 * i + 3];
    }
    for (int j = 0; j < 3; ++j) {
      view.position[j] = -(view.rotation[0][j] * view.shift[0] + view.rotation[1][j] * view.shift[1] +
                           view.rotation[2][j] * view.shift[2]);
    }
    const int64_t sizes[2] = {width, height};
    for (int j = 0; j < 2; ++j) {
      const double size = static_cast<double>(sizes[j]), margin = kImageMargin * size;
      view.focal[j] = focals[j];
      view.center[j] = centers[j];
      view.low[j] = (static_cast<float>(-margin) - centers[j]) / focals[j];
      view.high[j] = (static_cast<float>(size + margin) - centers[j]) / focals[j];
      view.last[j] = static_cast<float>(size - 0.5);
    }
    return view;
  }
};

// Calls body(batch item, block, its first Gaussian, its end) on all threads.
template <typename Body>
void ForBlocks(ffi::ThreadPool pool, const Batch& batch, const Operands& operands, Body body) {
  const size_t blocks = operands.NumBlocks(), count = static_cast<size_t>(operands.Count());
  Workers(pool, ThreadLimit()).For(batch.size() * blocks, [&](size_t unit) {
    const size_t block = unit % blocks;
    body(unit / blocks, block, block * kBlock, std::min((block + 1) * kBlock, count));
  });
}

ffi::Error ProjectForwardCall(ffi::ThreadPool pool, Floats means, Floats log_scales, Floats quats,
                              Floats logit_opacities, Floats sh, Floats world_to_camera, Floats focal, Floats center,
                              Results means2d, Results conics, Results opacities, Results features, Results depths,
                              Results extents, int32_t height, int32_t width, float dilation) {
  return Guarded([&] {
    const Operands operands{means, log_scales, quats, logit_opacities, sh, world_to_camera, focal, center,
                            height, width, dilation};
    const Batch batch(depths->dimensions(), 1);
    operands.Check(batch);
    const Kernels kernels = ChooseKernels();
    const size_t n = static_cast<size_t>(operands.Count());
    ForBlocks(pool, batch, operands, [&](size_t item, size_t, size_t first, size_t end) {
      const Projected<float> out{means2d->typed_data() + 2 * n * item,   conics->typed_data() + 3 * n * item,
                                 opacities->typed_data() + n * item,     features->typed_data() + kFeatures * n * item,
                                 depths->typed_data() + n * item,        extents->typed_data() + 2 * n * item};
      kernels.project_forward(operands.ViewOf(batch, item), operands.CloudOf(batch, item), first, end, out);
    });
  });
}

// The camera's gradient, from the sums of an image's blocks. The position in the world is -R^T t, and a Gaussian's
// colour depends on its mean less that.
void WriteCameraGradient(const View& view, const double* blocks, size_t num_blocks, float* d_pose, float* d_focal,
                         float* d_center) {
  double sums[kCameraSums] = {};
  for (size_t block = 0; block < num_blocks; ++block) {
    for (int k = 0; k < kCameraSums; ++k) sums[k] += blocks[block * kCameraSums + static_cast<size_t>(k)];
  }
  std::memset(d_pose, 0, 16 * sizeof(float));
  for (int i = 0; i < 3; ++i) {
    double d_shift = sums[kShiftSum + i];
    for (int j = 0; j < 3; ++j) {
      const double d_view = sums[kViewSum + j];
      d_pose[4 * i + j] = static_cast<float>(sums[kRotationSum + 3 * i + j] + d_view * view.shift[i]);
      d_shift += d_view * view.rotation[i][j];
    }
    d_pose[4 * i + 3] = static_cast<float>(d_shift);
  }
  for (int j = 0; j < 2; ++j) {
    d_focal[j] = static_cast<float>(sums[kFocalSum + j]);
    d_center[j] = static_cast<float>(sums[kCenterSum + j]);
  }
}

ffi::Error ProjectBackwardCall(ffi::ThreadPool pool, Floats means, Floats log_scales, Floats quats,
                               Floats logit_opacities, Floats sh, Floats world_to_camera, Floats focal, Floats center,
                               Floats d_means2d, Floats d_conics, Floats d_opacities, Floats d_features,
                               Results d_means, Results d_log_scales, Results d_quats, Results d_logit_opacities,
                               Results d_sh, Results d_world_to_camera, Results d_focal, Results d_center,
                               int32_t height, int32_t width, float dilation) {
  return Guarded([&] {
    const Operands operands{means, log_scales, quats, logit_opacities, sh, world_to_camera, focal, center,
                            height, width, dilation};
    const Batch batch(d_logit_opacities->dimensions(), 1);
    operands.Check(batch);
    const int64_t count = operands.Count();
    batch.Check(d_means2d.dimensions(), {count, 2}, "d_means2d");
    batch.Check(d_conics.dimensions(), {count, 3}, "d_conics");
    batch.Check(d_opacities.dimensions(), {count}, "d_opacities");
    batch.Check(d_features.dimensions(), {count, kFeatures}, "d_features");
    const Kernels kernels = ChooseKernels();
    const size_t n = static_cast<size_t>(count), blocks = operands.NumBlocks();
    const size_t row = 3 * n * static_cast<size_t>(operands.NumHarmonics());
    std::vector<double> sums(batch.size() * blocks * kCameraSums);
    ForBlocks(pool, batch, operands, [&](size_t item, size_t block, size_t first, size_t end) {
      const Projected<const float> cotangents{
          ItemData(batch, item, d_means2d, 2 * n),          ItemData(batch, item, d_conics, 3 * n),
          ItemData(batch, item, d_opacities, n),            ItemData(batch, item, d_features, kFeatures * n),
          nullptr,                                          nullptr};
      const CloudGradients out{d_means->typed_data() + 3 * n * item, d_log_scales->typed_data() + 3 * n * item,
                               d_quats->typed_data() + 4 * n * item, d_logit_opacities->typed_data() + n * item,
                               d_sh->typed_data() + row * item};
      kernels.project_backward(operands.ViewOf(batch, item), operands.CloudOf(batch, item), first, end, cotangents,
                               out, sums.data() + (item * blocks + block) * kCameraSums);
    });
    for (size_t item = 0; item < batch.size(); ++item) {
      WriteCameraGradient(operands.ViewOf(batch, item), sums.data() + item * blocks * kCameraSums, blocks,
                          d_world_to_camera->typed_data() + 16 * item, d_focal->typed_data() + 2 * item,
                          d_center->typed_data() + 2 * item);
    }
  });
}

// What both calls take first.
auto BindOperands() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>()
      .Arg<Floats>();
}

}  // namespace
}  // namespace dimo

#pragma GCC visibility push(default)  // all else is hidden

XLA_FFI_DEFINE_HANDLER_SYMBOL(DimoProjectForward, dimo::ProjectForwardCall,
                              dimo::BindOperands()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Attr<int32_t>("height")
                                  .Attr<int32_t>("width")
                                  .Attr<float>("dilation"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(DimoProjectBackward, dimo::ProjectBackwardCall,
                              dimo::BindOperands()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Attr<int32_t>("height")
                                  .Attr<int32_t>("width")
                                  .Attr<float>("dilation"));

#pragma GCC visibility pop
