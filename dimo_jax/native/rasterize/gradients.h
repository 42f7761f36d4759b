// From the rows that tiles write to the gradients of the inputs.
#ifndef DIMO_NATIVE_GRADIENTS_H_
#define DIMO_NATIVE_GRADIENTS_H_

#include "rasterize/scene.h"

namespace dimo {

// How much of a tile's list its pixels saw, given where they stopped.
uint32_t DrawnLength(const Bins& bins, int tile, const int32_t* stops);

// Makes room for a row for every drawn entry, given bins->tile_length.
void LayOutRows(Bins* bins);

struct Gradients {
  float* means;      // [N,2]
  float* conics;     // [N,3]
  float* opacities;  // [N]
  float* features;   // [N,7]
};

// Adds up the rows of splats [first, last) and writes the gradients of all inputs from the first to the last of them,
// zero where nothing was drawn; the outermost splats stand for the outermost inputs.
void WriteGradients(const Inputs& inputs, const Bins& bins, size_t first, size_t last, const Gradients& gradients);

}  // namespace dimo

#endif  // DIMO_NATIVE_GRADIENTS_H_
