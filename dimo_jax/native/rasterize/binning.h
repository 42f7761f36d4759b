// Culls, orders by depth and lists the Gaussians of one image by tile.
#ifndef DIMO_NATIVE_BINNING_H_
#define DIMO_NATIVE_BINNING_H_

#include "rasterize/scene.h"

namespace dimo {

// Fills `bins`, its places only if asked. A Gaussian with a number that is not finite, no extent or no opacity is left
// out. Throws std::bad_alloc, and std::length_error where the lists would hold 2^31 entries.
void BinImage(const Inputs& inputs, const Kernels& kernels, bool with_places, Bins* bins);

}  // namespace dimo

#endif  // DIMO_NATIVE_BINNING_H_
