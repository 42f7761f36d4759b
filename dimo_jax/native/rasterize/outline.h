// Which of a group of Gaussians reach the image, which tiles, and their outlines, over the vector type V of the
// including file.
#ifndef DIMO_NATIVE_OUTLINE_H_
#define DIMO_NATIVE_OUTLINE_H_

namespace dimo {
namespace {

// At least log2(x), at most 0.01 more, for normal x > 0: the exponent, and a parabola over the mantissa.
inline V::F BoundLog2(V::F x) {
  const V::F one = V::Set(1.0f);
  const V::I bits = V::BitsOf(x);
  const V::I mantissa = V::OrInt(V::AndInt(bits, V::SetInt(0x007fffff)), V::BitsOf(one));
  const V::F m = V::FromBits(mantissa) - one;  // 0 .. 1
  const V::F exponent = V::ToFloat(V::SubtractInt(bits, mantissa)) * V::Set(1.0f / (1 << 23));
  return exponent + V::Fma(V::Set(0.3466f) * m, one - m, m) + V::Set(0.009f);
}

// Tiles, first and last, of the pixel centres in mean -+ extent, cut to the image. Returns where there are any.
inline V::M SpanTiles(V::F mean, V::F extent, int size, int tile, int32_t* first, int32_t* last) {
  const V::F zero = V::Set(0.0f), reach = extent + V::Set(kOutlineSlack), centre = mean - V::Set(0.5f);
  const V::F low = V::Max(centre - reach, zero), high = V::Min(centre + reach, V::Set(static_cast<float>(size - 1)));
  const V::M any = V::And(V::LessEqual(low, high), V::LessEqual(zero, high));
  const V::F scale = V::Set(1.0f / static_cast<float>(tile));  // exact: a power of two
  V::StoreInt(first, V::Truncate(V::KeepIf(any, (low + V::Set(0.999f)) * scale)));
  V::StoreInt(last, V::Truncate(V::KeepIf(any, high * scale)));
  return any;
}

// Solves a dx^2 + 2 b dx dy + c dy^2 = 2 log(255 opacity) for dx at a given dy.
inline void SolveOutline(V::F a, V::F b, V::F c, V::F opacity, V::F extent_y, int i, Candidates* out) {
  const V::F tiny = V::Set(1e-30f), zero = V::Set(0.0f), one = V::Set(1.0f);
  const V::F determinant = V::Determinant(a, b, c);
  // A thousandth more than exact, for the rounding of what follows.
  const V::F level = V::Fma(BoundLog2(V::Set(255.0f) * opacity), V::Set(1.001f * 2.0f * 0.693147181f), V::Set(1e-3f));
  const V::M ellipse = V::And(V::And(V::Less(tiny, a), V::Less(tiny, c)), V::Less(tiny, determinant));
  const V::F inverse = one / a;
  // Where there is no ellipse: all of the lines that the extent reaches.
  const V::F steep = V::Set(1e12f), high = extent_y + one;
  const V::F turn = b / c * V::Sqrt(level * (c / determinant));
  V::Store(out->slope + i, V::Select(ellipse, zero - b * inverse, zero));
  V::Store(out->reach + i, V::Select(ellipse, level * inverse, steep * high * high));
  V::Store(out->curvature + i, V::Select(ellipse, determinant * inverse * inverse, steep));
  V::Store(out->turn + i, V::Select(ellipse, zero - turn, zero));
}

inline void FindCandidates(const Inputs& inputs, size_t first, int size, Candidates* out) {
  constexpr int kFields = 9;
  alignas(64) float fields[kFields][kCandidates];
  for (int i = 0; i < size; ++i) {
    const size_t j = first + i;
    fields[0][i] = inputs.means[2 * j];
    fields[1][i] = inputs.means[2 * j + 1];
    fields[2][i] = inputs.conics[3 * j];
    fields[3][i] = inputs.conics[3 * j + 1];
    fields[4][i] = inputs.conics[3 * j + 2];
    fields[5][i] = inputs.opacities[j];
    fields[6][i] = inputs.depths[j];
    fields[7][i] = inputs.extents[2 * j];
    fields[8][i] = inputs.extents[2 * j + 1];
  }
  for (int i = size; i % V::kLanes != 0; ++i) {
    for (auto& field : fields) field[i] = 0.0f;  // no opacity: not kept
  }
  const V::F zero = V::Set(0.0f);
  for (int i = 0; i < size; i += V::kLanes) {
    V::F finite = zero;  // 0 * x is 0 for every finite x and NaN for the others
    for (const auto& field : fields) finite = finite + zero * V::Load(field + i);
    const V::F opacity = V::Load(fields[5] + i), extent_x = V::Load(fields[7] + i), extent_y = V::Load(fields[8] + i);
    V::M kept = V::And(V::LessEqual(finite, zero), V::LessEqual(V::Set(kMinAlpha), opacity));
    kept = V::And(kept, V::And(V::Less(zero, extent_x), V::Less(zero, extent_y)));
    kept =
        V::And(kept, SpanTiles(V::Load(fields[0] + i), extent_x, inputs.width, kTileWidth, out->x0 + i, out->x1 + i));
    kept =
        V::And(kept, SpanTiles(V::Load(fields[1] + i), extent_y, inputs.height, kTileHeight, out->y0 + i, out->y1 + i));
    V::StoreInt(out->kept + i, V::ToMaskInt(kept));
    SolveOutline(V::Load(fields[2] + i), V::Load(fields[3] + i), V::Load(fields[4] + i), opacity, extent_y, i, out);
  }
}

}  // namespace
}  // namespace dimo

#endif  // DIMO_NATIVE_OUTLINE_H_
