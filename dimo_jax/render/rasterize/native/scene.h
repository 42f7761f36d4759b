// What the stages of the rasterizer hand to each other: one image's inputs, its tile lists, its outputs.
#ifndef DIMO_NATIVE_SCENE_H_
#define DIMO_NATIVE_SCENE_H_

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

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
      const size_t bytes = (wanted * sizeof(T) + 63) / 64 * 64;
      void* memory = nullptr;
      if (posix_memalign(&memory, 64, bytes) != 0) throw std::bad_alloc();
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

// Row-major inputs of one image, as jax gives them (Splats of dimo_jax/types.py).
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
  float a, b, c;  // log2(e) * (-a/2, -b, -c/2) of the conic, so that the exponent is for 2^x
  float opacity;
  float features[kFeatures];
  uint32_t source;  // index in the inputs
  uint32_t padding[2];
};

// The curve alpha = 1/255 around the mean: at height dy it spans slope * dy -+ sqrt(reach - curvature * dy^2), and is
// widest, to the right, at dy = turn.
struct alignas(32) Outline {
  float slope, reach, curvature, turn;
  uint16_t tile_x0, tile_x1, tile_y0, tile_y1;  // inclusive
  uint32_t first_row;                           // of its gradient rows, one for each tile that lists it
  uint32_t num_rows;
};

struct Entry {
  uint32_t splat;
  uint32_t row;
};

// One image, binned: each tile's entries are in drawing order.
struct Bins {
  int height = 0, width = 0;
  int tiles_x = 0, tiles_y = 0;
  size_t num_splats = 0;
  size_t num_entries = 0;
  Buffer<Splat> splats;
  Buffer<Outline> outlines;
  Buffer<Entry> entries;
  Buffer<uint32_t> tile_begin;  // [tiles + 1]
  Buffer<uint64_t> keys, keys_other;
  Buffer<float> rows;           // [entries,16], backward only
  Buffer<uint8_t> row_written;  // [entries], backward only
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

// Half a pixel covers the difference between the strip's continuous outline and the pixel centres that it must hold.
constexpr float kOutlineSlack = 0.02f;

using ForwardTile = void (*)(const Bins& bins, int tile, const ForwardOutputs& outputs);
using BackwardTile = void (*)(Bins& bins, int tile, const BackwardInputs& inputs);

struct Kernels {
  ForwardTile forward;
  BackwardTile backward;
};

Kernels BaselineKernels();
Kernels Avx2Kernels();
Kernels Avx512Kernels();

}  // namespace dimo

#endif  // DIMO_NATIVE_SCENE_H_
