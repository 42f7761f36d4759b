#include "common/threads.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace dimo {

int64_t ThreadLimit() {
  const char* limit = std::getenv("DIMO_JAX_NUM_THREADS");
  if (limit == nullptr || *limit == '\0') return 0;
  char* end = nullptr;
  const long long value = std::strtoll(limit, &end, 10);
  if (*end != '\0' || value < 1) {
    throw std::invalid_argument(std::string("DIMO_JAX_NUM_THREADS: found '") + limit +
                                "', expected a positive whole number");
  }
  return value;
}

}  // namespace dimo
