// Work over XLA's own thread pool; the calling thread takes part, so that a busy pool delays and never blocks it.
#ifndef DIMO_NATIVE_PARALLEL_H_
#define DIMO_NATIVE_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>

#include "xla/ffi/api/ffi.h"

namespace dimo {

class Workers {
 public:
  // `limit`: threads at most, the caller included; 0 for as many as the pool has.
  Workers(xla::ffi::ThreadPool pool, int64_t limit) : pool_(pool) {
    const int64_t available = pool_.num_threads() > 0 ? pool_.num_threads() : 1;
    num_threads_ = limit > 0 && limit < available ? limit : available;
  }

  int64_t num_threads() const { return num_threads_; }

  // Calls body(i) once for each i < count, in no order; rethrows the first exception.
  template <typename Body>
  void For(size_t count, Body&& body) {
    if (num_threads_ == 1 || count < 2) {
      for (size_t i = 0; i < count; ++i) body(i);
      return;
    }
    auto shared = std::make_shared<Shared>();
    shared->count = count;
    // A helper that starts after the last item was taken touches nothing but `shared`.
    auto work = [shared, &body] {
      for (size_t i; (i = shared->next.fetch_add(1)) < shared->count;) {
        try {
          body(i);
        } catch (...) {
          std::lock_guard<std::mutex> lock(shared->mutex);
          if (!shared->error) shared->error = std::current_exception();
        }
        shared->done.fetch_add(1);
      }
    };
    const int64_t helpers = std::min<int64_t>(num_threads_, static_cast<int64_t>(count)) - 1;
    for (int64_t i = 0; i < helpers; ++i) pool_.Schedule(decltype(work)(work));
    work();
    while (shared->done.load() < count) std::this_thread::yield();
    if (shared->error) std::rethrow_exception(shared->error);
  }

 private:
  struct Shared {
    std::atomic<size_t> next{0}, done{0};
    size_t count = 0;
    std::mutex mutex;
    std::exception_ptr error;
  };

  xla::ffi::ThreadPool pool_;
  int64_t num_threads_;
};

}  // namespace dimo

#endif  // DIMO_NATIVE_PARALLEL_H_
