// Linear blend skinning (paper Eq. 7) for CPUs: forward and backward of dimo_jax/skinning/native.py, called by jax.
//
// A pose of a key point is 16 numbers: a rotation matrix by rows, a shift, and the same rotation as a unit quaternion.
// Work is split over poses and blocks of Gaussians; every sum runs in a fixed order, whatever the number of threads.
#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <vector>

#include "common/batch.h"
#include "common/parallel.h"
#include "common/threads.h"
#include "xla/ffi/api/ffi.h"

// One binary for all processors: the loader picks the widest clone. Address sanitizers start too late for that.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
#define DIMO_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define DIMO_CLONES
#endif

namespace dimo {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;

constexpr int kPose = 16;           // numbers of a key point's pose
constexpr size_t kBlock = 4096;     // Gaussians that one thread takes at a time
constexpr float kLimit = 1.8446e19f;  // derivatives are clipped here, as in dimo_jax/geometry/safe.py

// A pose as one vector, or as several where the processor's are shorter.
typedef float Pose __attribute__((vector_size(kPose * sizeof(float)), aligned(sizeof(float)), may_alias));

struct Shape {
  size_t gaussians, key_points, neighbors;
};

struct Item {
  const float *means, *quats, *poses, *weights;
  const int32_t* neighbors;
};

inline void Multiply(const float* a, const float* b, float* out) {
  out[0] = a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3];
  out[1] = a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2];
  out[2] = a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1];
  out[3] = a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0];
}

// Length of q, 0 where every component is under float32's normal range; squares of floats cannot underflow in double.
inline double Length(const float* q) {
  float largest = 0.0f;
  for (int i = 0; i < 4; ++i) largest = std::max(largest, std::fabs(q[i]));
  if (largest < FLT_MIN) return 0.0;
  double sum = 0.0;
  for (int i = 0; i < 4; ++i) sum += static_cast<double>(q[i]) * q[i];
  return std::sqrt(sum);
}

inline int32_t Clamp(int32_t index, size_t count) {
  return std::min(std::max(index, int32_t{0}), static_cast<int32_t>(count) - 1);
}

inline __attribute__((always_inline)) void Blend(const Item& item, const Shape& shape, size_t n, float* blended) {
  Pose sum = {};
  for (size_t j = 0; j < shape.neighbors; ++j) {
    const float* pose = item.poses + kPose * Clamp(item.neighbors[n * shape.neighbors + j], shape.key_points);
    sum += item.weights[n * shape.neighbors + j] * *reinterpret_cast<const Pose*>(pose);
  }
  *reinterpret_cast<Pose*>(blended) = sum;
}

DIMO_CLONES void ForwardBlock(const Item& item, const Shape& shape, size_t begin, size_t end, float* means,
                              float* quats) {
  float blended[kPose], product[4];
  for (size_t n = begin; n < end; ++n) {
    Blend(item, shape, n, blended);
    const float* p = item.means + 3 * n;
    for (int r = 0; r < 3; ++r) {
      const float* row = blended + 3 * r;
      means[3 * n + r] = row[0] * p[0] + row[1] * p[1] + row[2] * p[2] + blended[9 + r];
    }
    Multiply(blended + 12, item.quats + 4 * n, product);
    const double length = Length(product);
    for (int i = 0; i < 4; ++i) {
      quats[4 * n + i] = length == 0.0 ? (i == 0 ? 1.0f : 0.0f) : static_cast<float>(product[i] / length);
    }
  }
}

inline bool AreZero(const float* values, int count) {
  for (int i = 0; i < count; ++i) {
    if (values[i] != 0.0f) return false;  // NaN is not 0
  }
  return true;
}

// Adds to d_poses [K,16]; writes the others. A Gaussian that no image feels, as a dead one, costs next to nothing.
DIMO_CLONES void BackwardBlock(const Item& item, const Shape& shape, size_t begin, size_t end, const float* d_moved,
                               const float* d_turned, float* d_means, float* d_quats, float* d_poses,
                               float* d_weights) {
  float blended[kPose], d_blended[kPose], dot[kPose], product[4], d_product[4], conjugate[4];
  for (size_t n = begin; n < end; ++n) {
    const float* p = item.means + 3 * n;
    const float* d = d_moved + 3 * n;
    if (AreZero(d, 3) && AreZero(d_turned + 4 * n, 4)) {
      std::fill_n(d_means + 3 * n, 3, 0.0f);
      std::fill_n(d_quats + 4 * n, 4, 0.0f);
      std::fill_n(d_weights + shape.neighbors * n, shape.neighbors, 0.0f);
      continue;
    }
    Blend(item, shape, n, blended);
    for (int r = 0; r < 3; ++r) {
      for (int c = 0; c < 3; ++c) d_blended[3 * r + c] = d[r] * p[c];
      d_blended[9 + r] = d[r];
      d_means[3 * n + r] = blended[r] * d[0] + blended[3 + r] * d[1] + blended[6 + r] * d[2];
    }
    const float* q = item.quats + 4 * n;
    Multiply(blended + 12, q, product);
    const double length = Length(product);
    double radial = 0.0;
    if (length > 0.0) {
      for (int i = 0; i < 4; ++i) radial += product[i] / length * d_turned[4 * n + i];
    }
    const double inverse = length > 0.0 ? std::min(1.0 / length, static_cast<double>(kLimit)) : 0.0;
    for (int i = 0; i < 4; ++i) {
      const double unit = length > 0.0 ? product[i] / length : 0.0;
      d_product[i] = static_cast<float>((d_turned[4 * n + i] - unit * radial) * inverse);
    }
    // The product is linear in both factors; the transpose of a multiplication is that by the conjugate.
    for (int i = 0; i < 4; ++i) conjugate[i] = i == 0 ? q[0] : -q[i];
    Multiply(d_product, conjugate, d_blended + 12);
    for (int i = 0; i < 4; ++i) conjugate[i] = i == 0 ? blended[12] : -blended[12 + i];
    Multiply(conjugate, d_product, d_quats + 4 * n);
    const Pose change = *reinterpret_cast<const Pose*>(d_blended);
    for (size_t j = 0; j < shape.neighbors; ++j) {
      const size_t edge = n * shape.neighbors + j;
      const size_t row = kPose * static_cast<size_t>(Clamp(item.neighbors[edge], shape.key_points));
      *reinterpret_cast<Pose*>(d_poses + row) += item.weights[edge] * change;
      *reinterpret_cast<Pose*>(dot) = *reinterpret_cast<const Pose*>(item.poses + row) * change;
      for (int half = kPose / 2; half > 0; half /= 2) {
        for (int c = 0; c < half; ++c) dot[c] += dot[c + half];
      }
      d_weights[edge] = dot[0];
    }
  }
}

struct Operands {
  const Floats &means, &quats, &poses;
  const Ints& neighbors;
  const Floats& weights;

  Item At(const Batch& batch, const Shape& shape, size_t i) const {
    const size_t n = shape.gaussians, edges = n * shape.neighbors;
    return {ItemData(batch, i, means, 3 * n), ItemData(batch, i, quats, 4 * n),
            ItemData(batch, i, poses, kPose * shape.key_points), ItemData(batch, i, weights, edges),
            ItemData(batch, i, neighbors, edges)};
  }
  Shape Size() const {
    const auto edges = neighbors.dimensions();
    const auto table = poses.dimensions();
    return {static_cast<size_t>(edges[edges.size() - 2]), static_cast<size_t>(table[table.size() - 2]),
            static_cast<size_t>(edges[edges.size() - 1])};
  }
};

size_t CountBlocks(const Shape& shape) { return (shape.gaussians + kBlock - 1) / kBlock; }

ffi::Error Forward(ffi::ThreadPool pool, Floats means, Floats quats, Floats poses, Ints neighbors, Floats weights,
                   ffi::ResultBuffer<ffi::F32> moved, ffi::ResultBuffer<ffi::F32> turned) try {
  const Operands operands{means, quats, poses, neighbors, weights};
  const Batch batch(moved->dimensions(), 2);
  const Shape shape = operands.Size();
  const size_t blocks = CountBlocks(shape);
  Workers(pool, ThreadLimit()).For(batch.size() * blocks, [&](size_t unit) {
    const size_t i = unit / blocks, begin = unit % blocks * kBlock;
    ForwardBlock(operands.At(batch, shape, i), shape, begin, std::min(begin + kBlock, shape.gaussians),
                 moved->typed_data() + 3 * shape.gaussians * i, turned->typed_data() + 4 * shape.gaussians * i);
  });
  return ffi::Error::Success();
} catch (const std::exception& error) {
  return ffi::Error::Internal(error.what());
}

ffi::Error Backward(ffi::ThreadPool pool, Floats means, Floats quats, Floats poses, Ints neighbors, Floats weights,
                    Floats d_moved, Floats d_turned, ffi::ResultBuffer<ffi::F32> d_means,
                    ffi::ResultBuffer<ffi::F32> d_quats, ffi::ResultBuffer<ffi::F32> d_poses,
                    ffi::ResultBuffer<ffi::F32> d_weights) try {
  const Operands operands{means, quats, poses, neighbors, weights};
  const Batch batch(d_means->dimensions(), 2);
  const Shape shape = operands.Size();
  const size_t blocks = CountBlocks(shape), table = kPose * shape.key_points, n = shape.gaussians;
  std::vector<float> partial(blocks > 1 ? batch.size() * blocks * table : 0);
  std::memset(d_poses->typed_data(), 0, batch.size() * table * sizeof(float));
  Workers workers(pool, ThreadLimit());
  workers.For(batch.size() * blocks, [&](size_t unit) {
    const size_t i = unit / blocks, begin = unit % blocks * kBlock;
    float* sums = blocks > 1 ? partial.data() + unit * table : d_poses->typed_data() + i * table;
    BackwardBlock(operands.At(batch, shape, i), shape, begin, std::min(begin + kBlock, n),
                  ItemData(batch, i, d_moved, 3 * n), ItemData(batch, i, d_turned, 4 * n),
                  d_means->typed_data() + 3 * n * i, d_quats->typed_data() + 4 * n * i, sums,
                  d_weights->typed_data() + n * shape.neighbors * i);
  });
  if (blocks > 1) {
    workers.For(batch.size(), [&](size_t i) {
      float* sums = d_poses->typed_data() + i * table;
      for (size_t block = 0; block < blocks; ++block) {
        const float* part = partial.data() + (i * blocks + block) * table;
        for (size_t c = 0; c < table; ++c) sums[c] += part[c];
      }
    });
  }
  return ffi::Error::Success();
} catch (const std::exception& error) {
  return ffi::Error::Internal(error.what());
}

}  // namespace
}  // namespace dimo

#pragma GCC visibility push(default)  // all else is hidden

XLA_FFI_DEFINE_HANDLER_SYMBOL(DimoSkinForward, dimo::Forward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Ints>()
                                  .Arg<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(DimoSkinBackward, dimo::Backward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Ints>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>());

#pragma GCC visibility pop
