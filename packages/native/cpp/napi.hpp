// The little of Node-API that the bindings need: arguments, and C++ exceptions as JavaScript errors.
#pragma once
#include <node_api.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace frugal {

constexpr size_t kMaxArguments = 20;

// The arguments of one call. Typed arrays are read in place, without copying.
class Arguments {
 public:
  Arguments(napi_env env, napi_callback_info info) : env_(env), count_(kMaxArguments) {
    check(napi_get_cb_info(env, info, &count_, values_, nullptr, nullptr), "too many arguments");
  }

  napi_env env() const { return env_; }

  float* floats(size_t i, size_t* length = nullptr) const {
    return static_cast<float*>(array(i, napi_float32_array, length));
  }

  double* doubles(size_t i, size_t* length = nullptr) const {
    return static_cast<double*>(array(i, napi_float64_array, length));
  }

  int32_t* ints(size_t i, size_t* length = nullptr) const {
    return static_cast<int32_t*>(array(i, napi_int32_array, length));
  }

  // Null when the argument is null or was not given.
  float* optionalFloats(size_t i) const {
    if (i >= count_) return nullptr;
    napi_valuetype type;
    check(napi_typeof(env_, values_[i], &type), "an argument");
    return type == napi_object ? floats(i) : nullptr;
  }

  int32_t* optionalInts(size_t i, size_t* length) const {
    if (i >= count_) return nullptr;
    napi_valuetype type;
    check(napi_typeof(env_, values_[i], &type), "an argument");
    return type == napi_object ? ints(i, length) : nullptr;
  }

  double number(size_t i) const {
    double value = 0;
    check(i < count_ ? napi_get_value_double(env_, values_[i], &value) : napi_invalid_arg, "a number");
    return value;
  }

  float real(size_t i) const { return static_cast<float>(number(i)); }
  int64_t integer(size_t i) const { return static_cast<int64_t>(number(i)); }
  bool flag(size_t i) const { return number(i) != 0; }
  napi_value value(size_t i) const { return values_[i]; }

  static void check(napi_status status, const char* what) {
    if (status != napi_ok) throw std::invalid_argument(std::string("frugal_native: expected ") + what);
  }

 private:
  void* array(size_t i, napi_typedarray_type expected, size_t* length) const {
    napi_typedarray_type type = expected;
    void* data = nullptr;
    napi_status status = napi_invalid_arg;
    if (i < count_) status = napi_get_typedarray_info(env_, values_[i], &type, length, &data, nullptr, nullptr);
    check(status == napi_ok && type != expected ? napi_invalid_arg : status, "a typed array");
    return data;
  }

  napi_env env_;
  size_t count_;
  napi_value values_[kMaxArguments];
};

// A binding: a function of the arguments, whose exceptions become JavaScript errors.
template <void (*Body)(const Arguments&)>
napi_value bind(napi_env env, napi_callback_info info) {
  try {
    Body(Arguments(env, info));
  } catch (const std::exception& error) {
    napi_throw_error(env, nullptr, error.what());
  }
  return nullptr;
}

}  // namespace frugal
