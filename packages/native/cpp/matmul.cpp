#include "onednn.hpp"
#include "products.hpp"

namespace frugal {
namespace {

using dnnl::memory;

constexpr auto f32 = memory::data_type::f32;

// A matrix product with its operands; transposes are strides, so nothing is copied.
struct MatMul {
  memory a, b, bias, c;
  std::unique_ptr<Call> call;
};

memory::desc operand(int64_t batch, int64_t rows, int64_t columns, bool transposed) {
  const memory::dims strides{rows * columns, transposed ? 1 : columns, transposed ? rows : 1};
  return memory::desc({batch, rows, columns}, f32, strides);
}

std::unique_ptr<MatMul> makeMatMul(const MatMulShape& s, bool hasBias) {
  const int64_t batch = s.batchA > s.batchB ? s.batchA : s.batchB;
  const auto a = operand(s.batchA, s.rows, s.depth, s.transposeA != 0);
  const auto b = operand(s.batchB, s.depth, s.columns, s.transposeB != 0);
  const auto c = operand(batch, s.rows, s.columns, false);
  const memory::desc bias({1, 1, s.columns}, f32, memory::dims{s.columns, s.columns, 1});
  dnnl::primitive_attr attributes;
  if (s.relu != 0) {
    dnnl::post_ops post;
    post.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
    attributes.set_post_ops(post);
  }
  const auto description = hasBias ? dnnl::matmul::desc(a, b, bias, c) : dnnl::matmul::desc(a, b, c);
  const auto primitive = dnnl::matmul(dnnl::matmul::primitive_desc(description, attributes, dnnlEngine()));
  const auto unset = [](const memory::desc& desc) { return memory(desc, dnnlEngine(), nullptr); };
  auto made = std::make_unique<MatMul>(MatMul{unset(a), unset(b), unset(bias), unset(c), nullptr});
  made->call = std::make_unique<Call>(
      primitive, std::initializer_list<std::pair<int, memory>>{
                     {DNNL_ARG_SRC, made->a}, {DNNL_ARG_WEIGHTS, made->b}, {DNNL_ARG_DST, made->c}});
  if (hasBias) made->call->add(DNNL_ARG_BIAS, made->bias);
  return made;
}

}  // namespace

void matMul(const float* a, const float* b, const float* bias, float* c, const MatMulShape& shape) {
  thread_local Cache<MatMul> cache;
  int32_t key[] = {shape.batchA, shape.batchB,     shape.rows,       shape.columns, shape.depth,
                   shape.transposeA, shape.transposeB, shape.relu, bias != nullptr};
  auto& product = cache.at(key, sizeof key / sizeof *key);
  if (product == nullptr) product = makeMatMul(shape, bias != nullptr);
  product->a.set_data_handle(const_cast<float*>(a));
  product->b.set_data_handle(const_cast<float*>(b));
  product->c.set_data_handle(c);
  if (bias != nullptr) product->bias.set_data_handle(const_cast<float*>(bias));
  product->call->run();
}

}  // namespace frugal
