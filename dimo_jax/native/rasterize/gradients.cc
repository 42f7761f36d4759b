#include "rasterize/gradients.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "rasterize/tile_boxes.h"

namespace dimo {
namespace {

// Lists the rows of a Gaussian, in the order of its tiles; the zero row stands for what no pixel of a tile saw.
void ListRows(const Bins& bins, size_t index, uint32_t zero_row, std::vector<uint32_t>* rows) {
  const TileBox& box = bins.boxes.get()[index];
  const uint32_t* place = bins.places.get() + box.first_place;
  const uint32_t *begin = bins.tile_begin.get(), *length = bins.tile_length.get(), *first = bins.row_begin.get();
  VisitBoxes(box, bins.outlines.get()[index], [&](int x0, int x1, int y0, int y1) {
    for (int y = y0; y <= y1; ++y) {
      for (int tile = y * bins.tiles_x + x0; tile <= y * bins.tiles_x + x1; ++tile) {
        const uint32_t offset = *place++ - begin[tile];
        const uint32_t row = offset < length[tile] ? first[tile] + offset : zero_row;
        __builtin_prefetch(bins.rows.get() + size_t{row} * kRowFloats);
        rows->push_back(row);
      }
    }
  });
}

// Turns a Gaussian's moments into its gradients.
void WriteGradient(const Inputs& inputs, size_t i, const float* sums, const Gradients& gradients) {
  const float* conic = inputs.conics + 3 * i;
  gradients.means[2 * i] = -(conic[0] * sums[1] + conic[1] * sums[2]);
  gradients.means[2 * i + 1] = -(conic[1] * sums[1] + conic[2] * sums[2]);
  gradients.conics[3 * i] = -0.5f * sums[3];
  gradients.conics[3 * i + 1] = -sums[4];
  gradients.conics[3 * i + 2] = -0.5f * sums[5];
  gradients.opacities[i] = sums[0] / inputs.opacities[i];
  std::memcpy(gradients.features + kFeatures * i, sums + kMoments, kFeatures * sizeof(float));
}

}  // namespace

uint32_t DrawnLength(const Bins& bins, int tile, const int32_t* stops) {
  const int32_t length = static_cast<int32_t>(bins.tile_begin.get()[tile + 1] - bins.tile_begin.get()[tile]);
  const int x0 = tile % bins.tiles_x * kTileWidth, y0 = tile / bins.tiles_x * kTileHeight;
  const int x1 = std::min(x0 + kTileWidth, bins.width), y1 = std::min(y0 + kTileHeight, bins.height);
  int32_t drawn = 0;
  for (int y = y0; y < y1; ++y) {
    const int32_t* line = stops + static_cast<size_t>(y) * bins.width;
    for (int x = x0; x < x1; ++x) drawn = std::max(drawn, line[x]);
  }
  return static_cast<uint32_t>(std::min(drawn, length));
}

void LayOutRows(Bins* bins) {
  const size_t num_tiles = bins->num_tiles();
  uint32_t* begin = bins->row_begin.Resize(num_tiles + 1);
  uint32_t rows = 0;  // at most as many as entries
  for (size_t tile = 0; tile < num_tiles; ++tile) {
    begin[tile] = rows;
    rows += bins->tile_length.get()[tile];
  }
  begin[num_tiles] = rows;
  float* values = bins->rows.Resize((size_t{rows} + 1) * kRowFloats);
  std::fill_n(values + size_t{rows} * kRowFloats, kRowFloats, 0.0f);
}

void WriteGradients(const Inputs& inputs, const Bins& bins, size_t first, size_t last, const Gradients& gradients) {
  const Splat* splats = bins.splats.get();
  const size_t begin = first == 0 ? 0 : splats[first].source;
  const size_t end = last == bins.num_splats ? inputs.count : splats[last].source;
  std::fill(gradients.means + 2 * begin, gradients.means + 2 * end, 0.0f);
  std::fill(gradients.conics + 3 * begin, gradients.conics + 3 * end, 0.0f);
  std::fill(gradients.opacities + begin, gradients.opacities + end, 0.0f);
  std::fill(gradients.features + kFeatures * begin, gradients.features + kFeatures * end, 0.0f);
  // In groups: their rows are on the way from memory while the group before is added up.
  constexpr size_t kGroup = 16;
  const uint32_t zero_row = bins.row_begin.get()[bins.num_tiles()];
  std::vector<uint32_t> rows, next_rows;
  uint32_t ends[kGroup], next_ends[kGroup];
  const auto list = [&](size_t group) {
    next_rows.clear();
    for (size_t i = group; i < std::min(group + kGroup, last); ++i) {
      ListRows(bins, i, zero_row, &next_rows);
      next_ends[i - group] = static_cast<uint32_t>(next_rows.size());
    }
  };
  list(first);
  for (size_t group = first; group < last; group += kGroup) {
    rows.swap(next_rows);
    std::memcpy(ends, next_ends, sizeof(ends));
    list(group + kGroup);
    uint32_t row = 0;
    for (size_t i = group; i < std::min(group + kGroup, last); ++i) {
      float sums[kRowFloats] = {};
      for (; row < ends[i - group]; ++row) {
        const float* values = bins.rows.get() + size_t{rows[row]} * kRowFloats;
        for (int k = 0; k < kRowFloats; ++k) sums[k] += values[k];
      }
      WriteGradient(inputs, splats[i].source, sums, gradients);
    }
  }
}

}  // namespace dimo
