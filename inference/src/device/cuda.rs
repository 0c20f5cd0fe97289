//! Which GPUs run a model, and why: a pure function over what the driver and the loader say.

use undertone_error::{Error, ErrorKind, Result};

use super::dynamic::{self, Driver, Gpu};
use super::{Device, Precision, libraries};

/// What a person does about a driver that is missing or too old.
pub(super) const DRIVER_MEND: &str =
    "install NVIDIA's driver, release 580 or newer (libcuda.so.1 is part of it; in a container, give it the GPU)";
/// CUDA 13.0, as the driver counts.
const CUDA: u32 = 13_000;
/// CUDA 13 runs on Turing and newer.
const OLDEST: (u32, u32) = (7, 5);
/// bfloat16 and flash attention begin with Ampere.
pub(crate) const AMPERE: (u32, u32) = (8, 0);

/// Where a model runs, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The processor; with the reason, if a GPU was to be looked for.
    Cpu(String),
    /// These GPUs, each with its number, in a precision that all of them have.
    Cuda(Vec<(usize, Gpu)>, Precision),
}

/// Asks the machine and decides; loads CUDA if that is the decision. `auto` falls back to the CPU and logs why.
///
/// # Errors
/// `Unsupported` and `Unavailable`, naming the flag, the value and what would be right.
pub(crate) fn place(device: Device, precision: Precision) -> Result<Place> {
    if device == Device::Cpu {
        return Ok(Place::Cpu("asked for".to_owned()));
    }
    let driver = dynamic::ask_driver();
    let place = decide(device, precision, &driver)?;
    let place = match place {
        Place::Cuda(gpus, precision) => match libraries::load() {
            Ok(()) => Place::Cuda(gpus, precision),
            Err(error) if device == Device::Auto => Place::Cpu(error.to_string()),
            Err(error) => return Err(flag(error, device)),
        },
        // What is missing beside the driver is said in the same breath, so that one look mends it all.
        Place::Cpu(why) => Place::Cpu(why),
    };
    if device == Device::Auto {
        match &place {
            Place::Cpu(why) => tracing::info!(device = "cpu", why, "device chosen"),
            Place::Cuda(gpus, precision) => {
                let names: Vec<_> = gpus.iter().map(|(number, gpu)| format!("cuda:{number} ({})", gpu.name)).collect();
                tracing::info!(device = names.join(", "), %precision, why = "a GPU is there with all it needs", "device chosen");
            }
        }
    }
    Ok(place)
}

fn flag(error: Error, device: Device) -> Error {
    error.with("flag", "--device").with("value", device)
}

/// Decides from what the driver said. An error is only for who asked for CUDA; `auto` has the CPU.
fn decide(device: Device, precision: Precision, driver: &Result<Driver, String>) -> Result<Place> {
    let usable = usable(device, precision, driver);
    match (device, usable) {
        (Device::Cpu, _) => Ok(Place::Cpu("asked for".to_owned())),
        (Device::Auto, Err(error)) => Ok(Place::Cpu(error.to_string())),
        (_, Ok((gpus, precision))) => Ok(Place::Cuda(gpus, precision)),
        (Device::Cuda(_), Err(error)) => Err(error),
    }
}

/// The GPUs that can do what was asked, and the precision they do it in.
fn usable(
    device: Device,
    precision: Precision,
    driver: &Result<Driver, String>,
) -> Result<(Vec<(usize, Gpu)>, Precision)> {
    let fail = |kind, message: &str| flag(Error::new(kind, message), device);
    if precision == Precision::Int8 {
        return Err(Error::new(ErrorKind::Unsupported, "int8 does not run on CUDA")
            .with("flag", "--precision")
            .with("value", precision)
            .help("give --precision auto, bf16, fp16 or fp32, or --device cpu"));
    }
    let driver = driver.as_ref().map_err(|reason| missing_driver(device, reason))?;
    if driver.cuda < CUDA {
        let (major, minor) = (driver.cuda / 1000, driver.cuda % 1000 / 10);
        return Err(fail(ErrorKind::Unavailable, "NVIDIA's driver is too old for CUDA 13.0")
            .with("runs", format!("CUDA {major}.{minor}"))
            .help(DRIVER_MEND));
    }
    let all = driver.gpus.as_ref().map_err(|code| {
        fail(ErrorKind::Unavailable, "NVIDIA's driver does not start")
            .with("cuInit answered", format!("{code} ({})", meaning(*code)))
            .help("run nvidia-smi, and see the kernel's log; after an update of the driver, restart the machine")
    })?;
    if all.is_empty() {
        return Err(fail(ErrorKind::Unavailable, "no GPU is visible")
            .help("run nvidia-smi, and see that CUDA_VISIBLE_DEVICES names a GPU that is there"));
    }
    let wanted: Vec<(usize, Gpu)> = all
        .iter()
        .cloned()
        .enumerate()
        .filter(|(number, _)| !matches!(device, Device::Cuda(Some(wanted)) if wanted != *number))
        .collect();
    if wanted.is_empty() {
        return Err(fail(ErrorKind::Unavailable, "there is no GPU of this number")
            .with("GPUs", all.len())
            .help(format!("give a number from 0 to {}, or cuda for all of them", all.len() - 1)));
    }
    let (new, old): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(_, gpu)| gpu.capability >= OLDEST);
    if new.is_empty() {
        let names: Vec<_> = old.iter().map(|(_, gpu)| show(gpu)).collect();
        return Err(fail(ErrorKind::Unsupported, "the GPU is older than CUDA 13 supports")
            .with("GPU", names.join(", "))
            .help("use a GPU of compute capability 7.5 or newer (Turing, 2018), or --device cpu"));
    }
    // All workers of a model compute alike, so the oldest GPU decides.
    let ampere = new.iter().all(|(_, gpu)| gpu.capability >= AMPERE);
    match (precision, ampere) {
        (Precision::Auto, true) => Ok((new, Precision::Bf16)),
        (Precision::Auto, false) => Ok((new, Precision::Fp16)),
        (Precision::Bf16, false) => {
            let names: Vec<_> =
                new.iter().filter(|(_, gpu)| gpu.capability < AMPERE).map(|(_, gpu)| show(gpu)).collect();
            Err(Error::new(ErrorKind::Unsupported, "the GPU has no bf16")
                .with("flag", "--precision")
                .with("value", precision)
                .with("GPU", names.join(", "))
                .help("give --precision auto, fp16 or fp32, or name a GPU of compute capability 8.0 or newer with --device cuda:N"))
        }
        (precision, _) => Ok((new, precision)),
    }
}

/// No driver. Whoever asked for CUDA also hears what else is missing.
fn missing_driver(device: Device, reason: &str) -> Error {
    let error = Error::new(ErrorKind::Unavailable, "there is no NVIDIA driver")
        .with("missing", "libcuda.so.1")
        .source(reason.to_owned());
    let mut mend = DRIVER_MEND.to_owned();
    if let (Device::Cuda(_), Err(also)) = (device, libraries::check()) {
        mend = format!("{mend}; then also: {also}");
    }
    flag(error, device).help(mend)
}

fn show(gpu: &Gpu) -> String {
    format!("{} (compute capability {}.{})", gpu.name, gpu.capability.0, gpu.capability.1)
}

/// The commonest answers of `cuInit`.
fn meaning(code: u32) -> &'static str {
    match code {
        34 => "the driver is a stub",
        100 => "no GPU",
        101 => "no such GPU",
        802 => "the system is not ready yet",
        803 => "driver and kernel module are of different releases",
        804 => "this GPU needs a newer driver",
        999 => "unknown",
        _ => "see CUresult in NVIDIA's documentation",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(name: &str, major: u32, minor: u32) -> Gpu {
        Gpu { name: name.to_owned(), capability: (major, minor) }
    }

    fn driver(cuda: u32, gpus: &[Gpu]) -> Result<Driver, String> {
        Ok(Driver { cuda, gpus: Ok(gpus.to_vec()) })
    }

    fn numbers(place: &Place) -> Vec<usize> {
        match place {
            Place::Cpu(why) => panic!("on the CPU, because {why}"),
            Place::Cuda(gpus, _) => gpus.iter().map(|(number, _)| *number).collect(),
        }
    }

    fn precision(place: &Place) -> Precision {
        match place {
            Place::Cpu(why) => panic!("on the CPU, because {why}"),
            Place::Cuda(_, precision) => *precision,
        }
    }

    #[test]
    fn gpus_are_taken_by_number_and_the_oldest_decides_the_precision() {
        let machine = driver(13_000, &[gpu("H100", 9, 0), gpu("T4", 7, 5), gpu("V100", 7, 0)]);
        let place = decide(Device::Auto, Precision::Auto, &machine).unwrap();
        assert_eq!((numbers(&place), precision(&place)), (vec![0, 1], Precision::Fp16), "a V100 is left out");
        for (number, wanted) in [(0, Precision::Bf16), (1, Precision::Fp16)] {
            let place = decide(Device::Cuda(Some(number)), Precision::Auto, &machine).unwrap();
            assert_eq!((numbers(&place), precision(&place)), (vec![number], wanted));
        }
        let place = decide(Device::Cuda(Some(0)), Precision::Fp32, &machine).unwrap();
        assert_eq!(precision(&place), Precision::Fp32);
    }

    #[test]
    fn what_stands_in_the_way_is_named_and_auto_goes_to_the_cpu_for_that_reason() {
        let h100 = [gpu("H100", 9, 0)];
        let none = Err("libcuda.so.1: cannot open shared object file".to_owned());
        let ill = Ok(Driver { cuda: 13_000, gpus: Err(803) });
        for (precision, machine, parts) in [
            (Precision::Auto, none, &["libcuda.so.1", "580"][..]),
            (Precision::Auto, driver(12_040, &h100), &["CUDA 12.4", "too old", "580"]),
            (Precision::Auto, ill, &["803", "different releases", "nvidia-smi"]),
            (Precision::Auto, driver(13_000, &[]), &["no GPU", "CUDA_VISIBLE_DEVICES"]),
            (Precision::Auto, driver(13_000, &[gpu("V100", 7, 0)]), &["V100", "7.0", "7.5"]),
            (Precision::Bf16, driver(13_000, &[gpu("T4", 7, 5)]), &["--precision", "bf16", "T4", "fp16"]),
            (Precision::Int8, driver(13_000, &h100), &["--precision", "int8", "bf16", "--device cpu"]),
        ] {
            let error = decide(Device::Cuda(None), precision, &machine).expect_err(parts[0]).to_string();
            for part in parts {
                assert!(error.contains(part), "{part} is not in: {error}");
            }
            assert!(error.contains("--device") && error.contains("--"), "{error}");
            match decide(Device::Auto, precision, &machine).unwrap() {
                Place::Cpu(why) => assert!(parts.iter().any(|part| why.contains(part)), "{why}"),
                place => panic!("{place:?}"),
            }
        }
        let error = decide(Device::Cuda(Some(3)), Precision::Auto, &driver(13_000, &h100)).expect_err("one GPU");
        assert!(error.to_string().contains("cuda:3") && error.to_string().contains("0 to 0"), "{error}");
        assert_eq!(
            decide(Device::Cpu, Precision::Auto, &driver(13_000, &h100)).unwrap(),
            Place::Cpu("asked for".into())
        );
    }
}
