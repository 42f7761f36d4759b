// The two calls that jax makes to composite, forward and backward: batches and threads.
//
// Sanitizer run (the whole of it, with where S comes from, is in docs/native.md):
//   g++ -std=c++17 -O1 -g -ffp-contract=off -fPIC -shared -pthread -fsanitize=address,undefined -isystem "$D" *.cc -o
//   $S LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0
//       python -m pytest tests/render/test_native.py
#include <algorithm>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "common/batch.h"
#include "rasterize/binning.h"
#include "rasterize/gradients.h"
#include "common/parallel.h"
#include "common/threads.h"
#include "rasterize/scene.h"
#include "simd/levels.h"
#include "xla/ffi/api/ffi.h"

namespace dimo {
namespace {

namespace ffi = xla::ffi;
using Floats = ffi::Buffer<ffi::F32>;
using Ints = ffi::Buffer<ffi::S32>;

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

#pragma GCC visibility pop
