// A tile in blocks of pixels, and which of them a Gaussian enters, over the vector type V of the including file.
//
// Pixels stand in blocks of kBlockWidth x kBlockHeight, one vector each, and of every Gaussian only the blocks that its
// outline enters are computed. The outlines of a whole chunk of a tile's list come first: the branches on them then
// wait for a load, not for the arithmetic.
#ifndef DIMO_NATIVE_BLOCKS_H_
#define DIMO_NATIVE_BLOCKS_H_

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
static_assert(kBlocksAcross == 4 && kBlocks <= 64, "a mask of blocks has four bits to a strip, in 64 bits");

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

// opacity * exp(power) at the pixels of a block, before the clamp to kMaxAlpha. Forward and backward must agree on
// `drawn` to the bit, so both come here, and the compiler may not contract (-ffp-contract=off).
inline F RawAlpha(const Splat& splat, const Frame& frame, unsigned block, F* dx, F* dy, M* visible) {
  *dx = V::Set(splat.x) - V::Load(frame.pixel_x[block % kBlocksAcross]);
  *dy = V::Set(splat.y) - V::Load(frame.pixel_y[block / kBlocksAcross]);
  const F quadratic = V::Fma(V::Set(splat.a), *dx, V::Set(splat.b) * *dy);
  const F power = V::Fma(quadratic, *dx, V::Set(splat.c) * *dy * *dy);
  const F alpha = V::Set(splat.opacity) * V::Exp2(power * V::Set(kLog2E));
  *visible = V::And(V::LessEqual(power, V::Set(0.0f)), V::LessEqual(V::Set(kMinAlpha), alpha));
  return alpha;
}

constexpr int kChunk = 128;
static_assert(kChunk % kLanes == 0, "a chunk is whole vectors");

const Splat kNothing = {};  // opacity 0: fills up groups of kUnroll

// The entries of a part of a tile's list, and what their outlines enter.
struct Chunk {
  int size;
  const Splat* splats[kChunk + 1];  // the last stands for nothing
  uint64_t covered[kChunk];         // blocks that hold pixels inside the outline, perhaps a few more, never fewer
  alignas(64) float column[kChunk], line[kChunk];  // mean, in pixels from the centre of the tile's first pixel
  alignas(64) float slope[kChunk], reach[kChunk], curvature[kChunk], turn[kChunk];
};

// Bits of the blocks of strips [first_strip, first_strip + 8) for kLanes entries from `i` on.
inline I CoverStrips(const Chunk& chunk, int i, int first_strip) {
  const F zero = V::Set(0.0f);
  const F column = V::Load(chunk.column + i), line = V::Load(chunk.line + i), slope = V::Load(chunk.slope + i);
  const F reach = V::Load(chunk.reach + i), curvature = V::Load(chunk.curvature + i), turn = V::Load(chunk.turn + i);
  const F right_end = column + V::Set(kOutlineSlack), left_end = column + V::Set(0.999f - kOutlineSlack);
  I bits = V::SetInt(0);
  for (int strip = first_strip; strip < first_strip + 8 && strip < kStrips; ++strip) {
    const F top = V::Set(static_cast<float>(strip * kBlockHeight)) - line;
    const F bottom = top + V::Set(static_cast<float>(kBlockHeight - 1));
    const F right_y = V::Min(V::Max(turn, top), bottom);
    const F left_y = V::Min(V::Max(zero - turn, top), bottom);
    const F right_room = V::Fnma(curvature * right_y, right_y, reach);
    const F left_room = V::Fnma(curvature * left_y, left_y, reach);
    const F right = V::Fma(slope, right_y, right_end) + V::Sqrt(V::Max(right_room, zero));
    const F left = V::Fma(slope, left_y, left_end) - V::Sqrt(V::Max(left_room, zero));
    // Pixels ceil(left) .. floor(right) of the strip, in blocks, the end exclusive.
    const M enters = V::And(V::LessEqual(zero, right_room), V::LessEqual(zero, right));
    const F first = V::Min(V::Max(left, zero), V::Set(kTileWidth)) * V::Set(1.0f / kBlockWidth);
    const F last = V::Min(right, V::Set(kTileWidth - 1)) * V::Set(1.0f / kBlockWidth) + V::Set(1.0f);
    const I low = V::Truncate(V::KeepIf(enters, first)), high = V::Truncate(V::KeepIf(enters, last));
    bits = V::OrInt(bits, V::SpanBits(low, high, (strip - first_strip) * kBlocksAcross));
  }
  return bits;
}

inline void FillChunk(const Bins& bins, uint32_t first, uint32_t end, const Frame& frame, Chunk* chunk) {
  constexpr uint32_t kAhead = 16;
  const uint32_t* entries = bins.entries.get();
  const float x0 = static_cast<float>(frame.x0) + 0.5f, y0 = static_cast<float>(frame.y0) + 0.5f;
  const int size = static_cast<int>(end - first);
  for (int i = 0; i < size; ++i) {
    if (first + i + kAhead < end) {
      const uint32_t ahead = entries[first + i + kAhead];
      __builtin_prefetch(bins.splats.get() + ahead);
      __builtin_prefetch(bins.outlines.get() + ahead);
    }
    const uint32_t index = entries[first + i];
    const Outline& outline = bins.outlines.get()[index];
    chunk->splats[i] = bins.splats.get() + index;
    chunk->column[i] = outline.x - x0;
    chunk->line[i] = outline.y - y0;
    chunk->slope[i] = outline.slope;
    chunk->reach[i] = outline.reach;
    chunk->curvature[i] = outline.curvature;
    chunk->turn[i] = outline.turn;
  }
  chunk->size = size;
  chunk->splats[kChunk] = &kNothing;
  for (int i = 0; i < size; i += kLanes) {
    alignas(64) int32_t low[kLanes], high[kLanes] = {};
    V::StoreInt(low, CoverStrips(*chunk, i, 0));
    if (kStrips > 8) V::StoreInt(high, CoverStrips(*chunk, i, 8));
    for (int lane = 0; lane < kLanes; ++lane) {
      chunk->covered[i + lane] =
          static_cast<uint32_t>(low[lane]) | static_cast<uint64_t>(static_cast<uint32_t>(high[lane])) << 32;
    }
  }
}

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_BLOCKS_H_
