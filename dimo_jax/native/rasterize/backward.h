// One tile, backward: Gaussian by Gaussian, last first, with its sums in registers and the pixels in the L1 cache. The
// alphas of a few Gaussians are computed beforehand, so that the long chain of exp does not sit inside that of the
// pixels.
#ifndef DIMO_NATIVE_BACKWARD_H_
#define DIMO_NATIVE_BACKWARD_H_

#include "rasterize/blocks.h"

namespace dimo {
namespace {

struct BackwardBlock {
  float transmittance[kLanes];  // in front of what has been visited so far, back to front
  float behind[kLanes];         // cotangent-weighted colour of what lies behind, per unit of light that reaches it
  float d_features[kFeatures][kLanes];
  int32_t stops[kLanes];
};

struct BackwardState {
  Frame frame;
  alignas(64) BackwardBlock blocks[kBlocks];
  int32_t block_stops[kBlocks];  // largest stop of the block's pixels, at most the list's length
  uint64_t live;                 // blocks where the present Gaussian may have been drawn
  int32_t next_stop;             // largest stop of the other blocks
};

inline void StartBackward(const BackwardInputs& inputs, int width, int32_t length, BackwardState* state) {
  const Frame& frame = state->frame;
  std::memset(state->blocks, 0, sizeof(state->blocks));
  std::memset(state->block_stops, 0, sizeof(state->block_stops));
  for (int line = 0; line < frame.lines; ++line) {
    const size_t start = static_cast<size_t>(frame.y0 + line) * width + frame.x0;
    for (int column = 0; column < frame.columns; ++column) {
      const int block = line / kBlockHeight * kBlocksAcross + column / kBlockWidth;
      const int lane = line % kBlockHeight * kBlockWidth + column % kBlockWidth;
      BackwardBlock& pixels = state->blocks[block];
      const float* d_features = inputs.d_features + (start + column) * kFeatures;
      for (int k = 0; k < kFeatures; ++k) pixels.d_features[k][lane] = d_features[k];
      pixels.transmittance[lane] = inputs.transmittance[start + column];
      pixels.behind[lane] = inputs.d_transmittance[start + column];
      const int32_t stop = inputs.stops[start + column];
      pixels.stops[lane] = stop < length ? stop : length;
      if (pixels.stops[lane] > state->block_stops[block]) state->block_stops[block] = pixels.stops[lane];
    }
  }
  state->live = 0;
  state->next_stop = 0;
  for (const int32_t stop : state->block_stops) state->next_stop = stop > state->next_stop ? stop : state->next_stop;
}

// Pairs of a Gaussian and a block, in the order of the backward pass, and their alphas before the clamp.
constexpr int kPairEntries = 32;  // Gaussians at a time: their alphas stay in the L1 cache
struct Pairs {
  int count;
  uint8_t entries[kPairEntries * kBlocks + 16];  // places in the chunk
  uint8_t blocks[kPairEntries * kBlocks + 16];
  alignas(64) float alphas[kPairEntries * kBlocks + V::kUnroll][kLanes];
};

// Makes the blocks live whose pixels were still drawing at `place`; returns the furthest stop of the others.
inline int32_t WakeBlocks(int32_t place, BackwardState* state) {
  int32_t next_stop = 0;
  for (int block = 0; block < kBlocks; ++block) {
    const int32_t stop = state->block_stops[block];
    if (stop > place) state->live |= uint64_t{1} << block;
    if (stop <= place && stop > next_stop) next_stop = stop;
  }
  return next_stop;
}

// Lists the pairs of entries [low, high) of the chunk, whose first has place `first` in the tile, last entry first.
inline void ListPairs(const Chunk& chunk, int low, int high, int32_t first, BackwardState* state, Pairs* pairs) {
  int count = 0;
  for (int i = high - 1; i >= low; --i) {
    if (first + i < state->next_stop) state->next_stop = WakeBlocks(first + i, state);
    const int added = V::ListBits(chunk.covered[i] & state->live, pairs->blocks + count);
    std::memset(pairs->entries + count, i, 16);
    for (int more = 16; more < added; more += 16) std::memset(pairs->entries + count + more, i, 16);
    count += added;
  }
  for (int u = 0; u < V::kUnroll; ++u) {
    pairs->entries[count + u] = kChunk;  // nothing
    pairs->blocks[count + u] = 0;
  }
  pairs->count = count;
}

// Computes the alphas, 0 where nothing was drawn, and drops pairs without any.
inline void ComputeAlphas(const Chunk& chunk, int32_t first, const BackwardState& state, Pairs* pairs) {
  size_t kept = 0;
  const size_t count = static_cast<size_t>(pairs->count);
  for (size_t i = 0; i < count; i += V::kUnroll) {
    F alphas[V::kUnroll], dx, dy;
    M drawn[V::kUnroll];
    unsigned entries[V::kUnroll], blocks[V::kUnroll];
#pragma GCC unroll 4
    for (int u = 0; u < V::kUnroll; ++u) {
      entries[u] = pairs->entries[i + u];
      blocks[u] = pairs->blocks[i + u];
      M visible;
      const F raw = RawAlpha(*chunk.splats[entries[u]], state.frame, blocks[u], &dx, &dy, &visible);
      const I place = V::SetInt(first + static_cast<int32_t>(entries[u]));
      drawn[u] = V::And(visible, V::LessInt(place, V::LoadInt(state.blocks[blocks[u]].stops)));
      alphas[u] = V::KeepIf(drawn[u], raw);
    }
#pragma GCC unroll 4
    for (int u = 0; u < V::kUnroll; ++u) {
      V::Store(pairs->alphas[kept], alphas[u]);
      pairs->entries[kept] = static_cast<uint8_t>(entries[u]);
      pairs->blocks[kept] = static_cast<uint8_t>(blocks[u]);
      kept += V::Any(drawn[u]);
    }
  }
  pairs->count = static_cast<int>(kept);
}

inline void DifferentiateBlock(const Splat& splat, unsigned block, const float* alphas, BackwardState* state, F* sums) {
  BackwardBlock& pixels = state->blocks[block];
  const F dx = V::Set(splat.x) - V::Load(state->frame.pixel_x[block % kBlocksAcross]);
  const F dy = V::Set(splat.y) - V::Load(state->frame.pixel_y[block / kBlocksAcross]);
  const F raw = V::Load(alphas);
  const F alpha = V::Min(raw, V::Set(kMaxAlpha));
  const F before = V::Load(pixels.transmittance) * V::Reciprocal(V::Set(1.0f) - alpha);
  const F behind = V::Load(pixels.behind);
  const F weight = alpha * before;
  F colour = V::Set(splat.features[0]) * V::Load(pixels.d_features[0]);
  F other = V::Set(splat.features[1]) * V::Load(pixels.d_features[1]);
  for (int k = 2; k < kFeatures; ++k) {
    F& sum = k % 2 ? other : colour;
    sum = V::Fma(V::Set(splat.features[k]), V::Load(pixels.d_features[k]), sum);
  }
  for (int k = 0; k < kFeatures; ++k) {
    sums[kMoments + k] = V::Fma(weight, V::Load(pixels.d_features[k]), sums[kMoments + k]);
  }
  const F contrast = colour + other - behind;
  V::Store(pixels.transmittance, before);
  V::Store(pixels.behind, V::Fma(alpha, contrast, behind));
  const F d_power = V::KeepIf(V::LessEqual(raw, V::Set(kMaxAlpha)), weight * contrast);
  const F along_x = d_power * dx, along_y = d_power * dy;
  sums[0] = sums[0] + d_power;
  sums[1] = sums[1] + along_x;
  sums[2] = sums[2] + along_y;
  sums[3] = V::Fma(along_x, dx, sums[3]);
  sums[4] = V::Fma(along_x, dy, sums[4]);
  sums[5] = V::Fma(along_y, dy, sums[5]);
}

// Runs through the pairs and writes the rows of the Gaussians among them; `rows` are the chunk's.
inline void DifferentiatePairs(const Chunk& chunk, const Pairs& pairs, float* rows, BackwardState* state) {
  for (int i = 0; i < pairs.count;) {
    const uint8_t entry = pairs.entries[i];
    const Splat& splat = *chunk.splats[entry];
    F sums[kGradients];
    for (F& sum : sums) sum = V::Set(0.0f);
    do {
      DifferentiateBlock(splat, pairs.blocks[i], pairs.alphas[i], state, sums);
    } while (++i < pairs.count && pairs.entries[i] == entry);
    V::ReduceRow(sums, kGradients, rows + entry * kRowFloats);
  }
}

void CompositeBackward(Bins& bins, int tile, const BackwardInputs& inputs) {
  const int32_t length = static_cast<int32_t>(bins.tile_length.get()[tile]);
  if (length == 0) return;
  BackwardState state;
  MakeFrame(bins, tile, &state.frame);
  StartBackward(inputs, bins.width, length, &state);
  const uint32_t begin = bins.tile_begin.get()[tile];
  Chunk chunk;
  Pairs pairs;
  for (int32_t left = length; left > 0; left -= chunk.size) {
    const int32_t first = left > kChunk ? left - kChunk : 0;
    FillChunk(bins, begin + first, begin + left, state.frame, &chunk);
    float* rows = bins.rows.get() + (size_t{bins.row_begin.get()[tile]} + static_cast<size_t>(first)) * kRowFloats;
    for (int high = chunk.size; high > 0; high -= kPairEntries) {
      const int low = high > kPairEntries ? high - kPairEntries : 0;
      ListPairs(chunk, low, high, first, &state, &pairs);
      ComputeAlphas(chunk, first, state, &pairs);
      std::memset(rows + low * kRowFloats, 0, static_cast<size_t>(high - low) * kRowFloats * sizeof(float));
      DifferentiatePairs(chunk, pairs, rows, &state);
    }
  }
}

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_BACKWARD_H_
