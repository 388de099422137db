// oneDNN primitives with everything they need to run again: created once for each key, then only pointers change.
#pragma once
#include <omp.h>

#include <cstdint>
#include <dnnl.hpp>
#include <initializer_list>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace frugal {

inline const dnnl::engine& dnnlEngine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

inline const dnnl::stream& dnnlStream() {
  thread_local const dnnl::stream stream(dnnlEngine());
  return stream;
}

// A primitive and its list of arguments, as the C interface wants them: nothing is allocated to run it.
class Call {
 public:
  Call(dnnl::primitive primitive, std::initializer_list<std::pair<int, dnnl::memory>> arguments)
      : primitive_(std::move(primitive)) {
    for (const auto& [name, memory] : arguments) add(name, memory);
  }

  void add(int name, const dnnl::memory& memory) {
    memories_.push_back(memory);
    arguments_.push_back({name, memory.get()});
  }

  void run() const {
    dnnl::error::wrap_c_api(dnnl_primitive_execute(primitive_.get(), dnnlStream().get(),
                                                   static_cast<int>(arguments_.size()), arguments_.data()),
                            "oneDNN could not run a primitive");
  }

 private:
  dnnl::primitive primitive_;
  std::vector<dnnl::memory> memories_;  // keeps alive what arguments_ points to
  std::vector<dnnl_exec_arg_t> arguments_;
};

// Values by a list of integers. The number of threads is part of the key: oneDNN fixes it when a primitive is made.
template <class Value>
class Cache {
 public:
  // The value of `key`; empty when it is asked for for the first time.
  std::unique_ptr<Value>& at(const int32_t* key, size_t length) {
    const int32_t threads = omp_get_max_threads();
    text_.assign(reinterpret_cast<const char*>(&threads), sizeof threads);
    text_.append(reinterpret_cast<const char*>(key), length * sizeof *key);
    return values_[text_];
  }

 private:
  std::string text_;
  std::unordered_map<std::string, std::unique_ptr<Value>> values_;
};

}  // namespace frugal
