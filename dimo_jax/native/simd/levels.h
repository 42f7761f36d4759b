// Which instruction set the kernels use.
#ifndef DIMO_NATIVE_LEVELS_H_
#define DIMO_NATIVE_LEVELS_H_

#include "rasterize/scene.h"

namespace dimo {

// The functions for the widest instruction set of this processor, or for the one that DIMO_JAX_SIMD names.
Kernels ChooseKernels();

}  // namespace dimo

#endif  // DIMO_NATIVE_LEVELS_H_
