// One tile, forward and backward, over the vector type V (pixels) and U (strips of blocks) of the including file.
//
// Gaussians are visited one after the other; pixels stand in blocks of kBlockWidth x kBlockHeight, one vector each,
// whose state stays in the L1 cache. Of every Gaussian only the blocks that its outline enters are computed.
#ifndef DIMO_NATIVE_COMPOSITE_H_
#define DIMO_NATIVE_COMPOSITE_H_

namespace dimo {
namespace {

using F = V::F;
using I = V::I;
using M = V::M;

constexpr int kLanes = V::kLanes;
constexpr int kBlockHeight = kLanes / kBlockWidth;
constexpr int kBlocksAcross = kTileWidth / kBlockWidth;
constexpr int kStrips = kTileHeight / kBlockHeight;
constexpr int kBlocks = kBlocksAcross * kStrips;
constexpr int kGradients = kMoments + kFeatures;
static_assert(kBlocksAcross == 4 && kBlocks <= 64, "PackSpans packs four bits to a strip into 64 bits");

// Where the tile lies, and its pixel centres by block column and by strip.
struct Frame {
  int x0, y0, columns, lines;  // columns and lines: pixels inside the image
  alignas(64) float pixel_x[kBlocksAcross][kLanes];
  alignas(64) float pixel_y[kStrips][kLanes];
};

inline int PixelColumn(int block, int lane) { return block % kBlocksAcross * kBlockWidth + lane % kBlockWidth; }
inline int PixelLine(int block, int lane) { return block / kBlocksAcross * kBlockHeight + lane / kBlockWidth; }

inline void MakeFrame(const Bins& bins, int tile, Frame* frame) {
  frame->x0 = tile % bins.tiles_x * kTileWidth;
  frame->y0 = tile / bins.tiles_x * kTileHeight;
  frame->columns = bins.width - frame->x0 < kTileWidth ? bins.width - frame->x0 : kTileWidth;
  frame->lines = bins.height - frame->y0 < kTileHeight ? bins.height - frame->y0 : kTileHeight;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < kBlocksAcross; ++i) {
      frame->pixel_x[i][lane] = static_cast<float>(frame->x0 + PixelColumn(i, lane)) + 0.5f;
    }
    for (int i = 0; i < kStrips; ++i) {
      frame->pixel_y[i][lane] = static_cast<float>(frame->y0 + PixelLine(i * kBlocksAcross, lane)) + 0.5f;
    }
  }
}

// The blocks of the tile that hold pixels inside the outline, as bits; may hold a few more, never fewer.
inline uint64_t CoveredBlocks(const Splat& splat, const Outline& outline, const Frame& frame) {
  alignas(64) static const float kStripTops[16] = {
      0 * kBlockHeight, 1 * kBlockHeight, 2 * kBlockHeight,  3 * kBlockHeight,  4 * kBlockHeight,  5 * kBlockHeight,
      6 * kBlockHeight, 7 * kBlockHeight, 8 * kBlockHeight,  9 * kBlockHeight,  10 * kBlockHeight, 11 * kBlockHeight,
      12 * kBlockHeight, 13 * kBlockHeight, 14 * kBlockHeight, 15 * kBlockHeight};
  using G = U::F;
  const G zero = U::Set(0.0f);
  const float column = splat.x - static_cast<float>(frame.x0) - 0.5f;
  const float line = splat.y - static_cast<float>(frame.y0) - 0.5f;
  uint64_t mask = 0;
  for (int strip = 0; strip < kStrips; strip += U::kLanes) {
    const G top = U::Load(kStripTops + strip) - U::Set(line);
    const G bottom = top + U::Set(static_cast<float>(kBlockHeight - 1));
    const G right_y = U::Min(U::Max(U::Set(outline.turn), top), bottom);
    const G left_y = U::Min(U::Max(U::Set(-outline.turn), top), bottom);
    const G right_room = U::Fnma(U::Set(outline.curvature) * right_y, right_y, U::Set(outline.reach));
    const G left_room = U::Fnma(U::Set(outline.curvature) * left_y, left_y, U::Set(outline.reach));
    const G right = U::Fma(U::Set(outline.slope), right_y, U::Sqrt(U::Max(right_room, zero))) +
                    U::Set(column + kOutlineSlack);
    const G left = U::Fma(U::Set(outline.slope), left_y, U::Set(column - kOutlineSlack)) -
                   U::Sqrt(U::Max(left_room, zero));
    // Pixel ceil(left) .. floor(right) of the tile, in blocks, the end exclusive.
    const U::M enters = U::And(U::LessEqual(zero, right_room), U::LessEqual(zero, right));
    const G first = U::Min(U::Max(left, zero) + U::Set(0.999f), U::Set(16.0f)) * U::Set(0.25f);
    const G last = U::Min(right, U::Set(15.0f)) * U::Set(0.25f) + U::Set(1.0f);
    mask |= U::PackSpans(U::Truncate(U::KeepIf(enters, first)), U::Truncate(U::KeepIf(enters, last)))
            << (4 * strip % 64);
  }
  return kBlocks == 64 ? mask : mask & ((uint64_t{1} << (kBlocks % 64)) - 1);
}

// opacity * exp(power) at the pixels of a block, before the clamp to kMaxAlpha. Forward and backward must agree on
// `drawn` to the bit, so both come here, and the compiler may not contract (-ffp-contract=off).
inline F RawAlpha(const Splat& splat, const Frame& frame, int block, F* dx, F* dy, M* visible) {
  *dx = V::Set(splat.x) - V::Load(frame.pixel_x[block % kBlocksAcross]);
  *dy = V::Set(splat.y) - V::Load(frame.pixel_y[block / kBlocksAcross]);
  const F quadratic = V::Fma(V::Set(splat.a), *dx, V::Set(splat.b) * *dy);
  const F power = V::Fma(quadratic, *dx, V::Set(splat.c) * *dy * *dy);
  const F alpha = V::Set(splat.opacity) * V::Exp2(power);
  *visible = V::And(V::LessEqual(power, V::Set(0.0f)), V::LessEqual(V::Set(kMinAlpha), alpha));
  return alpha;
}

inline void Prefetch(const Bins& bins, uint32_t at, uint32_t end) {
  if (at >= end) return;
  const uint32_t splat = bins.entries.get()[at].splat;
  __builtin_prefetch(bins.splats.get() + splat);
  __builtin_prefetch(bins.outlines.get() + splat);
}

// ---- forward ----

struct ForwardBlock {
  float transmittance[kLanes];  // negative once the pixel has stopped
  float features[kFeatures][kLanes];
};

struct ForwardState {
  Frame frame;
  alignas(64) ForwardBlock blocks[kBlocks];
  alignas(64) int32_t stops[kBlocks][kLanes];
  uint64_t live;  // blocks with a pixel that has not stopped
};

inline void StartForward(ForwardState* state) {
  std::memset(state->blocks, 0, sizeof(state->blocks));
  state->live = 0;
  for (int block = 0; block < kBlocks; ++block) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const bool inside =
          PixelColumn(block, lane) < state->frame.columns && PixelLine(block, lane) < state->frame.lines;
      state->blocks[block].transmittance[lane] = inside ? 1.0f : -1.0f;
      state->stops[block][lane] = kNeverStopped;
      if (inside) state->live |= uint64_t{1} << block;
    }
  }
}

inline void StopPixels(ForwardState* state, int block, int32_t position, M stop, F before, F* after) {
  const M newly = V::AndNot(V::IsNegative(before), stop);
  V::StoreInt(state->stops[block], V::SelectInt(newly, V::SetInt(position), V::LoadInt(state->stops[block])));
  *after = V::Select(stop, V::Negative(before), *after);
  if (V::All(V::IsNegative(*after))) state->live &= ~(uint64_t{1} << block);
}

inline void DrawBlock(const Splat& splat, int block, int32_t position, ForwardState* state) {
  ForwardBlock& pixels = state->blocks[block];
  F dx, dy;
  M visible;
  const F alpha = V::Min(RawAlpha(splat, state->frame, block, &dx, &dy, &visible), V::Set(kMaxAlpha));
  const F before = V::Load(pixels.transmittance);
  const F next = V::Fnma(alpha, before, before);
  const M drawn = V::And(visible, V::LessEqual(V::Set(kMinTransmittance), next));
  const F weight = V::KeepIf(drawn, alpha * before);
  for (int k = 0; k < kFeatures; ++k) {
    V::Store(pixels.features[k], V::Fma(weight, V::Set(splat.features[k]), V::Load(pixels.features[k])));
  }
  F after = V::Select(drawn, next, before);
  const M stop = V::AndNot(drawn, visible);
  if (__builtin_expect(V::Any(stop), 0)) StopPixels(state, block, position, stop, before, &after);
  V::Store(pixels.transmittance, after);
}

inline void WriteForward(const ForwardState& state, int width, const ForwardOutputs& outputs) {
  const Frame& frame = state.frame;
  for (int line = 0; line < frame.lines; ++line) {
    const size_t start = static_cast<size_t>(frame.y0 + line) * width + frame.x0;
    for (int column = 0; column < frame.columns; ++column) {
      const int block = line / kBlockHeight * kBlocksAcross + column / kBlockWidth;
      const int lane = line % kBlockHeight * kBlockWidth + column % kBlockWidth;
      const ForwardBlock& pixels = state.blocks[block];
      float* features = outputs.features + (start + column) * kFeatures;
      for (int k = 0; k < kFeatures; ++k) features[k] = pixels.features[k][lane];
      outputs.transmittance[start + column] = __builtin_fabsf(pixels.transmittance[lane]);
      outputs.stops[start + column] = state.stops[block][lane];
    }
  }
}

void CompositeForward(const Bins& bins, int tile, const ForwardOutputs& outputs) {
  ForwardState state;
  MakeFrame(bins, tile, &state.frame);
  StartForward(&state);
  const uint32_t begin = bins.tile_begin.get()[tile], end = bins.tile_begin.get()[tile + 1];
  for (uint32_t i = begin; i < end && state.live; ++i) {
    Prefetch(bins, i + 6, end);
    const uint32_t index = bins.entries.get()[i].splat;
    const Splat& splat = bins.splats.get()[index];
    uint64_t mask = CoveredBlocks(splat, bins.outlines.get()[index], state.frame) & state.live;
    for (; mask; mask &= mask - 1) DrawBlock(splat, __builtin_ctzll(mask), static_cast<int32_t>(i - begin), &state);
  }
  WriteForward(state, bins.width, outputs);
}

// ---- backward ----

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
}

inline void DifferentiateBlock(const Splat& splat, int block, int32_t position, BackwardState* state, F* sums) {
  BackwardBlock& pixels = state->blocks[block];
  F dx, dy;
  M visible;
  const F raw = RawAlpha(splat, state->frame, block, &dx, &dy, &visible);
  const M drawn = V::And(visible, V::LessInt(V::SetInt(position), V::LoadInt(pixels.stops)));
  const F alpha = V::KeepIf(drawn, V::Min(raw, V::Set(kMaxAlpha)));
  const F before = V::Load(pixels.transmittance) * V::Reciprocal(V::Set(1.0f) - alpha);
  const F behind = V::Load(pixels.behind);
  const F weight = alpha * before;
  F colour = V::Set(0.0f);
  for (int k = 0; k < kFeatures; ++k) {
    const F d_feature = V::Load(pixels.d_features[k]);
    colour = V::Fma(V::Set(splat.features[k]), d_feature, colour);
    sums[kMoments + k] = V::Fma(weight, d_feature, sums[kMoments + k]);
  }
  const F contrast = colour - behind;
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

void CompositeBackward(Bins& bins, int tile, const BackwardInputs& inputs) {
  const uint32_t begin = bins.tile_begin.get()[tile], end = bins.tile_begin.get()[tile + 1];
  if (begin == end) return;
  BackwardState state;
  MakeFrame(bins, tile, &state.frame);
  StartBackward(inputs, bins.width, static_cast<int32_t>(end - begin), &state);
  int32_t next_stop = 0;  // the furthest position at which a block that is not live yet was still drawing
  for (int block = 0; block < kBlocks; ++block) {
    if (state.block_stops[block] > next_stop) next_stop = state.block_stops[block];
  }
  for (int32_t position = next_stop - 1; position >= 0; --position) {
    if (position < next_stop) {
      next_stop = 0;
      for (int block = 0; block < kBlocks; ++block) {
        const int32_t stop = state.block_stops[block];
        if (stop > position) state.live |= uint64_t{1} << block;
        if (stop <= position && stop > next_stop) next_stop = stop;
      }
    }
    if (position >= 6) Prefetch(bins, begin + position - 6, end);
    const Entry entry = bins.entries.get()[begin + position];
    const Splat& splat = bins.splats.get()[entry.splat];
    uint64_t mask = CoveredBlocks(splat, bins.outlines.get()[entry.splat], state.frame) & state.live;
    if (!mask) continue;
    F sums[kGradients];
    for (F& sum : sums) sum = V::Set(0.0f);
    for (; mask; mask &= mask - 1) DifferentiateBlock(splat, __builtin_ctzll(mask), position, &state, sums);
    V::ReduceRow(sums, kGradients, bins.rows.get() + static_cast<size_t>(entry.row) * kRowFloats);
    bins.row_written.get()[entry.row] = 1;
  }
}

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_COMPOSITE_H_
