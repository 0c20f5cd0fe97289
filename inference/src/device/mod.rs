//! Where a model runs and in which arithmetic: what a user may ask for.
//!
//! Guarantee: every name that is accepted here is shown in the error for one that is not, and a [`Device`] or
//! [`Precision`] prints as what it is parsed from. Whether a machine can do what was asked is decided when the model is
//! loaded, and refused by naming the flag, the value and what would be right.

pub(crate) mod cuda;
mod dynamic;
mod elf;
pub(crate) mod kernels;
mod libraries;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use undertone_error::{Error, ErrorKind, Result};

pub(crate) use self::cuda::{AMPERE, Place, place};
pub(crate) use self::dynamic::Gpu;
pub use self::libraries::use_libtorch_cuda;

/// Where a model runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Device {
    /// Every GPU that can be used, else the CPU. The choice and its reason are logged.
    #[default]
    Auto,
    /// The processor, one worker a core.
    Cpu,
    /// One NVIDIA GPU by its number, or all of them.
    Cuda(Option<usize>),
}

impl Device {
    /// What may be written.
    pub const ALLOWED: &'static str = "auto, cpu, cuda (every GPU) or cuda:N (GPU number N)";
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => return Ok(Self::Auto),
            "cpu" => return Ok(Self::Cpu),
            "cuda" => return Ok(Self::Cuda(None)),
            _ => {}
        }
        // `usize` would also read "+1".
        let number = text.strip_prefix("cuda:").filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        match number.map(str::parse) {
            Some(Ok(number)) => Ok(Self::Cuda(Some(number))),
            _ => Err(Error::new(ErrorKind::InvalidConfig, "device is not known")
                .with("device", text)
                .help(format!("write {}", Self::ALLOWED))),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.pad("auto"),
            Self::Cpu => f.pad("cpu"),
            Self::Cuda(None) => f.pad("cuda"),
            Self::Cuda(Some(number)) => f.pad(&format!("cuda:{number}")),
        }
    }
}

/// The arithmetic of the forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// The fastest that the device does well without a loss that can be seen in the scores.
    #[default]
    Auto,
    /// 32-bit floating point: the reference.
    Fp32,
    /// bfloat16: the range of fp32 with 8 bits of mantissa; sums are kept in fp32.
    Bf16,
    /// IEEE half precision, for GPUs without bfloat16.
    Fp16,
    /// 8-bit integers with a scale a row and a scale a channel.
    Int8,
}

impl Precision {
    /// What may be written.
    pub const ALLOWED: &'static str = "auto, fp32, bf16, fp16 or int8";

    /// The name, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Auto, Self::Fp32, Self::Bf16, Self::Fp16, Self::Int8];
        all.into_iter().find(|precision| precision.name() == text).ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, "precision is not known")
                .with("precision", text)
                .help(format!("write {}", Self::ALLOWED))
        })
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Both are strings wherever they are written down.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_as_text!(Device);
serde_as_text!(Precision);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_read_as_they_are_shown() {
        for (text, device) in [
            ("auto", Device::Auto),
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(None)),
            ("cuda:0", Device::Cuda(Some(0))),
            ("cuda:12", Device::Cuda(Some(12))),
        ] {
            assert_eq!(text.parse::<Device>().unwrap(), device);
            assert_eq!(device.to_string(), text);
            assert_eq!(serde_json::from_value::<Device>(serde_json::json!(text)).unwrap(), device);
            assert_eq!(serde_json::to_value(device).unwrap(), text);
        }
        for text in ["auto", "fp32", "bf16", "fp16", "int8"] {
            let precision: Precision = text.parse().unwrap();
            assert_eq!((precision.to_string(), serde_json::to_value(precision).unwrap()), (text.into(), text.into()));
        }
        assert_eq!((Device::default(), Precision::default()), (Device::Auto, Precision::Auto));
    }

    #[test]
    fn an_unknown_name_is_answered_with_all_that_are_known() {
        for text in ["", "gpu", "CPU", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda: 1", "cuda:99999999999999999999"]
        {
            let error = text.parse::<Device>().expect_err(text).to_string();
            assert!(error.contains(text) && error.contains(Device::ALLOWED), "{error}");
        }
        let error = serde_json::from_str::<Precision>("\"fp3\"").expect_err("unknown").to_string();
        assert!(error.contains("fp3") && error.contains("auto, fp32, bf16, fp16 or int8"), "{error}");
    }

    proptest! {
        #[test]
        fn whatever_parses_prints_as_it_was_written_but_for_leading_zeros(text in "(cuda:)?[a-z0-9+: ]{0,6}") {
            if let Ok(device) = text.parse::<Device>() {
                let again: Device = device.to_string().parse().unwrap();
                prop_assert_eq!(device, again);
            }
        }
    }
}
