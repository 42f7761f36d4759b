// The settings of the environment: instruction set and threads.
#ifndef DIMO_NATIVE_SETTINGS_H_
#define DIMO_NATIVE_SETTINGS_H_

#include <cstdint>

#include "scene.h"

namespace dimo {

// The functions for the widest instruction set of this processor, or for the one that DIMO_JAX_SIMD names.
Kernels ChooseKernels();

// DIMO_JAX_NUM_THREADS; 0 where it is not set.
int64_t ThreadLimit();

}  // namespace dimo

#endif  // DIMO_NATIVE_SETTINGS_H_
