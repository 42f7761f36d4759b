// The kernels for AVX-512. Shared headers come before the target changes: an inline function of theirs
// compiled for AVX-512 could be the copy that the linker keeps for every caller.
#include <cstdint>
#include <cstring>

#include "rasterize/scene.h"

#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif

#include "simd/avx512.h"

namespace dimo {
namespace {
using V = Avx512;
}  // namespace
}  // namespace dimo

#include "rasterize/backward.h"
#include "rasterize/forward.h"
#include "rasterize/outline.h"
#include "project/projection.h"

namespace dimo {
Kernels Avx512Kernels() { return {FindCandidates, CompositeForward, CompositeBackward, ProjectBlock, DifferentiateProjection}; }
}  // namespace dimo

#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
namespace dimo {
Kernels Avx512Kernels() { return BaselineKernels(); }
}  // namespace dimo
#endif
