// What tch lacks: attention over packed sequences, and streams. Everything goes through libtorch's dispatcher and its
// registry of devices, so that no header and no library of CUDA is needed to build or to link it.
//
// Every function answers 0, or 1 after which `undertone_shim_error` has the reason. No exception leaves this file.
#include <ATen/core/Tensor.h>
#include <ATen/ops/_addmm_activation_ops.h>
#include <ATen/ops/_efficient_attention_forward_ops.h>
#include <ATen/ops/_flash_attention_forward_ops.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstdint>
#include <string>

namespace {

thread_local std::string last_error;

template <typename F>
int guarded(F&& call) {
  try {
    call();
    return 0;
  } catch (const std::exception& error) {
    last_error = error.what();
  } catch (...) {
    last_error = "an exception that is no std::exception";
  }
  return 1;
}

c10::DeviceType type_of(int cuda) { return cuda ? c10::DeviceType::CUDA : c10::DeviceType::CPU; }

c10::Stream stream_of(int64_t id, int cuda, int device) {
  return c10::Stream(c10::Stream::UNSAFE, c10::Device(type_of(cuda), static_cast<c10::DeviceIndex>(device)), id);
}

}  // namespace

extern "C" {

const char* undertone_shim_error() { return last_error.c_str(); }

// query, key, value: [tokens, heads, width] in fp16 or bf16; bounds: int32 [sequences + 1]; out: as query.
int undertone_flash_attention(
    const at::Tensor* query, const at::Tensor* key, const at::Tensor* value, const at::Tensor* bounds, int64_t longest,
    at::Tensor** out) {
  return guarded([&] {
    auto all = at::_ops::_flash_attention_forward::call(
        *query, *key, *value, *bounds, *bounds, longest, longest, /*dropout_p=*/0.0, /*is_causal=*/false,
        /*return_debug_mask=*/false, /*scale=*/std::nullopt, /*window_size_left=*/std::nullopt,
        /*window_size_right=*/std::nullopt, /*seqused_k=*/std::nullopt, /*alibi_slopes=*/std::nullopt);
    *out = new at::Tensor(std::move(std::get<0>(all)));
  });
}

// query, key, value: [1, tokens, heads, width]; bounds: int32 [sequences + 1]; out: as query.
int undertone_efficient_attention(
    const at::Tensor* query, const at::Tensor* key, const at::Tensor* value, const at::Tensor* bounds, int64_t longest,
    at::Tensor** out) {
  return guarded([&] {
    auto all = at::_ops::_efficient_attention_forward::call(
        *query, *key, *value, /*bias=*/std::nullopt, *bounds, *bounds, c10::SymInt(longest), c10::SymInt(longest),
        /*dropout_p=*/0.0, /*custom_mask_type=*/0, /*compute_log_sumexp=*/false, /*scale=*/std::nullopt,
        /*seqlen_k=*/std::nullopt, /*window_size=*/std::nullopt);
    *out = new at::Tensor(std::move(std::get<0>(all)));
  });
}

// GELU of x weight^T + bias. tch passes its flag for GELU as a factor of the bias, and so gets ReLU.
int undertone_linear_gelu(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, at::Tensor** out) {
  return guarded([&] {
    *out = new at::Tensor(at::_ops::_addmm_activation::call(*bias, *x, weight->t(), /*beta=*/1, /*alpha=*/1, /*use_gelu=*/true));
  });
}

// A copy in pinned memory. tch names a device for it, which libtorch warns of.
int undertone_pin(const at::Tensor* tensor, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(tensor->pin_memory()); });
}

// Whether the device's half of libtorch is loaded.
int undertone_has_device(int cuda) { return c10::impl::hasDeviceGuardImpl(type_of(cuda)); }

// A stream of the device's pool.
int undertone_stream_new(int cuda, int device, int64_t* id) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl guard(type_of(cuda));
    *id = guard.getStreamFromGlobalPool(c10::Device(type_of(cuda), static_cast<c10::DeviceIndex>(device))).id();
  });
}

// Makes a stream, and its device, the calling thread's own.
int undertone_stream_enter(int64_t id, int cuda, int device) {
  return guarded([&] {
    auto stream = stream_of(id, cuda, device);
    c10::impl::VirtualGuardImpl guard(type_of(cuda));
    guard.setDevice(stream.device());
    guard.exchangeStream(stream);
  });
}

// The driver's handle of the calling thread's current stream of a device.
int undertone_stream_current(int cuda, int device, void** handle) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl guard(type_of(cuda));
    const c10::Device which(type_of(cuda), static_cast<c10::DeviceIndex>(device));
    *handle = guard.getStreamNativeHandle(guard.getStream(which));
  });
}

// Waits until all that was given to a stream is done.
int undertone_stream_wait(int64_t id, int cuda, int device) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl guard(type_of(cuda));
    guard.synchronizeStream(stream_of(id, cuda, device));
  });
}

}  // extern "C"
