//! Which implementation of the encoder runs, by what was asked for and what the machine has.

use undertone_error::{Error, ErrorKind, Result};

use super::cuda::Cuda;
use super::encoder::Encoder;
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
    match place(device, precision)? {
        Place::Cuda(gpus, precision) => Ok(Box::new(Cuda::new(&encoder, &gpus, precision)?)),
        Place::Cpu(_) => on_cpu(folder, encoder, precision),
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
