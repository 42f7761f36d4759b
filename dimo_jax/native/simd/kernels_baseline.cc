// The kernels for any target of the compiler.
#include <cstdint>
#include <cstring>

#include "rasterize/scene.h"
#include "simd/baseline.h"

namespace dimo {
namespace {
using V = Baseline;
}  // namespace
}  // namespace dimo

#include "rasterize/backward.h"
#include "rasterize/forward.h"
#include "rasterize/outline.h"
#include "project/projection.h"

namespace dimo {
Kernels BaselineKernels() { return {FindCandidates, CompositeForward, CompositeBackward, ProjectBlock, DifferentiateProjection}; }
}  // namespace dimo
