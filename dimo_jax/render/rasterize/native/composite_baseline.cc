// The kernels for any target of the compiler.
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
#include "projection.h"

namespace dimo {
Kernels BaselineKernels() { return {FindCandidates, CompositeForward, CompositeBackward, ProjectBlock, DifferentiateProjection}; }
}  // namespace dimo
