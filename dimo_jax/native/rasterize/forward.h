// One tile, forward: block by block through a chunk of the list, with the block's pixels in registers.
#ifndef DIMO_NATIVE_FORWARD_H_
#define DIMO_NATIVE_FORWARD_H_

#include "rasterize/blocks.h"

namespace dimo {
namespace {

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
inline void DrawBlock(const Chunk& chunk, const int32_t* places, int count, unsigned block, int32_t position,
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
    const unsigned block = static_cast<unsigned>(__builtin_ctzll(live));
    const int count = counts[block];
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

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_FORWARD_H_
