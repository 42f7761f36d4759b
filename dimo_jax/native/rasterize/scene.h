// What the stages of the rasterizer hand to each other: one image's inputs, its tile lists, its outputs.
#ifndef DIMO_NATIVE_SCENE_H_
#define DIMO_NATIVE_SCENE_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "project/project.h"

namespace dimo {

constexpr int kTileWidth = 16;
constexpr int kTileHeight = 16;
constexpr int kTilePixels = kTileWidth * kTileHeight;
constexpr int kBlockWidth = 4;  // a block is one SIMD vector of pixels; its height follows from the lanes
constexpr int kFeatures = 7;
constexpr float kMaxAlpha = 0.99f;
constexpr float kMinAlpha = 1.0f / 255.0f;
constexpr float kMinTransmittance = 1e-4f;
constexpr float kLog2E = 1.44269504088896340736f;
constexpr int32_t kNeverStopped = INT32_MAX;

// A buffer that only grows and never initializes: scratch is reused from call to call, because mapping and clearing
// fresh pages costs more than compositing a small image.
template <typename T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  T* Resize(size_t count) {
    if (count > capacity_) {
      std::free(data_);
      data_ = nullptr;
      capacity_ = 0;
      const size_t wanted = count + count / 4;
      // Access is random: large pages save address translations (measured: 5 % of the backward pass).
      constexpr size_t kLine = 64, kLargePage = size_t{2} << 20;
      const size_t alignment = wanted * sizeof(T) >= kLargePage ? kLargePage : kLine;
      const size_t bytes = (wanted * sizeof(T) + alignment - 1) / alignment * alignment;
      void* memory = nullptr;
      if (posix_memalign(&memory, alignment, bytes) != 0) throw std::bad_alloc();
#if defined(__linux__)
      if (alignment == kLargePage) madvise(memory, bytes, MADV_HUGEPAGE);  // a refusal costs nothing but speed
#endif
      data_ = static_cast<T*>(memory);
      capacity_ = wanted;
    }
    return data_;
  }
  T* get() { return data_; }
  const T* get() const { return data_; }

 private:
  T* data_ = nullptr;
  size_t capacity_ = 0;
};

// Row-major inputs of one image, as jax gives them (Splats of dimo_jax/core/types.py).
struct Inputs {
  const float* means;      // [N,2]
  const float* conics;     // [N,3]
  const float* opacities;  // [N]
  const float* depths;     // [N]
  const float* extents;    // [N,2]
  const float* features;   // [N,7]
  size_t count;
  int height;
  int width;
};

// A Gaussian that reaches the image. One cache line.
struct alignas(64) Splat {
  float x, y;     // mean, pixels
  float a, b, c;  // (-a/2, -b, -c/2) of the conic, exactly: for a needle, rounding them once more would show
  float opacity;
  float features[kFeatures];
  uint32_t source;  // index in the inputs
  uint32_t padding[2];
};

// The curve alpha = 1/255 around the mean (x, y): at height dy it spans slope * dy -+ sqrt(reach - curvature * dy^2),
// and is widest, to the right, at dy = turn.
struct alignas(32) Outline {
  float x, y;
  float slope, reach, curvature, turn;
};

// The tiles whose lists hold a Gaussian lie in this box.
struct TileBox {
  uint16_t x0, x1, y0, y1;  // inclusive
  uint32_t first_place;     // in Bins::places
};

// One image, binned: each tile's entries are in drawing order.
struct Bins {
  int height = 0, width = 0;
  int tiles_x = 0, tiles_y = 0;
  size_t num_splats = 0;
  size_t num_entries = 0;
  size_t num_tiles() const { return static_cast<size_t>(tiles_x) * static_cast<size_t>(tiles_y); }
  Buffer<Splat> splats;
  Buffer<Outline> outlines;
  Buffer<TileBox> boxes;
  Buffer<uint32_t> entries;     // [entries] indices of splats
  Buffer<uint32_t> tile_begin;  // [tiles + 1]
  Buffer<uint64_t> keys, keys_other;
  Buffer<uint32_t> corners;  // [(tiles_y + 1) * (tiles_x + 1)] of the counts
  // Backward only:
  Buffer<uint32_t> places;  // [entries] for each Gaussian, for each of its tiles in order: where in the tile's list
  Buffer<uint32_t> tile_length;  // [tiles] how much of its list was drawn before all of its pixels had stopped
  Buffer<uint32_t> row_begin;    // [tiles + 1] the first gradient row of each tile; it has one for each drawn entry
  Buffer<float> rows;            // [rows + 1,16]; the last is zero
};

struct ForwardOutputs {
  float* features;       // [H,W,7]
  float* transmittance;  // [H,W]
  int32_t* stops;        // [H,W] position in the tile's list of the Gaussian at which the pixel stopped
};

struct BackwardInputs {
  const float* transmittance;    // [H,W]
  const int32_t* stops;          // [H,W]
  const float* d_features;       // [H,W,7]
  const float* d_transmittance;  // [H,W]
};

// Sums over one tile's pixels for one Gaussian, with u = dL/dpower: u, u dx, u dy, u dx^2, u dx dy, u dy^2, features.
constexpr int kMoments = 6;
constexpr int kRowFloats = 16;

// Pixels by which outlines are widened, for the rounding of coordinates.
constexpr float kOutlineSlack = 0.02f;

// A group of Gaussians on their way into the bins, by place in the group.
constexpr int kCandidates = 128;
struct Candidates {
  alignas(64) int32_t kept[kCandidates];                                       // not 0 where it reaches the image
  int32_t x0[kCandidates], x1[kCandidates], y0[kCandidates], y1[kCandidates];  // tiles, inclusive
  float slope[kCandidates], reach[kCandidates], curvature[kCandidates], turn[kCandidates];
};

using FindGroup = void (*)(const Inputs& inputs, size_t first, int size, Candidates* out);
using ForwardTile = void (*)(const Bins& bins, int tile, const ForwardOutputs& outputs);
using BackwardTile = void (*)(Bins& bins, int tile, const BackwardInputs& inputs);  // writes bins.rows

// The functions that exist once for each instruction set.
struct Kernels {
  FindGroup find;
  ForwardTile forward;
  BackwardTile backward;
  ProjectForward project_forward;
  ProjectBackward project_backward;
};

Kernels BaselineKernels();
Kernels Avx2Kernels();
Kernels Avx512Kernels();

}  // namespace dimo

#endif  // DIMO_NATIVE_SCENE_H_
