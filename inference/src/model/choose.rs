//! Which implementation of the encoder runs, by what was asked for and what the machine has.

use undertone_error::{Error, ErrorKind, Result};
use undertone_kernels::{Isa, Precision as kernels};

use super::cuda::Cuda;
use super::encoder::{Encoder, Native};
use super::folder::ModelFolder;
use super::forward::Forward;
use crate::device::{Device, Place, Precision, place};

/// Takes an encoder in fp32 on the CPU to where it is to run.
///
/// # Errors
/// `Unsupported` for a combination that cannot be had, naming the flag, the value and what would be right.
pub(crate) fn choose(
    folder: &ModelFolder,
    encoder: Encoder,
    device: Device,
    precision: Precision,
) -> Result<Box<dyn Forward>> {
    let forced = std::env::var(KERNELS).ok().filter(|name| !name.is_empty());
    match place(device, precision)? {
        Place::Cuda(gpus, precision) => {
            let ours = forced.as_deref() != Some(LIBTORCH);
            if let Some(name) = forced.filter(|name| ours && Isa::from_name(name).is_none()) {
                return Err(refuse(KERNELS, name, "there are no such kernels")
                    .help(format!("set it to {LIBTORCH}, or leave it unset")));
            }
            Ok(Box::new(Cuda::new(&encoder, &gpus, precision, ours)?))
        }
        Place::Cpu(_) => on_cpu(folder, encoder, precision, forced),
    }
}

/// Forces the kernels: on a CPU a name of [`Isa`], or [`LIBTORCH`] for the reference anywhere.
const KERNELS: &str = "UNDERTONE_KERNELS";
const LIBTORCH: &str = "libtorch";

/// The CPU's implementations. `Auto` takes bf16 where the processor multiplies it, else fp32: int8 loses a little, so it is
/// taken only when it is asked for.
fn on_cpu(
    _folder: &ModelFolder,
    encoder: Encoder,
    precision: Precision,
    forced: Option<String>,
) -> Result<Box<dyn Forward>> {
    if forced.as_deref() == Some(LIBTORCH) {
        return match precision {
            Precision::Auto | Precision::Fp32 => Ok(Box::new(encoder)),
            _ => Err(refuse("--precision", precision, "libtorch's encoder runs in fp32 alone")
                .help(format!("give --precision fp32, or leave {KERNELS} unset"))),
        };
    }
    let isa = match &forced {
        None => Isa::best(),
        Some(name) => Isa::from_name(name).filter(|isa| isa.is_available()).ok_or_else(|| {
            let available: Vec<_> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name).collect();
            refuse(KERNELS, name, "processor has no such kernels")
                .help(format!("set it to {} or libtorch", available.join(", ")))
        })?,
    };
    let precision = match precision {
        Precision::Fp32 => kernels::Fp32,
        Precision::Bf16 => kernels::Bf16,
        Precision::Int8 => kernels::Int8,
        Precision::Auto if isa.has_bf16() => kernels::Bf16,
        Precision::Auto => kernels::Fp32,
        Precision::Fp16 => {
            return Err(refuse("--precision", precision, "no processor computes in fp16 here")
                .help("give --precision auto, fp32, bf16 or int8, or --device cuda"));
        }
    };
    Ok(Box::new(Native::new(encoder, isa, precision)?))
}

fn refuse(flag: &'static str, value: impl std::fmt::Display, message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message).with("flag", flag).with("value", value)
}
