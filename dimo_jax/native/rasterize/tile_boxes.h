// Which tiles an outline enters.
#ifndef DIMO_NATIVE_TILE_BOXES_H_
#define DIMO_NATIVE_TILE_BOXES_H_

#include <algorithm>
#include <cmath>

#include "rasterize/scene.h"

namespace dimo {

// Tiles first..last of line ty that the outline enters; none where first > last.
inline void CutLine(const Outline& outline, int ty, int* first, int* last) {
  const float top = static_cast<float>(ty * kTileHeight) + 0.5f - outline.y;
  const float bottom = top + static_cast<float>(kTileHeight - 1);
  const float right_y = std::min(std::max(outline.turn, top), bottom);
  const float left_y = std::min(std::max(-outline.turn, top), bottom);
  const float right_room = outline.reach - outline.curvature * right_y * right_y;
  const float left_room = outline.reach - outline.curvature * left_y * left_y;
  if (right_room < 0.0f && left_room < 0.0f) {
    *last = *first - 1;
    return;
  }
  const float x = outline.x - 0.5f;
  const float right = x + kOutlineSlack + outline.slope * right_y + std::sqrt(std::max(right_room, 0.0f));
  const float left = x - kOutlineSlack + outline.slope * left_y - std::sqrt(std::max(left_room, 0.0f));
  const float last_tile = right / kTileWidth, first_tile = (left + 0.999f) / kTileWidth;
  // In this order a NaN leaves the whole line.
  if (last_tile < static_cast<float>(*last)) {
    *last = last_tile < static_cast<float>(*first) ? *first - 1 : static_cast<int>(last_tile);
  }
  if (first_tile > static_cast<float>(*first)) {
    *first = first_tile >= static_cast<float>(*last + 1) ? *last + 1 : static_cast<int>(first_tile);
  }
}

// Calls visit(x0, x1, y0, y1), inclusive, for boxes of tiles that together hold all that the outline enters. A small
// box stays whole: testing its lines costs more than the few pairs that it saves.
template <typename Visit>
inline void VisitBoxes(const TileBox& box, const Outline& outline, Visit visit) {
  const int across = box.x1 - box.x0, down = box.y1 - box.y0;
  if (__builtin_expect(across < 3 || down < 1, 1)) {
    visit(box.x0, box.x1, box.y0, box.y1);
    return;
  }
  for (int ty = box.y0; ty <= box.y1; ++ty) {
    int first = box.x0, last = box.x1;
    CutLine(outline, ty, &first, &last);
    if (first <= last) visit(first, last, ty, ty);
  }
}

}  // namespace dimo

#endif  // DIMO_NATIVE_TILE_BOXES_H_
