// One tile, forward and backward, over the vector type V (pixels) and U (strips of blocks) of the including file.
//
// Pixels stand in blocks of kBlockWidth x kBlockHeight, one vector each, and of every Gaussian only the blocks that its
// outline enters are computed. Forward goes block by block through a chunk of the list, with the block's pixels in
// registers. Backward goes Gaussian by Gaussian, with its sums in registers and the pixels in the L1 cache. In both,
// the outlines of a whole chunk come first: the branches on them then wait for a load, not for the arithmetic.
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
inline F RawAlpha(const Splat& splat, const Frame& frame, int block, F* dx, F* dy, M* visible) {
  *dx = V::Set(splat.x) - V::Load(frame.pixel_x[block % kBlocksAcross]);
  *dy = V::Set(splat.y) - V::Load(frame.pixel_y[block / kBlocksAcross]);
  const F quadratic = V::Fma(V::Set(splat.a), *dx, V::Set(splat.b) * *dy);
  const F power = V::Fma(quadratic, *dx, V::Set(splat.c) * *dy * *dy);
  const F alpha = V::Set(splat.opacity) * V::Exp2(power);
  *visible = V::And(V::LessEqual(power, V::Set(0.0f)), V::LessEqual(V::Set(kMinAlpha), alpha));
  return alpha;
}

// ---- which blocks a Gaussian enters ----

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
  const Entry* entries = bins.entries.get();
  const float x0 = static_cast<float>(frame.x0) + 0.5f, y0 = static_cast<float>(frame.y0) + 0.5f;
  const int size = static_cast<int>(end - first);
  for (int i = 0; i < size; ++i) {
    if (first + i + kAhead < end) {
      const uint32_t ahead = entries[first + i + kAhead].splat;
      __builtin_prefetch(bins.splats.get() + ahead);
      __builtin_prefetch(bins.outlines.get() + ahead);
    }
    const uint32_t index = entries[first + i].splat;
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
      chunk->covered[i + lane] = static_cast<uint32_t>(low[lane]) |
                                 static_cast<uint64_t>(static_cast<uint32_t>(high[lane])) << 32;
    }
  }
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

// Draws `count` Gaussians of the chunk, given by their places in it, on one block.
inline void DrawBlock(const Chunk& chunk, const int32_t* places, int count, int block, int32_t position,
                      ForwardState* state) {
  ForwardBlock& pixels = state->blocks[block];
  F transmittance = V::Load(pixels.transmittance);
  M going = V::Less(V::Set(0.0f), transmittance);
  F features[kFeatures];
  for (int k = 0; k < kFeatures; ++k) features[k] = V::Load(pixels.features[k]);
  for (int i = 0; i < count; i += V::kUnroll) {
    F alphas[V::kUnroll], dx, dy;
    M visible[V::kUnroll], stop[V::kUnroll];
#pragma GCC unroll 4
    for (int u = 0; u < V::kUnroll; ++u) {
      const F raw = RawAlpha(*chunk.splats[places[i + u]], state->frame, block, &dx, &dy, &visible[u]);
      alphas[u] = V::Min(raw, V::Set(kMaxAlpha));
    }
    const M were_going = going;
#pragma GCC unroll 4
    for (int u = 0; u < V::kUnroll; ++u) {
      const Splat& splat = *chunk.splats[places[i + u]];
      const F next = V::Fnma(alphas[u], transmittance, transmittance);
      const M hit = V::And(visible[u], going);
      const M drawn = V::And(hit, V::LessEqual(V::Set(kMinTransmittance), next));
      const F weight = V::KeepIf(drawn, alphas[u] * transmittance);
      for (int k = 0; k < kFeatures; ++k) features[k] = V::Fma(weight, V::Set(splat.features[k]), features[k]);
      transmittance = V::Select(drawn, next, transmittance);
      stop[u] = V::AndNot(drawn, hit);
      going = V::AndNot(stop[u], going);
    }
    if (__builtin_expect(V::Any(V::AndNot(going, were_going)), 0)) {
      I stops = V::LoadInt(state->stops[block]);
      for (int u = 0; u < V::kUnroll; ++u) stops = V::SelectInt(stop[u], V::SetInt(position + places[i + u]), stops);
      V::StoreInt(state->stops[block], stops);
      if (!V::Any(going)) {
        state->live &= ~(uint64_t{1} << block);
        break;
      }
    }
  }
  V::Store(pixels.transmittance, V::Select(going, transmittance, V::Negative(transmittance)));
  for (int k = 0; k < kFeatures; ++k) V::Store(pixels.features[k], features[k]);
}

inline void DrawChunk(const Chunk& chunk, int32_t position, ForwardState* state) {
  constexpr int kStride = kChunk + 16;
  alignas(64) int32_t places[kBlocks * kStride];
  int counts[kBlocks];
  V::ListWords(chunk.covered, chunk.size, kBlocks, kStride, places, counts);
  for (uint64_t live = state->live; live; live &= live - 1) {
    const int block = __builtin_ctzll(live), count = counts[block];
    if (count == 0) continue;
    for (int u = 0; u < V::kUnroll; ++u) places[block * kStride + count + u] = kChunk;
    DrawBlock(chunk, places + block * kStride, count, block, position, state);
  }
}

inline void WriteForward(const ForwardState& state, int width, const ForwardOutputs& outputs) {
  const Frame& frame = state.frame;
  for (int line = 0; line < frame.lines; ++line) {
    const size_t start = static_cast<size_t>(frame.y0 + line) * width + frame.x0;
    const int lane0 = line % kBlockHeight * kBlockWidth;
    for (int column0 = 0; column0 < frame.columns; column0 += kBlockWidth) {
      const int block = line / kBlockHeight * kBlocksAcross + column0 / kBlockWidth;
      const ForwardBlock& pixels = state.blocks[block];
      const int count = frame.columns - column0 < kBlockWidth ? frame.columns - column0 : kBlockWidth;
      for (int i = 0; i < count; ++i) {
        const size_t pixel = start + column0 + i;
        for (int k = 0; k < kFeatures; ++k) outputs.features[pixel * kFeatures + k] = pixels.features[k][lane0 + i];
        outputs.transmittance[pixel] = __builtin_fabsf(pixels.transmittance[lane0 + i]);
        outputs.stops[pixel] = state.stops[block][lane0 + i];
      }
    }
  }
}

inline void WriteEmpty(const Frame& frame, int width, const ForwardOutputs& outputs) {
  for (int line = 0; line < frame.lines; ++line) {
    const size_t start = static_cast<size_t>(frame.y0 + line) * width + frame.x0;
    std::memset(outputs.features + start * kFeatures, 0, sizeof(float) * frame.columns * kFeatures);
    for (int i = 0; i < frame.columns; ++i) {
      outputs.transmittance[start + i] = 1.0f;
      outputs.stops[start + i] = kNeverStopped;
    }
  }
}

void CompositeForward(const Bins& bins, int tile, const ForwardOutputs& outputs) {
  ForwardState state;
  MakeFrame(bins, tile, &state.frame);
  const uint32_t begin = bins.tile_begin.get()[tile], end = bins.tile_begin.get()[tile + 1];
  if (begin == end) {
    WriteEmpty(state.frame, bins.width, outputs);
    return;
  }
  StartForward(&state);
  Chunk chunk;
  for (uint32_t first = begin; first < end && state.live; first += kChunk) {
    FillChunk(bins, first, end - first < kChunk ? end : first + kChunk, state.frame, &chunk);
    DrawChunk(chunk, static_cast<int32_t>(first - begin), &state);
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
  pairs->count = count;
}

// Computes the alphas, 0 where nothing was drawn, and drops pairs without any.
inline void ComputeAlphas(const Chunk& chunk, int32_t first, const BackwardState& state, Pairs* pairs) {
  int kept = 0;
  for (int i = 0; i < pairs->count; i += V::kUnroll) {
    F alphas[V::kUnroll], dx, dy;
    M drawn[V::kUnroll];
    uint8_t entries[V::kUnroll], blocks[V::kUnroll];
#pragma GCC unroll 4
    for (int u = 0; u < V::kUnroll; ++u) {
      const bool valid = i + u < pairs->count;
      entries[u] = valid ? pairs->entries[i + u] : static_cast<uint8_t>(kChunk);
      blocks[u] = valid ? pairs->blocks[i + u] : uint8_t{0};
      M visible;
      const F raw = RawAlpha(*chunk.splats[entries[u]], state.frame, blocks[u], &dx, &dy, &visible);
      drawn[u] = V::And(visible, V::LessInt(V::SetInt(first + entries[u]), V::LoadInt(state.blocks[blocks[u]].stops)));
      alphas[u] = V::KeepIf(drawn[u], raw);
    }
#pragma GCC unroll 4
    for (int u = 0; u < V::kUnroll; ++u) {
      V::Store(pairs->alphas[kept], alphas[u]);
      pairs->entries[kept] = entries[u];
      pairs->blocks[kept] = blocks[u];
      kept += V::Any(drawn[u]);
    }
  }
  pairs->count = kept;
}

inline void DifferentiateBlock(const Splat& splat, int block, const float* alphas, BackwardState* state, F* sums) {
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

// Runs through the pairs and writes a row for every Gaussian among them.
inline void DifferentiatePairs(const Chunk& chunk, const Pairs& pairs, const Entry* entries, Bins* bins,
                               BackwardState* state) {
  for (int i = 0; i < pairs.count;) {
    const uint8_t entry = pairs.entries[i];
    const Splat& splat = *chunk.splats[entry];
    F sums[kGradients];
    for (F& sum : sums) sum = V::Set(0.0f);
    do {
      DifferentiateBlock(splat, pairs.blocks[i], pairs.alphas[i], state, sums);
    } while (++i < pairs.count && pairs.entries[i] == entry);
    const uint32_t row = entries[entry].row;
    V::ReduceRow(sums, kGradients, bins->rows.get() + static_cast<size_t>(row) * kRowFloats);
    bins->row_written.get()[row] = 1;
  }
}

void CompositeBackward(Bins& bins, int tile, const BackwardInputs& inputs) {
  const uint32_t begin = bins.tile_begin.get()[tile], end = bins.tile_begin.get()[tile + 1];
  if (begin == end) return;
  BackwardState state;
  MakeFrame(bins, tile, &state.frame);
  StartBackward(inputs, bins.width, static_cast<int32_t>(end - begin), &state);
  Chunk chunk;
  Pairs pairs;
  for (int32_t left = state.next_stop; left > 0; left -= chunk.size) {
    const int32_t first = left > kChunk ? left - kChunk : 0;
    FillChunk(bins, begin + first, begin + left, state.frame, &chunk);
    for (int high = chunk.size; high > 0; high -= kPairEntries) {
      ListPairs(chunk, high > kPairEntries ? high - kPairEntries : 0, high, first, &state, &pairs);
      ComputeAlphas(chunk, first, state, &pairs);
      DifferentiatePairs(chunk, pairs, bins.entries.get() + begin + first, &bins, &state);
    }
  }
}

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_COMPOSITE_H_
