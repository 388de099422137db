// Convolutions. Images stay NHWC; oneDNN chooses its own blocked layout for the filters, so HWIO is reordered to it (or
// from it, for the gradient) in each call: little against the convolution.
#include "onednn.hpp"
#include "products.hpp"

namespace frugal {
namespace {

using dnnl::memory;
using dnnl::prop_kind;
using Tag = memory::format_tag;

constexpr auto f32 = memory::data_type::f32;
constexpr auto direct = dnnl::algorithm::convolution_direct;

struct Geometry {
  memory::desc x, filter, anyFilter, bias, y;
  memory::dims strides, dilations, padBegin, padEnd;

  explicit Geometry(const ConvShape& s)
      : x({s.batch, s.channels, s.height, s.width}, f32, Tag::nhwc),
        filter({s.outChannels, s.channels, s.filterHeight, s.filterWidth}, f32, Tag::hwio),
        anyFilter({s.outChannels, s.channels, s.filterHeight, s.filterWidth}, f32, Tag::any),
        bias({s.outChannels}, f32, Tag::x),
        y({s.batch, s.outChannels, s.outHeight, s.outWidth}, f32, Tag::nhwc),
        strides{s.strideHeight, s.strideWidth},
        dilations{s.dilationHeight - 1, s.dilationWidth - 1},  // oneDNN counts the gaps
        padBegin{s.padTop, s.padLeft},
        padEnd{s.padBottom, s.padRight} {}

  dnnl::convolution_forward::primitive_desc forward(bool hasBias, bool relu) const {
    using Forward = dnnl::convolution_forward;
    const auto kind = prop_kind::forward_training;
    const auto description =
        hasBias ? Forward::desc(kind, direct, x, anyFilter, bias, y, strides, dilations, padBegin, padEnd)
                : Forward::desc(kind, direct, x, anyFilter, y, strides, dilations, padBegin, padEnd);
    dnnl::primitive_attr attributes;
    if (relu) {
      dnnl::post_ops post;
      post.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
      attributes.set_post_ops(post);
    }
    return {description, attributes, dnnlEngine()};
  }
};

// One of the three products of a layer: image, filter and output, and the filter in oneDNN's layout.
struct Convolution {
  memory x, filter, blocked, bias, y;
  std::unique_ptr<Call> before, product, after;  // before and after, where they are set, reorder the filter

  Convolution(const Geometry& g, const memory::desc& blockedFilter)
      : x(g.x, dnnlEngine(), nullptr),
        filter(g.filter, dnnlEngine(), nullptr),
        blocked(blockedFilter == g.filter ? filter : memory(blockedFilter, dnnlEngine())),
        bias(g.bias, dnnlEngine(), nullptr),
        y(g.y, dnnlEngine(), nullptr) {}

  bool reorders() const { return blocked.get() != filter.get(); }

  static std::unique_ptr<Call> reorder(const memory& from, const memory& to) {
    return std::make_unique<Call>(
        dnnl::reorder(from, to),
        std::initializer_list<std::pair<int, memory>>{{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
  }

  void run(const float* xData, const float* filterData, const float* yData) {
    x.set_data_handle(const_cast<float*>(xData));
    filter.set_data_handle(const_cast<float*>(filterData));
    y.set_data_handle(const_cast<float*>(yData));
    if (before != nullptr) before->run();
    product->run();
    if (after != nullptr) after->run();
  }
};

std::unique_ptr<Convolution> makeForward(const ConvShape& shape, bool hasBias, bool relu) {
  const Geometry g(shape);
  const auto chosen = g.forward(hasBias, relu);
  auto made = std::make_unique<Convolution>(g, chosen.weights_desc());
  if (made->reorders()) made->before = Convolution::reorder(made->filter, made->blocked);
  made->product = std::make_unique<Call>(
      dnnl::convolution_forward(chosen),
      std::initializer_list<std::pair<int, memory>>{
          {DNNL_ARG_SRC, made->x}, {DNNL_ARG_WEIGHTS, made->blocked}, {DNNL_ARG_DST, made->y}});
  if (hasBias) made->product->add(DNNL_ARG_BIAS, made->bias);
  return made;
}

std::unique_ptr<Convolution> makeInputGrad(const ConvShape& shape) {
  using Backward = dnnl::convolution_backward_data;
  const Geometry g(shape);
  const Backward::desc description(direct, g.x, g.anyFilter, g.y, g.strides, g.dilations, g.padBegin, g.padEnd);
  const Backward::primitive_desc chosen(description, dnnlEngine(), g.forward(false, false));
  auto made = std::make_unique<Convolution>(g, chosen.weights_desc());
  if (made->reorders()) made->before = Convolution::reorder(made->filter, made->blocked);
  made->product = std::make_unique<Call>(
      Backward(chosen),
      std::initializer_list<std::pair<int, memory>>{
          {DNNL_ARG_DIFF_DST, made->y}, {DNNL_ARG_WEIGHTS, made->blocked}, {DNNL_ARG_DIFF_SRC, made->x}});
  return made;
}

std::unique_ptr<Convolution> makeFilterGrad(const ConvShape& shape) {
  using Backward = dnnl::convolution_backward_weights;
  const Geometry g(shape);
  const Backward::desc description(direct, g.x, g.anyFilter, g.y, g.strides, g.dilations, g.padBegin, g.padEnd);
  const Backward::primitive_desc chosen(description, dnnlEngine(), g.forward(false, false));
  auto made = std::make_unique<Convolution>(g, chosen.diff_weights_desc());
  if (made->reorders()) made->after = Convolution::reorder(made->blocked, made->filter);
  made->product = std::make_unique<Call>(
      Backward(chosen),
      std::initializer_list<std::pair<int, memory>>{
          {DNNL_ARG_SRC, made->x}, {DNNL_ARG_DIFF_DST, made->y}, {DNNL_ARG_DIFF_WEIGHTS, made->blocked}});
  return made;
}

std::unique_ptr<Convolution>& cached(const ConvShape& shape, int32_t variant) {
  thread_local Cache<Convolution> cache;
  struct {
    ConvShape shape;
    int32_t variant;
  } key{shape, variant};
  static_assert(sizeof key % sizeof(int32_t) == 0, "the key must be made of integers only");
  return cache.at(reinterpret_cast<const int32_t*>(&key), sizeof key / sizeof(int32_t));
}

}  // namespace

void convForward(const float* x, const float* filter, const float* bias, bool relu, float* y, const ConvShape& shape) {
  const bool hasBias = bias != nullptr;
  auto& conv = cached(shape, (hasBias ? 1 : 0) + (relu ? 2 : 0));
  if (conv == nullptr) conv = makeForward(shape, hasBias, relu);
  if (hasBias) conv->bias.set_data_handle(const_cast<float*>(bias));
  conv->run(x, filter, y);
}

void convInputGrad(const float* dy, const float* filter, float* dx, const ConvShape& shape) {
  auto& conv = cached(shape, 4);
  if (conv == nullptr) conv = makeInputGrad(shape);
  conv->run(dx, filter, dy);
}

void convFilterGrad(const float* x, const float* dy, float* dfilter, const ConvShape& shape) {
  auto& conv = cached(shape, 5);
  if (conv == nullptr) conv = makeFilterGrad(shape);
  conv->run(x, dfilter, dy);
}

}  // namespace frugal
