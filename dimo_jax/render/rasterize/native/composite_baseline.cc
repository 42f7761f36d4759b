// The tile kernels for any target of the compiler.
#include <cstdint>
#include <cstring>

#include "scene.h"
#include "simd_baseline.h"

namespace dimo {
namespace {
using V = Baseline;
}  // namespace
}  // namespace dimo

#include "backward.h"
#include "forward.h"
#include "outline.h"

namespace dimo {
Kernels BaselineKernels() { return {FindCandidates, CompositeForward, CompositeBackward}; }
}  // namespace dimo
