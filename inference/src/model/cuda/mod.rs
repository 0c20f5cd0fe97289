//! The encoder on NVIDIA GPUs.
//!
//! ```text
//! Packed ─▶ Staging ──pinned──▶ GPU: embeddings ▸ layers (varlen attention) ▸ pooling ──pinned──▶ fp32 on the CPU
//! ```
//!
//! Guarantees: numbers as the CPU's, up to the rounding of the precision; a batch that cannot run does not reach the
//! device; running out of memory is `Exhausted`, a lost device `Unavailable`.
//!
//! Each worker has a stream of its own, and a GPU has two workers, so that one batch is copied and its results are read
//! while the other computes; no worker waits for the other. Several GPUs share the workers out in turn.

mod shim;
mod staging;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tch::{Device, Kind, Tensor, no_grad};
use undertone_error::{Error, ErrorKind, Result};

use self::shim::Stream;
use self::staging::{Staged, Staging};
use super::encoder::{Encoder, Torch, attend_groups};
use super::forward::{Arithmetic, Forward, Sizing};
use super::manifest::Pooling;
use super::pack::Packed;
use super::torch_error;
use crate::device::{AMPERE, Gpu, Precision};

/// Two batches in flight a GPU: one computes while the other is copied.
const WORKERS_PER_GPU: usize = 2;
/// Sizes of batches, in tokens, that are run once before the first text: cuBLAS chooses its kernels and libtorch's
/// allocator takes its memory then.
const WARM: [usize; 5] = [32, 512, 2048, 8192, 16384];
/// The length of a text in a warm-up batch.
const WARM_TEXT: usize = 32;

/// How attention runs over packed sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attention {
    /// Half precision on compute capability 8.0 and newer.
    Flash,
    /// Half precision on older GPUs.
    Efficient,
    /// One call a group of equal length, in any precision anywhere: the reference.
    Groups,
}

impl Attention {
    fn choose(precision: Precision, gpus: &[(usize, Gpu)]) -> Self {
        match precision {
            Precision::Bf16 | Precision::Fp16 if gpus.iter().all(|(_, gpu)| gpu.capability >= AMPERE) => Self::Flash,
            Precision::Bf16 | Precision::Fp16 => Self::Efficient,
            _ => Self::Groups,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Flash => "libtorch flash attention",
            Self::Efficient => "libtorch memory-efficient attention",
            Self::Groups => "libtorch",
        }
    }
}

/// An encoder's weights on one device, and the arithmetic over them.
#[derive(Debug)]
struct Replica {
    encoder: Encoder,
    device: Device,
    attention: Attention,
}

impl Replica {
    /// Copies the weights to a device.
    fn new(encoder: &Encoder, device: Device, kind: Kind, attention: Attention) -> Torch<Self> {
        let encoder = encoder.map(&|weight| weight.f_to_device(device)?.f_to_kind(kind))?;
        Ok(Self { encoder, device, attention })
    }

    fn share(&self) -> Self {
        Self { encoder: self.encoder.share(), ..*self }
    }

    /// Pooled vectors, fp32 on the device, in the order in which the sequences were given: [sequences, hidden].
    fn run(&self, batch: &Packed, staging: &Staging) -> Torch<Tensor> {
        let staged = staging.send(self.device)?;
        let (heads, pooling) = self.encoder.form();
        let groups = batch.groups();
        let x = self.encoder.encode(&staged.ids, &staged.positions, &|qkv| match self.attention {
            Attention::Groups => attend_groups(qkv, &groups, heads),
            varlen => attend_packed(varlen, qkv, &staged, staging.longest, heads),
        })?;
        let pooled = match pooling {
            Pooling::Mean => mean(&x.f_to_kind(Kind::Float)?, &staged.lengths)?,
            Pooling::Cls => {
                x.f_index_select(0, &staged.bounds.f_narrow(0, 0, batch.sequences() as i64)?)?.f_to_kind(Kind::Float)?
            }
        };
        pooled.f_index_select(0, &staged.places)
    }
}

/// Attention within each sequence in one call. `qkv` is [tokens, 3 * hidden], the result [tokens, hidden].
fn attend_packed(attention: Attention, qkv: &Tensor, staged: &Staged, longest: i64, heads: i64) -> Torch<Tensor> {
    let [tokens, width] = qkv.size()[..] else { return Err(tch::TchError::Shape("qkv has two dimensions".to_owned())) };
    let hidden = width / 3;
    // Views with strides: neither kernel needs the three apart.
    let split = qkv.f_view([tokens, 3, heads, hidden / heads])?;
    let part = |index| split.f_select(1, index);
    let (query, key, value) = (part(0)?, part(1)?, part(2)?);
    let attended = match attention {
        Attention::Flash => shim::flash_attention([&query, &key, &value], &staged.bounds, longest)?,
        _ => {
            let (query, key, value) = (query.f_unsqueeze(0)?, key.f_unsqueeze(0)?, value.f_unsqueeze(0)?);
            shim::efficient_attention([&query, &key, &value], &staged.bounds, longest)?
        }
    };
    attended.f_reshape([tokens, hidden])
}

/// The mean of each sequence's rows: [tokens, hidden] to [sequences, hidden], both fp32.
fn mean(x: &Tensor, lengths: &Tensor) -> Torch<Tensor> {
    // The sums of the lengths were checked when they were packed; checking here would wait for the device.
    Tensor::f_segment_reduce(x, "mean", Some(lengths), None, None, 0, true, 0.0)
}

/// An encoder on one or several GPUs. Each [`Forward::share`] is a worker's: it takes the next GPU in turn, with a stream
/// of its own.
#[derive(Debug)]
pub(super) struct Cuda {
    replicas: Vec<Replica>,
    /// The replica of this worker, and its stream.
    mine: usize,
    stream: Option<Stream>,
    precision: Precision,
    next: Arc<AtomicUsize>,
}

impl Cuda {
    /// Copies the weights to the GPUs.
    ///
    /// # Errors
    /// `Exhausted` if a GPU has no room for them, `Unavailable` if one does not work.
    pub(super) fn new(encoder: &Encoder, gpus: &[(usize, Gpu)], precision: Precision) -> Result<Self> {
        if !shim::has_cuda() {
            return Err(Error::new(ErrorKind::Unavailable, "libtorch_cuda is loaded but has not registered itself")
                .help("install torch again, whole, and start undertone again"));
        }
        let attention = Attention::choose(precision, gpus);
        let replica = |(number, _): &(usize, Gpu)| {
            let device = Device::Cuda(*number);
            no_grad(|| Replica::new(encoder, device, kind(precision), attention))
                .map_err(|error| torch_error(error).with("device", format!("cuda:{number}")))
        };
        let replicas = gpus.iter().map(replica).collect::<Result<Vec<_>>>()?;
        for (number, _) in gpus {
            // The copies ran on the default stream; workers read the weights on theirs.
            tch::Cuda::synchronize(i64::try_from(*number).unwrap_or_default());
        }
        Ok(Self { replicas, mine: 0, stream: None, precision, next: Arc::new(AtomicUsize::new(0)) })
    }

    fn replica(&self) -> Result<&Replica> {
        self.replicas.get(self.mine).ok_or_else(|| Error::new(ErrorKind::Internal, "no GPU holds the model"))
    }

    /// Runs a batch of each hot size, so that the first texts do not wait for what happens once.
    fn warm(&self) -> Result<()> {
        let started = Instant::now();
        let (words, positions) = self.replica()?.encoder.limits();
        if words < 1 {
            return Ok(());
        }
        let length = WARM_TEXT.min(usize::try_from(positions).unwrap_or(1)).max(1);
        for tokens in WARM {
            match self.forward(&Packed::new(&vec![vec![0; length]; (tokens / length).max(1)], None)) {
                // The batcher finds the size that fits.
                Err(error) if error.kind() == ErrorKind::Exhausted => break,
                result => result.map(drop)?,
            }
        }
        tracing::debug!(seconds = started.elapsed().as_secs_f64(), "GPU warmed");
        Ok(())
    }
}

impl Forward for Cuda {
    fn forward(&self, batch: &Packed) -> Result<Tensor> {
        let replica = self.replica()?;
        if batch.sequences() == 0 {
            return Encoder::forward(&replica.encoder, batch)
                .and_then(|none| none.f_to_device(Device::Cpu).map_err(torch_error));
        }
        let staging = Staging::new(batch, replica.encoder.limits())?;
        let run = || {
            if let Some(stream) = self.stream {
                stream.enter()?;
            }
            // Read into pinned memory without waiting in the driver, then waited for once.
            let pooled = replica.run(batch, &staging)?.f_to_device_(Device::Cpu, Kind::Float, true, false)?;
            match (self.stream, replica.device) {
                (Some(stream), _) => stream.wait()?,
                (None, Device::Cuda(number)) => tch::Cuda::synchronize(i64::try_from(number).unwrap_or_default()),
                _ => {}
            }
            Ok(pooled)
        };
        no_grad(run).map_err(torch_error)
    }

    fn share(&self) -> Box<dyn Forward> {
        let mine = self.next.fetch_add(1, Ordering::Relaxed) % self.replicas.len().max(1);
        let stream = self.replicas.get(mine).and_then(|replica| {
            let stream = Stream::new(replica.device);
            stream
                .inspect_err(|error| tracing::warn!(%error, "no stream for this worker; it takes the default one"))
                .ok()
        });
        let shared = Self {
            replicas: self.replicas.iter().map(Replica::share).collect(),
            mine,
            stream,
            precision: self.precision,
            next: Arc::clone(&self.next),
        };
        if stream.is_some()
            && let Err(error) = shared.warm()
        {
            tracing::warn!(%error, "a GPU could not be warmed");
        }
        Box::new(shared)
    }

    fn describe(&self) -> Arithmetic {
        let device = |replica: &Replica| match replica.device {
            Device::Cuda(number) => format!("cuda:{number}"),
            _ => "cpu".to_owned(),
        };
        Arithmetic {
            precision: self.precision.name().to_owned(),
            device: self.replicas.iter().map(device).collect::<Vec<_>>().join(","),
            kernels: self.replicas.first().map_or("libtorch", |replica| replica.attention.name()).to_owned(),
        }
    }

    fn sizing(&self) -> Sizing {
        Sizing { workers: Some(WORKERS_PER_GPU * self.replicas.len()), gpu: true }
    }
}

fn kind(precision: Precision) -> Kind {
    match precision {
        Precision::Bf16 => Kind::BFloat16,
        Precision::Fp16 => Kind::Half,
        _ => Kind::Float,
    }
}

#[cfg(test)]
mod tests;
