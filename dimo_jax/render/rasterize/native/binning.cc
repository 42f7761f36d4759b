#include "binning.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace dimo {
namespace {

// Larger than any image in pixels, and an int holds it.
constexpr float kFar = 1e8f;

bool AllFinite(const Inputs& inputs, size_t i) {
  // 0 * x is 0 for every finite x and NaN for the others.
  float zero = 0.0f * inputs.opacities[i] + 0.0f * inputs.depths[i];
  for (size_t k = 0; k < 2; ++k) zero += 0.0f * inputs.means[2 * i + k] + 0.0f * inputs.extents[2 * i + k];
  for (size_t k = 0; k < 3; ++k) zero += 0.0f * inputs.conics[3 * i + k];
  for (size_t k = 0; k < kFeatures; ++k) zero += 0.0f * inputs.features[kFeatures * i + k];
  return zero == 0.0f;
}

// Pixels whose centres lie in [mean - extent, mean + extent], cut to the image; false where there is none.
bool PixelSpan(float mean, float extent, int size, int* first, int* last) {
  const float reach = extent + kOutlineSlack;
  const float low = std::min(std::max(mean - reach - 0.5f, -1.0f), kFar);
  const float high = std::min(std::max(mean + reach - 0.5f, -1.0f), kFar);
  *first = std::max(static_cast<int>(std::ceil(low)), 0);
  *last = std::min(static_cast<int>(std::floor(high)), size - 1);
  return *first <= *last;
}

// The outline a dx^2 + 2 b dx dy + c dy^2 = 2 log(255 opacity), solved for x at a given y.
void SolveOutline(const float* conic, float opacity, float extent_y, Outline* outline) {
  const double a = conic[0], b = conic[1], c = conic[2];
  const double determinant = a * c - b * b;
  // A thousandth more than exact, for the rounding of what follows.
  const float level = 2.002f * std::log(255.0f * opacity) + 1e-3f;
  if (!(a > 0) || !(determinant > 0)) {  // no ellipse: the extent's lines, whole
    constexpr float kSteep = 1e12f;
    *outline = {0.0f, kSteep * (extent_y + 1.0f) * (extent_y + 1.0f), kSteep, 0.0f, 0, 0, 0, 0, 0, 0};
    return;
  }
  const double inverse = 1.0 / a;
  const double curvature = determinant * inverse * inverse;
  const float turn = static_cast<float>(-b / c) * std::sqrt(static_cast<float>(level * c / determinant));
  *outline = {static_cast<float>(-b * inverse), static_cast<float>(level * inverse), static_cast<float>(curvature),
              turn, 0, 0, 0, 0, 0, 0};
}

bool AddSplat(const Inputs& inputs, size_t i, Splat* splat, Outline* outline) {
  const float opacity = inputs.opacities[i];
  const float extent_x = inputs.extents[2 * i], extent_y = inputs.extents[2 * i + 1];
  if (!(opacity >= kMinAlpha) || !(extent_x > 0.0f) || !(extent_y > 0.0f)) return false;
  const float x = inputs.means[2 * i], y = inputs.means[2 * i + 1];
  int x0, x1, y0, y1;
  if (!PixelSpan(x, extent_x, inputs.width, &x0, &x1)) return false;
  if (!PixelSpan(y, extent_y, inputs.height, &y0, &y1)) return false;
  if (!AllFinite(inputs, i)) return false;
  const float* conic = inputs.conics + 3 * i;
  SolveOutline(conic, opacity, extent_y, outline);
  outline->tile_x0 = static_cast<uint16_t>(x0 / kTileWidth);
  outline->tile_x1 = static_cast<uint16_t>(x1 / kTileWidth);
  outline->tile_y0 = static_cast<uint16_t>(y0 / kTileHeight);
  outline->tile_y1 = static_cast<uint16_t>(y1 / kTileHeight);
  splat->x = x;
  splat->y = y;
  splat->a = -0.5f * kLog2E * conic[0];
  splat->b = -kLog2E * conic[1];
  splat->c = -0.5f * kLog2E * conic[2];
  splat->opacity = opacity;
  std::memcpy(splat->features, inputs.features + kFeatures * i, sizeof(splat->features));
  splat->source = static_cast<uint32_t>(i);
  return true;
}

// Calls visit(tile) for the tiles that the outline enters, line by line.
template <typename Visit>
void VisitTiles(const Splat& splat, const Outline& outline, int tiles_x, Visit visit) {
  const int across = outline.tile_x1 - outline.tile_x0 + 1, down = outline.tile_y1 - outline.tile_y0 + 1;
  const bool small = across == 1 || down == 1;
  for (int ty = outline.tile_y0; ty <= outline.tile_y1; ++ty) {
    int first = outline.tile_x0, last = outline.tile_x1;
    if (!small) {
      const float top = static_cast<float>(ty * kTileHeight) + 0.5f - splat.y;
      const float bottom = top + static_cast<float>(kTileHeight - 1);
      const float right_y = std::min(std::max(outline.turn, top), bottom);
      const float left_y = std::min(std::max(-outline.turn, top), bottom);
      const float right_room = outline.reach - outline.curvature * right_y * right_y;
      const float left_room = outline.reach - outline.curvature * left_y * left_y;
      if (right_room < 0.0f && left_room < 0.0f) continue;
      const float offset = splat.x - 0.5f;
      const float right = offset + kOutlineSlack + outline.slope * right_y + std::sqrt(std::max(right_room, 0.0f));
      const float left = offset - kOutlineSlack + outline.slope * left_y - std::sqrt(std::max(left_room, 0.0f));
      const float last_tile = right / kTileWidth, first_tile = (left + 0.999f) / kTileWidth;
      // In this order a NaN leaves the whole line.
      if (last_tile < static_cast<float>(last)) {
        last = last_tile < static_cast<float>(first) ? first - 1 : static_cast<int>(last_tile);
      }
      if (first_tile > static_cast<float>(first)) {
        first = first_tile > static_cast<float>(last) ? last + 1 : static_cast<int>(first_tile);
      }
    }
    for (int tx = first; tx <= last; ++tx) visit(ty * tiles_x + tx);
  }
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

// Keeps what reaches the image, in input order, and counts its tiles.
void Cull(const Inputs& inputs, Bins* bins, uint32_t* counts, uint64_t* keys) {
  Splat* splats = bins->splats.get();
  Outline* outlines = bins->outlines.get();
  size_t kept = 0;
  uint64_t rows = 0;
  for (size_t i = 0; i < inputs.count; ++i) {
    Splat& splat = splats[kept];
    Outline& outline = outlines[kept];
    if (!AddSplat(inputs, i, &splat, &outline)) continue;
    uint32_t tiles = 0;
    VisitTiles(splat, outline, bins->tiles_x, [&](int tile) { ++counts[tile], ++tiles; });
    if (tiles == 0) continue;
    outline.first_row = static_cast<uint32_t>(rows);
    outline.num_rows = tiles;
    rows += tiles;
    if (rows > INT32_MAX) throw std::length_error("more than 2^31 pairs of Gaussians and tiles in one image");
    keys[kept] = static_cast<uint64_t>(SortKey(inputs.depths[i])) << 32 | kept;
    ++kept;
  }
  bins->num_splats = kept;
  bins->num_entries = rows;
}

}  // namespace

void BinImage(const Inputs& inputs, Bins* bins) {
  bins->height = inputs.height;
  bins->width = inputs.width;
  bins->tiles_x = (inputs.width + kTileWidth - 1) / kTileWidth;
  bins->tiles_y = (inputs.height + kTileHeight - 1) / kTileHeight;
  const size_t num_tiles = static_cast<size_t>(bins->tiles_x) * bins->tiles_y;
  bins->splats.Resize(inputs.count + 1);
  bins->outlines.Resize(inputs.count + 1);
  uint32_t* begin = bins->tile_begin.Resize(num_tiles + 1);
  std::fill(begin, begin + num_tiles + 1, 0u);
  uint64_t* keys = bins->keys.Resize(inputs.count + 1);
  Cull(inputs, bins, begin, keys);
  const uint64_t* order = RadixSort(keys, bins->keys_other.Resize(inputs.count + 1), bins->num_splats);
  uint32_t sum = 0;
  for (size_t tile = 0; tile <= num_tiles; ++tile) {
    const uint32_t size = begin[tile];
    begin[tile] = sum;
    sum += size;
  }
  // Each tile's begin advances to its end, which is the next tile's begin: shifted back below.
  Entry* entries = bins->entries.Resize(bins->num_entries + 1);
  for (size_t i = 0; i < bins->num_splats; ++i) {
    const uint32_t index = static_cast<uint32_t>(order[i]);
    if (i + 8 < bins->num_splats) {
      const uint32_t ahead = static_cast<uint32_t>(order[i + 8]);
      __builtin_prefetch(bins->splats.get() + ahead);
      __builtin_prefetch(bins->outlines.get() + ahead);
    }
    const Outline& outline = bins->outlines.get()[index];
    uint32_t row = outline.first_row;
    VisitTiles(bins->splats.get()[index], outline, bins->tiles_x,
               [&](int tile) { entries[begin[tile]++] = {index, row++}; });
  }
  std::memmove(begin + 1, begin, num_tiles * sizeof(*begin));
  begin[0] = 0;
}

}  // namespace dimo
