#include "rasterize/binning.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "rasterize/tile_boxes.h"

namespace dimo {
namespace {

bool AllFinite(const float* values, int count) {
  float zero = 0.0f;
  for (int i = 0; i < count; ++i) zero += 0.0f * values[i];  // NaN where a value is not finite
  return zero == 0.0f;
}

// Unsigned order of the result is the order of the depths.
uint32_t SortKey(float depth) {
  uint32_t bits;
  depth += 0.0f;  // -0 and 0 are one depth
  std::memcpy(&bits, &depth, sizeof(bits));
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Sorts by the upper half of each key; stable. Returns the buffer that holds the result.
uint64_t* RadixSort(uint64_t* keys, uint64_t* other, size_t count) {
  constexpr int kBits = 11, kPasses = 3, kBuckets = 1 << kBits;
  static thread_local uint32_t histogram[kPasses][kBuckets];
  std::memset(histogram, 0, sizeof(histogram));
  for (size_t i = 0; i < count; ++i) {
    for (int pass = 0; pass < kPasses; ++pass) ++histogram[pass][(keys[i] >> (32 + kBits * pass)) & (kBuckets - 1)];
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    uint32_t* begin = histogram[pass];
    uint32_t sum = 0, largest = 0;
    for (int bucket = 0; bucket < kBuckets; ++bucket) {
      const uint32_t size = begin[bucket];
      largest = std::max(largest, size);
      begin[bucket] = sum;
      sum += size;
    }
    if (largest == count) continue;  // all share these bits
    for (size_t i = 0; i < count; ++i) {
      const uint64_t key = keys[i];
      other[begin[(key >> (32 + kBits * pass)) & (kBuckets - 1)]++] = key;
    }
    std::swap(keys, other);
  }
  return keys;
}

// Writes candidate i of a group that starts at input `first` to place `kept`; false where a feature is not finite.
bool AddSplat(const Inputs& inputs, const Candidates& group, size_t first, int i, size_t kept, Bins* bins) {
  const size_t source = first + i;
  const float* features = inputs.features + kFeatures * source;
  if (!AllFinite(features, kFeatures)) return false;
  const float* conic = inputs.conics + 3 * source;
  const float x = inputs.means[2 * source], y = inputs.means[2 * source + 1];
  Splat& splat = bins->splats.get()[kept];
  splat.x = x;
  splat.y = y;
  splat.a = -0.5f * conic[0];
  splat.b = -conic[1];
  splat.c = -0.5f * conic[2];
  splat.opacity = inputs.opacities[source];
  std::memcpy(splat.features, features, sizeof(splat.features));
  splat.source = static_cast<uint32_t>(source);
  bins->outlines.get()[kept] = {x, y, group.slope[i], group.reach[i], group.curvature[i], group.turn[i]};
  TileBox& box = bins->boxes.get()[kept];
  box.x0 = static_cast<uint16_t>(group.x0[i]);
  box.x1 = static_cast<uint16_t>(group.x1[i]);
  box.y0 = static_cast<uint16_t>(group.y0[i]);
  box.y1 = static_cast<uint16_t>(group.y1[i]);
  return true;
}

// Keeps what reaches the image, in input order. Tiles are counted by the corners of boxes: the sum of `corners` over
// all that lies above and to the left of a tile is its count.
void Cull(const Inputs& inputs, const Kernels& kernels, Bins* bins, uint32_t* corners, uint64_t* keys) {
  const int stride = bins->tiles_x + 1;
  Candidates group;
  size_t kept = 0;
  uint64_t entries = 0;
  for (size_t first = 0; first < inputs.count; first += kCandidates) {
    const int size = static_cast<int>(std::min<size_t>(kCandidates, inputs.count - first));
    kernels.find(inputs, first, size, &group);
    for (int i = 0; i < size; ++i) {
      if (group.kept[i] == 0 || !AddSplat(inputs, group, first, i, kept, bins)) continue;
      TileBox& box = bins->boxes.get()[kept];
      box.first_place = static_cast<uint32_t>(entries);
      VisitBoxes(box, bins->outlines.get()[kept], [&](int x0, int x1, int y0, int y1) {
        ++corners[y0 * stride + x0];
        --corners[y0 * stride + x1 + 1];
        --corners[(y1 + 1) * stride + x0];
        ++corners[(y1 + 1) * stride + x1 + 1];
        entries += static_cast<uint64_t>(x1 - x0 + 1) * static_cast<uint64_t>(y1 - y0 + 1);
      });
      if (entries > INT32_MAX) throw std::length_error("more than 2^31 pairs of Gaussians and tiles in one image");
      keys[kept] = static_cast<uint64_t>(SortKey(inputs.depths[first + i])) << 32 | kept;
      ++kept;
    }
  }
  bins->num_splats = kept;
  bins->num_entries = entries;
}

// Turns corners into where each tile's list begins.
void SumCorners(const Bins& bins, uint32_t* corners, uint32_t* begin) {
  const int stride = bins.tiles_x + 1;
  uint32_t sum = 0;
  for (int y = 0; y < bins.tiles_y; ++y) {
    uint32_t* line = corners + y * stride;
    if (y > 0) {
      for (int x = 0; x < stride; ++x) line[x] += line[x - stride];
    }
    uint32_t count = 0;
    for (int x = 0; x < bins.tiles_x; ++x) {
      *begin++ = sum;
      count += line[x];
      sum += count;
    }
  }
  *begin = sum;
}

// Writes the tiles' lists, front to back, and each Gaussian's places in them if `places` is not null.
void FillLists(Bins* bins, const uint64_t* order, uint32_t* begin, uint32_t* places) {
  uint32_t* entries = bins->entries.Resize(bins->num_entries + 1);
  const TileBox* boxes = bins->boxes.get();
  for (size_t i = 0; i < bins->num_splats; ++i) {
    constexpr size_t kAhead = 16;
    if (i + kAhead < bins->num_splats) __builtin_prefetch(boxes + static_cast<uint32_t>(order[i + kAhead]));
    const uint32_t index = static_cast<uint32_t>(order[i]);
    uint32_t* place = places == nullptr ? nullptr : places + boxes[index].first_place;
    VisitBoxes(boxes[index], bins->outlines.get()[index], [&](int x0, int x1, int y0, int y1) {
      for (int y = y0; y <= y1; ++y) {
        for (int tile = y * bins->tiles_x + x0; tile <= y * bins->tiles_x + x1; ++tile) {
          const uint32_t at = begin[tile]++;
          entries[at] = index;
          if (place != nullptr) *place++ = at;
        }
      }
    });
  }
}

}  // namespace

void BinImage(const Inputs& inputs, const Kernels& kernels, bool with_places, Bins* bins) {
  bins->height = inputs.height;
  bins->width = inputs.width;
  bins->tiles_x = (inputs.width + kTileWidth - 1) / kTileWidth;
  bins->tiles_y = (inputs.height + kTileHeight - 1) / kTileHeight;
  const size_t num_tiles = bins->num_tiles();
  const size_t num_corners = static_cast<size_t>(bins->tiles_x + 1) * (bins->tiles_y + 1);
  bins->splats.Resize(inputs.count + 1);
  bins->outlines.Resize(inputs.count + 1);
  bins->boxes.Resize(inputs.count + 1);
  uint32_t* corners = bins->corners.Resize(num_corners);
  std::fill(corners, corners + num_corners, 0u);
  uint64_t* keys = bins->keys.Resize(inputs.count + 1);
  Cull(inputs, kernels, bins, corners, keys);
  uint32_t* begin = bins->tile_begin.Resize(num_tiles + 1);
  SumCorners(*bins, corners, begin);
  const uint64_t* order = RadixSort(keys, bins->keys_other.Resize(inputs.count + 1), bins->num_splats);
  FillLists(bins, order, begin, with_places ? bins->places.Resize(bins->num_entries + 1) : nullptr);
  // Each tile's begin has advanced to its end, which is the next tile's begin.
  std::memmove(begin + 1, begin, num_tiles * sizeof(*begin));
  begin[0] = 0;
}

}  // namespace dimo
