// The tile kernels for any target of the compiler.
#include <cstdint>
#include <cstring>

#include "scene.h"
#include "simd_baseline.h"

namespace dimo {
namespace {
using V = Baseline;
using U = Baseline;
}  // namespace
}  // namespace dimo

#include "outline.h"
#include "composite.h"

namespace dimo {
Kernels BaselineKernels() { return {FindCandidates, CompositeForward, CompositeBackward}; }
}  // namespace dimo
