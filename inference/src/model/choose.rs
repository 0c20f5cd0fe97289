//! Which implementation of the encoder runs, by what was asked for and what the machine has.

use undertone_error::{Error, ErrorKind, Result};

use super::encoder::Encoder;
use super::folder::ModelFolder;
use super::forward::Forward;
use crate::device::{Device, Precision};

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
    match device {
        Device::Auto | Device::Cpu => on_cpu(folder, encoder, precision),
        Device::Cuda(_) => Err(refuse("--device", device, "cannot run on CUDA yet").help("give --device cpu")),
    }
}

/// The CPU's implementations. `Auto` takes the most precise one that is there.
fn on_cpu(_folder: &ModelFolder, encoder: Encoder, precision: Precision) -> Result<Box<dyn Forward>> {
    match precision {
        Precision::Auto | Precision::Fp32 => Ok(Box::new(encoder)),
        Precision::Fp16 => Err(refuse("--precision", precision, "no processor computes in fp16 here")
            .help("give --precision auto, fp32, bf16 or int8, or --device cuda")),
        Precision::Bf16 | Precision::Int8 => {
            Err(refuse("--precision", precision, "cannot compute in this precision on the CPU yet")
                .help("give --precision fp32 or auto"))
        }
    }
}

fn refuse(flag: &'static str, value: impl std::fmt::Display, message: &str) -> Error {
    Error::new(ErrorKind::Unsupported, message).with("flag", flag).with("value", value)
}
