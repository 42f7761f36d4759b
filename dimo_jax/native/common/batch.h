// What every call from jax needs: operands that vmap batched or shares, and errors as jax's own.
#ifndef DIMO_NATIVE_BATCH_H_
#define DIMO_NATIVE_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace dimo {

// Leading axes of an operand under vmap: each is the batch's, or 1 where the operand is shared.
class Batch {
 public:
  template <typename Dimensions>
  Batch(const Dimensions& dimensions, size_t own_rank) {
    for (size_t i = 0; i + own_rank < dimensions.size(); ++i) axes_.push_back(dimensions[i]);
    for (int64_t axis : axes_) size_ *= static_cast<size_t>(axis);
  }
  size_t size() const { return size_; }

  // Which of the operand's own items belongs to item `index` of this batch.
  template <typename Dimensions>
  size_t ItemOf(size_t index, const Dimensions& dimensions) const {
    size_t item = 0, stride = 1;
    for (size_t i = axes_.size(); i-- > 0;) {
      const size_t position = index % static_cast<size_t>(axes_[i]);
      index /= static_cast<size_t>(axes_[i]);
      if (dimensions[i] != 1) item += position * stride;
      stride *= static_cast<size_t>(dimensions[i]);
    }
    return item;
  }

  template <typename Dimensions>
  void Check(const Dimensions& dimensions, std::initializer_list<int64_t> own, const char* name) const {
    bool fits = dimensions.size() == axes_.size() + own.size();
    for (size_t i = 0; fits && i < axes_.size(); ++i) fits = dimensions[i] == 1 || dimensions[i] == axes_[i];
    size_t axis = axes_.size();
    for (int64_t size : own) fits = fits && dimensions[axis++] == size;
    if (!fits) throw std::invalid_argument(std::string("native: unexpected shape of ") + name);
  }

 private:
  std::vector<int64_t> axes_;
  size_t size_ = 1;
};

template <typename Buffer>
auto* ItemData(const Batch& batch, size_t index, Buffer& buffer, size_t item_size) {
  return buffer.typed_data() + batch.ItemOf(index, buffer.dimensions()) * item_size;
}

template <typename Body>
xla::ffi::Error Guarded(Body body) {
  try {
    body();
  } catch (const std::bad_alloc&) {
    return xla::ffi::Error(xla::ffi::ErrorCode::kResourceExhausted, "native: out of memory");
  } catch (const std::exception& error) {
    return xla::ffi::Error(xla::ffi::ErrorCode::kInvalidArgument, error.what());
  }
  return xla::ffi::Error::Success();
}

}  // namespace dimo

#endif  // DIMO_NATIVE_BATCH_H_
