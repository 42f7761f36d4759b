// The two calls that jax makes, forward and backward: batches, threads and the choice of instruction set.
//
// Sanitizer run (the whole of it, with where S comes from, is in docs/native.md):
//   g++ -std=c++17 -O1 -g -ffp-contract=off -fPIC -shared -pthread -fsanitize=address,undefined -isystem "$D" *.cc -o
//   $S LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0
//       python -m pytest tests/render/test_native.py
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "binning.h"
#include "gradients.h"
#include "parallel.h"
#include "scene.h"
#include "xla/ffi/api/ffi.h"

namespace dimo {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;

enum Level { kBaseline = 0, kAvx2 = 1, kAvx512 = 2 };
constexpr const char* kLevelNames[] = {"baseline", "avx2", "avx512"};

Level BestLevel() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return kAvx2;
#endif
  return kBaseline;
}

Kernels ChooseKernels() {
  const Level best = BestLevel();
  Level level = best;
  const char* wanted = std::getenv("DIMO_JAX_SIMD");
  if (wanted != nullptr && *wanted != '\0') {
    int named = 0;
    while (named <= kAvx512 && std::strcmp(wanted, kLevelNames[named]) != 0) ++named;
    if (named > best) {
      throw std::invalid_argument(std::string("DIMO_JAX_SIMD: found '") + wanted +
                                  "', expected baseline, avx2 or avx512, at most " + kLevelNames[best] +
                                  " on this processor");
    }
    level = static_cast<Level>(named);
  }
  return level == kAvx512 ? Avx512Kernels() : level == kAvx2 ? Avx2Kernels() : BaselineKernels();
}

int64_t ThreadLimit() {
  const char* limit = std::getenv("DIMO_JAX_NUM_THREADS");
  if (limit == nullptr || *limit == '\0') return 0;
  char* end = nullptr;
  const long long value = std::strtoll(limit, &end, 10);
  if (*end != '\0' || value < 1) {
    throw std::invalid_argument(std::string("DIMO_JAX_NUM_THREADS: found '") + limit +
                                "', expected a positive whole number");
  }
  return value;
}

// Scratch of finished calls, for the next ones.
class ScratchPool {
 public:
  std::unique_ptr<Bins> Take() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (free_.empty()) return std::make_unique<Bins>();
    std::unique_ptr<Bins> bins = std::move(free_.back());
    free_.pop_back();
    return bins;
  }
  void Give(std::unique_ptr<Bins> bins) {
    std::lock_guard<std::mutex> lock(mutex_);
    free_.push_back(std::move(bins));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Bins>> free_;
};

ScratchPool& Scratch() {
  static ScratchPool* pool = new ScratchPool;  // never destroyed: a pool thread may outlive static destructors
  return *pool;
}

class Borrowed {
 public:
  explicit Borrowed(size_t count) {
    for (size_t i = 0; i < count; ++i) bins_.push_back(Scratch().Take());
  }
  ~Borrowed() {
    for (auto& bins : bins_) Scratch().Give(std::move(bins));
  }
  Bins& operator[](size_t i) { return *bins_[i]; }

 private:
  std::vector<std::unique_ptr<Bins>> bins_;
};

// Leading axes of an operand under vmap: each is the batch's, or 1 where the operand is shared.
class Batch {
 public:
  template <typename Dimensions>
  Batch(const Dimensions& dimensions, size_t own_rank) {
    for (size_t i = 0; i + own_rank < dimensions.size(); ++i) axes_.push_back(dimensions[i]);
    for (int64_t axis : axes_) size_ *= static_cast<size_t>(axis);
  }
  size_t size() const { return size_; }

  // Which of the operand's own items belongs to item `index` of this batch.
  template <typename Dimensions>
  size_t ItemOf(size_t index, const Dimensions& dimensions) const {
    size_t item = 0, stride = 1;
    for (size_t i = axes_.size(); i-- > 0;) {
      const size_t position = index % static_cast<size_t>(axes_[i]);
      index /= static_cast<size_t>(axes_[i]);
      if (dimensions[i] != 1) item += position * stride;
      stride *= static_cast<size_t>(dimensions[i]);
    }
    return item;
  }

  template <typename Dimensions>
  void Check(const Dimensions& dimensions, std::initializer_list<int64_t> own, const char* name) const {
    bool fits = dimensions.size() == axes_.size() + own.size();
    for (size_t i = 0; fits && i < axes_.size(); ++i) fits = dimensions[i] == 1 || dimensions[i] == axes_[i];
    size_t axis = axes_.size();
    for (int64_t size : own) fits = fits && dimensions[axis++] == size;
    if (!fits) throw std::invalid_argument(std::string("rasterize: unexpected shape of ") + name);
  }

 private:
  std::vector<int64_t> axes_;
  size_t size_ = 1;
};

template <typename Buffer>
auto* ItemData(const Batch& batch, size_t index, Buffer& buffer, size_t item_size) {
  return buffer.typed_data() + batch.ItemOf(index, buffer.dimensions()) * item_size;
}

struct Operands {
  Floats means, conics, opacities, depths, extents, features;
  int64_t count, height, width;

  void Check(const Batch& batch) const {
    batch.Check(means.dimensions(), {count, 2}, "means2d");
    batch.Check(conics.dimensions(), {count, 3}, "conics");
    batch.Check(opacities.dimensions(), {count}, "opacities");
    batch.Check(depths.dimensions(), {count}, "depths");
    batch.Check(extents.dimensions(), {count, 2}, "extents");
    batch.Check(features.dimensions(), {count, kFeatures}, "features");
    constexpr int64_t kMaxSide = 1 << 16;  // float pixel coordinates and 16-bit tile coordinates stay exact
    if (height > kMaxSide || width > kMaxSide) throw std::invalid_argument("rasterize: image side above 65536 pixels");
    if (count > INT32_MAX) throw std::invalid_argument("rasterize: more than 2^31 Gaussians");
  }
  Inputs Item(const Batch& batch, size_t index) const {
    const size_t n = static_cast<size_t>(count);
    return {ItemData(batch, index, means, 2 * n),
            ItemData(batch, index, conics, 3 * n),
            ItemData(batch, index, opacities, n),
            ItemData(batch, index, depths, n),
            ItemData(batch, index, extents, 2 * n),
            ItemData(batch, index, features, kFeatures * n),
            n,
            static_cast<int>(height),
            static_cast<int>(width)};
  }
};

// Calls body(batch item, its bins) for groups of as many images as there are threads, so that scratch stays small.
template <typename Body>
void ForGroups(const Batch& batch, const Operands& operands, const Kernels& kernels, bool backward, Workers& workers,
               Body body) {
  const size_t group = std::min(batch.size(), static_cast<size_t>(workers.num_threads()));
  Borrowed bins(group);
  std::vector<Inputs> inputs(group);
  for (size_t first = 0; first < batch.size(); first += group) {
    const size_t size = std::min(group, batch.size() - first);
    for (size_t i = 0; i < size; ++i) inputs[i] = operands.Item(batch, first + i);
    workers.For(size, [&](size_t i) { BinImage(inputs[i], kernels, backward, &bins[i]); });
    body(first, size, inputs, bins);
  }
}

size_t NumTiles(const Operands& operands) {
  return static_cast<size_t>((operands.height + kTileHeight - 1) / kTileHeight) *
         static_cast<size_t>((operands.width + kTileWidth - 1) / kTileWidth);
}

template <typename Body>
ffi::Error Guarded(Body body) {
  try {
    body();
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "rasterize: out of memory");
  } catch (const std::exception& error) {
    return ffi::Error(ffi::ErrorCode::kInvalidArgument, error.what());
  }
  return ffi::Error::Success();
}

ffi::Error Forward(ffi::ThreadPool pool, Floats means, Floats conics, Floats opacities, Floats depths, Floats extents,
                   Floats features, ffi::Result<Floats> out_features, ffi::Result<Floats> out_transmittance,
                   ffi::Result<Ints> out_stops) {
  return Guarded([&] {
    const auto shape = out_features->dimensions();
    const Batch batch(shape, 3);
    const Operands operands{means,
                            conics,
                            opacities,
                            depths,
                            extents,
                            features,
                            opacities.dimensions().back(),
                            shape[shape.size() - 3],
                            shape[shape.size() - 2]};
    operands.Check(batch);
    const Kernels kernels = ChooseKernels();
    Workers workers(pool, ThreadLimit());
    const size_t pixels = static_cast<size_t>(operands.height * operands.width), tiles = NumTiles(operands);
    ForGroups(batch, operands, kernels, false, workers,
              [&](size_t first, size_t size, std::vector<Inputs>&, Borrowed& bins) {
                workers.For(size * tiles, [&](size_t i) {
                  const size_t item = first + i / tiles;
                  const ForwardOutputs outputs{out_features->typed_data() + item * pixels * kFeatures,
                                               out_transmittance->typed_data() + item * pixels,
                                               out_stops->typed_data() + item * pixels};
                  kernels.forward(bins[i / tiles], static_cast<int>(i % tiles), outputs);
                });
              });
  });
}

ffi::Error Backward(ffi::ThreadPool pool, Floats means, Floats conics, Floats opacities, Floats depths, Floats extents,
                    Floats features, Floats transmittance, Ints stops, Floats d_out_features, Floats d_transmittance,
                    ffi::Result<Floats> d_means, ffi::Result<Floats> d_conics, ffi::Result<Floats> d_opacities,
                    ffi::Result<Floats> d_features) {
  return Guarded([&] {
    const Batch batch(d_opacities->dimensions(), 1);
    const auto shape = d_out_features.dimensions();
    const int64_t height = shape[shape.size() - 3], width = shape[shape.size() - 2];
    const Operands operands{means,  conics, opacities, depths, extents, features, opacities.dimensions().back(),
                            height, width};
    operands.Check(batch);
    batch.Check(transmittance.dimensions(), {height, width}, "transmittance");
    batch.Check(stops.dimensions(), {height, width}, "stops");
    batch.Check(d_out_features.dimensions(), {height, width, kFeatures}, "d_features");
    batch.Check(d_transmittance.dimensions(), {height, width}, "d_transmittance");
    const Kernels kernels = ChooseKernels();
    Workers workers(pool, ThreadLimit());
    const size_t pixels = static_cast<size_t>(height * width), tiles = NumTiles(operands);
    const size_t count = static_cast<size_t>(operands.count);
    const auto images = [&](size_t item) {
      return BackwardInputs{ItemData(batch, item, transmittance, pixels), ItemData(batch, item, stops, pixels),
                            ItemData(batch, item, d_out_features, pixels * kFeatures),
                            ItemData(batch, item, d_transmittance, pixels)};
    };
    ForGroups(batch, operands, kernels, true, workers,
              [&](size_t first, size_t size, std::vector<Inputs>& inputs, Borrowed& bins) {
                workers.For(size, [&](size_t i) {
                  uint32_t* lengths = bins[i].tile_length.Resize(tiles);
                  const int32_t* item_stops = images(first + i).stops;
                  for (size_t tile = 0; tile < tiles; ++tile) {
                    lengths[tile] = DrawnLength(bins[i], static_cast<int>(tile), item_stops);
                  }
                  LayOutRows(&bins[i]);
                });
                workers.For(size * tiles, [&](size_t i) {
                  kernels.backward(bins[i / tiles], static_cast<int>(i % tiles), images(first + i / tiles));
                });
                constexpr size_t kChunks = 32;
                workers.For(size * kChunks, [&](size_t i) {
                  const Bins& image = bins[i / kChunks];
                  const size_t chunk = i % kChunks, item = first + i / kChunks;
                  const Gradients gradients{
                      d_means->typed_data() + item * count * 2, d_conics->typed_data() + item * count * 3,
                      d_opacities->typed_data() + item * count, d_features->typed_data() + item * count * kFeatures};
                  const size_t begin = image.num_splats * chunk / kChunks,
                               end = image.num_splats * (chunk + 1) / kChunks;
                  if (begin == end && !(image.num_splats == 0 && chunk == 0)) return;
                  WriteGradients(inputs[i / kChunks], image, begin, end, gradients);
                });
              });
  });
}

}  // namespace
}  // namespace dimo

#pragma GCC visibility push(default)  // all else is hidden

XLA_FFI_DEFINE_HANDLER_SYMBOL(DimoRasterizeForward, dimo::Forward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Ints>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(DimoRasterizeBackward, dimo::Backward,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Ints>()
                                  .Arg<dimo::Floats>()
                                  .Arg<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>()
                                  .Ret<dimo::Floats>());

// The widest instruction set of this processor that the kernels know, under its name in DIMO_JAX_SIMD.
extern "C" const char* DimoBestSimd() { return dimo::kLevelNames[dimo::BestLevel()]; }

#pragma GCC visibility pop
