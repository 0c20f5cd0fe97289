//! The functions of `shim/shim.cpp`, safe to call.
#![allow(unsafe_code, reason = "calls into libtorch through our own shim; each call says why it is sound")]

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::{Device, TchError, Tensor};
use torch_sys::C_tensor;

use crate::model::encoder::Torch;

type Attention = unsafe extern "C" fn(
    *const C_tensor,
    *const C_tensor,
    *const C_tensor,
    *const C_tensor,
    i64,
    *mut *mut C_tensor,
) -> c_int;

unsafe extern "C" {
    fn undertone_shim_error() -> *const c_char;
    fn undertone_flash_attention(
        query: *const C_tensor,
        key: *const C_tensor,
        value: *const C_tensor,
        bounds: *const C_tensor,
        longest: i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn undertone_efficient_attention(
        query: *const C_tensor,
        key: *const C_tensor,
        value: *const C_tensor,
        bounds: *const C_tensor,
        longest: i64,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn undertone_linear_gelu(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        out: *mut *mut C_tensor,
    ) -> c_int;
    fn undertone_pin(tensor: *const C_tensor, out: *mut *mut C_tensor) -> c_int;
    fn undertone_has_device(cuda: c_int) -> c_int;
    fn undertone_stream_new(cuda: c_int, device: c_int, id: *mut i64) -> c_int;
    fn undertone_stream_enter(id: i64, cuda: c_int, device: c_int) -> c_int;
    fn undertone_stream_current(cuda: c_int, device: c_int, handle: *mut *mut c_void) -> c_int;
    fn undertone_stream_wait(id: i64, cuda: c_int, device: c_int) -> c_int;
}

/// Turns the shim's answer into a result.
fn checked(code: c_int) -> Torch<()> {
    if code == 0 {
        return Ok(());
    }
    // SAFETY: the function answers a C string of this thread's, which lives until the shim's next failure on it.
    let reason = unsafe { CStr::from_ptr(undertone_shim_error()) };
    Err(TchError::Torch(reason.to_string_lossy().into_owned()))
}

/// Attention within each sequence of a packed batch, by flash attention: fp16 or bf16, compute capability 8.0 or newer.
/// `query`, `key` and `value` are [tokens, heads, width], `bounds` int32 [sequences + 1]; the result is as `query`.
pub(super) fn flash_attention(qkv: [&Tensor; 3], bounds: &Tensor, longest: i64) -> Torch<Tensor> {
    attention(undertone_flash_attention, qkv, bounds, longest)
}

/// The same by memory-efficient attention. `query`, `key` and `value` are [1, tokens, heads, width].
pub(super) fn efficient_attention(qkv: [&Tensor; 3], bounds: &Tensor, longest: i64) -> Torch<Tensor> {
    attention(undertone_efficient_attention, qkv, bounds, longest)
}

fn attention(function: Attention, [query, key, value]: [&Tensor; 3], bounds: &Tensor, longest: i64) -> Torch<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the pointers are of tensors that outlive the call, which only reads them. On success `out` is a new tensor
    // that nobody else owns.
    unsafe {
        checked(function(query.as_ptr(), key.as_ptr(), value.as_ptr(), bounds.as_ptr(), longest, &raw mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// A linear layer and GELU by the hyperbolic tangent in one product: `x` is [rows, in], `weight` [out, in], `bias` [out], the
/// result [rows, out].
pub(super) fn linear_gelu(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Torch<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the pointers are of tensors that outlive the call, which only reads them. On success `out` is a new tensor
    // that nobody else owns.
    unsafe {
        checked(undertone_linear_gelu(x.as_ptr(), weight.as_ptr(), bias.as_ptr(), &raw mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// A copy in memory that the GPU reads by itself.
pub(super) fn pin(tensor: &Tensor) -> Torch<Tensor> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the pointer is of a tensor that outlives the call, which only reads it. On success `out` is a new tensor that
    // nobody else owns.
    unsafe {
        checked(undertone_pin(tensor.as_ptr(), &raw mut out))?;
        Ok(Tensor::from_ptr(out))
    }
}

/// Whether libtorch_cuda is part of the process and has registered itself.
pub(super) fn has_cuda() -> bool {
    // SAFETY: the function reads a table of pointers.
    unsafe { undertone_has_device(1) != 0 }
}

/// A device as the shim counts: whether it is a GPU, and its number.
fn parts(device: Device) -> (c_int, c_int) {
    match device {
        Device::Cuda(number) => (1, c_int::try_from(number).unwrap_or(c_int::MAX)),
        _ => (0, 0),
    }
}

/// A stream of a device: what is given to it runs in order, beside other streams. The device's pool owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    id: i64,
    device: (c_int, c_int),
}

impl Stream {
    /// The driver's handle of the calling thread's current stream of a device.
    pub(super) fn current(device: Device) -> Torch<*mut c_void> {
        let (cuda, number) = parts(device);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the function writes one pointer.
        checked(unsafe { undertone_stream_current(cuda, number, &raw mut handle) })?;
        Ok(handle)
    }

    /// A stream of the device's pool, which hands out 32 in turn.
    pub(super) fn new(device: Device) -> Torch<Self> {
        let device = parts(device);
        let mut id = 0;
        // SAFETY: the function writes one integer.
        checked(unsafe { undertone_stream_new(device.0, device.1, &raw mut id) })?;
        Ok(Self { id, device })
    }

    /// From now on what this thread does on the device runs on this stream.
    pub(super) fn enter(self) -> Torch<()> {
        // SAFETY: the stream came from the device's pool, which never frees one.
        checked(unsafe { undertone_stream_enter(self.id, self.device.0, self.device.1) })
    }

    /// Waits until everything given to the stream is done.
    pub(super) fn wait(self) -> Torch<()> {
        // SAFETY: as above.
        checked(unsafe { undertone_stream_wait(self.id, self.device.0, self.device.1) })
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn text<T>(result: Torch<T>) -> String {
        result.map(|_| ()).expect_err("there is no CUDA here").to_string()
    }

    #[test]
    fn the_operators_are_reached_and_refuse_the_cpu_by_name() {
        let row = Tensor::zeros([1, 4, 2, 8], (Kind::BFloat16, Device::Cpu));
        let three = row.squeeze_dim(0);
        let bounds = Tensor::from_slice(&[0_i32, 4]);
        let flash = text(flash_attention([&three, &three, &three], &bounds, 4));
        assert!(flash.contains("_flash_attention_forward") && flash.contains("CPU"), "{flash}");
        let efficient = text(efficient_attention([&row, &row, &row], &bounds, 4));
        assert!(efficient.contains("_efficient_attention_forward") && efficient.contains("CPU"), "{efficient}");
    }

    #[test]
    fn a_linear_layer_with_gelu_is_no_other_activation() {
        // Negative sums tell GELU from ReLU, and a bias that counts once from one that does not.
        let (x, weight) =
            (Tensor::from_slice(&[-1.0_f32, 0.5, 2.0]).view([3, 1]), Tensor::from_slice(&[1.0_f32, -0.5]).view([2, 1]));
        let bias = Tensor::from_slice(&[0.25_f32, -0.75]);
        let expected = x.linear(&weight, Some(&bias)).gelu("none");
        let found = linear_gelu(&x, &weight, &bias).unwrap();
        assert_eq!(found.size(), [3, 2]);
        assert!((found - expected).abs().max().double_value(&[]) < 1e-3);
    }

    #[test]
    fn a_stream_without_its_device_is_an_error_not_a_crash() {
        if !has_cuda() {
            assert!(text(Stream::new(Device::Cuda(0))).to_lowercase().contains("cuda"));
        }
        assert!(!text(Stream::new(Device::Cpu)).is_empty(), "the CPU has no streams");
    }
}
