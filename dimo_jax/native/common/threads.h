// How many threads a call may use.
#ifndef DIMO_NATIVE_THREADS_H_
#define DIMO_NATIVE_THREADS_H_

#include <cstdint>

namespace dimo {

// DIMO_JAX_NUM_THREADS; 0 where it is not set.
int64_t ThreadLimit();

}  // namespace dimo

#endif  // DIMO_NATIVE_THREADS_H_
