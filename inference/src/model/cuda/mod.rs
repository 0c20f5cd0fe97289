//! The encoder on NVIDIA GPUs.
//!
//! ```text
//! Packed ─▶ Staging ──pinned──▶ GPU: embeddings ▸ layers (packed attention) ▸ pooling ──pinned──▶ fp32 on the CPU
//! ```
//!
//! Guarantees: numbers as the CPU's, up to the rounding of the precision; a batch that cannot run does not reach the
//! device; running out of memory is `Exhausted`, a lost device `Unavailable`.
//!
//! Each worker has a stream of its own, and a GPU has two workers, so that one batch is copied and its results are read
//! while the other computes; no worker waits for the other. Several GPUs share the workers out in turn.

mod fused;
mod shim;
mod staging;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tch::{Device, Kind, Tensor, no_grad};
use undertone_error::{Error, ErrorKind, Result};

use self::fused::Fused;
use self::shim::Stream;
use self::staging::{Staged, Staging};
use super::encoder::{ByGroups, Encoder, LayerNorm, Linear, Steps, Torch, add_norm, embed};
use super::forward::{Arithmetic, Forward, Sizing};
use super::manifest::Pooling;
use super::pack::Packed;
use super::torch_error;
use crate::device::{AMPERE, Gpu, Precision};

/// Two batches in flight a GPU: one computes while the other is copied.
const WORKERS_PER_GPU: usize = 2;
/// Sizes of batches, in tokens, that are run once before the first text: cuBLAS chooses its kernels and libtorch's
/// allocator takes its memory then.
const WARM: [usize; 5] = [32, 512, 2048, 8192, 32768];
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
    fused: Option<Fused>,
}

impl Replica {
    /// Copies the weights to a device.
    fn new(encoder: &Encoder, device: Device, kind: Kind, attention: Attention) -> Torch<Self> {
        let encoder = encoder.map(&|weight| weight.f_to_device(device)?.f_to_kind(kind))?;
        Ok(Self { encoder, device, attention, fused: None })
    }

    /// The same with kernels of our own, where they fit the model and the GPU. What goes wrong with them is logged and costs
    /// speed only.
    fn with_fused(mut self, gpu: &Gpu, precision: Precision) -> Self {
        let ((heads, _), hidden) = (self.encoder.form(), self.encoder.hidden());
        // Modules are loaded onto the GPU that is the calling thread's current one.
        let entered = Stream::new(self.device).and_then(Stream::enter).map_err(|error| error.to_string());
        self.fused = match entered.and_then(|()| Fused::new(gpu, precision, hidden, heads).transpose()) {
            Ok(fused) => fused,
            Err(reason) => {
                tracing::warn!(reason, "GPU kernels could not be made; libtorch's are used, which are slower");
                None
            }
        };
        self
    }

    fn share(&self) -> Self {
        Self { encoder: self.encoder.share(), fused: self.fused.clone(), ..*self }
    }

    fn kernels(&self) -> &'static str {
        match &self.fused {
            Some(_) => "fused kernels and libtorch",
            None => self.attention.name(),
        }
    }

    /// Pooled vectors, fp32 on the device, in the order in which the sequences were given: [sequences, hidden].
    fn run(&self, batch: &Packed, staging: &Staging) -> Torch<Tensor> {
        let staged = staging.send(self.device)?;
        let (heads, pooling) = self.encoder.form();
        let steps: &dyn Steps = match self.attention {
            Attention::Groups => &ByGroups { groups: batch.groups(), heads },
            attention => &OnGpu { attention, fused: self.fused.as_ref(), staged: &staged, heads },
        };
        let x = self.encoder.encode(&staged.ids, &staged.positions, steps, &mut || {})?;
        if let Some(fused) = &self.fused {
            return fused.pool(&x, &staged, pooling == Pooling::Cls);
        }
        let pooled = match pooling {
            Pooling::Mean => mean(&x.f_to_kind(Kind::Float)?, &staged.lengths)?,
            Pooling::Cls => {
                x.f_index_select(0, &staged.bounds.f_narrow(0, 0, batch.sequences() as i64)?)?.f_to_kind(Kind::Float)?
            }
        };
        pooled.f_index_select(0, &staged.places)
    }
}

/// The steps of an encoder in half precision.
struct OnGpu<'a> {
    attention: Attention,
    fused: Option<&'a Fused>,
    staged: &'a Staged,
    heads: i64,
}

impl Steps for OnGpu<'_> {
    fn attend(&self, qkv: &Tensor) -> Torch<Tensor> {
        let (staged, heads) = (self.staged, self.heads);
        let Some(fused) = self.fused else {
            return attend_packed(self.attention, qkv, &staged.bounds, staged.longest, heads);
        };
        // Short sequences lie first; what is behind them is left to libtorch, whose result has room for all rows.
        let (short, all) = (staged.short.sequences, staged.places.numel() as i64);
        let out = match short < all {
            true => {
                let bounds = staged.bounds.f_narrow(0, short, all - short + 1)?;
                attend_packed(self.attention, qkv, &bounds, staged.longest, heads)?
            }
            false => {
                let [tokens, width] = two(qkv)?;
                Tensor::f_empty([tokens, width / 3], (qkv.kind(), qkv.device()))?
            }
        };
        fused.attend(qkv, staged, heads, &out)?;
        Ok(out)
    }

    fn embed(&self, words: (&Tensor, &Tensor), positions: (&Tensor, &Tensor), norm: &LayerNorm) -> Torch<Tensor> {
        match self.fused {
            Some(fused) => fused.embed_norm((words.0, positions.0), self.staged, norm),
            None => embed(words, positions, norm),
        }
    }

    fn add_norm(&self, x: &Tensor, residual: &Tensor, norm: &LayerNorm) -> Torch<Tensor> {
        match self.fused {
            Some(fused) => fused.add_norm(x, residual, norm),
            None => add_norm(x, residual, norm),
        }
    }

    /// GELU by the hyperbolic tangent, within the product while its sums are still fp32. That is off by 5e-4 at most; rounding
    /// the sums to half precision first, as a GELU of its own has to, is off by more.
    fn inner(&self, x: &Tensor, linear: &Linear) -> Torch<Tensor> {
        shim::linear_gelu(x, &linear.weight, &linear.bias)
    }
}

fn two(tensor: &Tensor) -> Torch<[i64; 2]> {
    tensor.size().try_into().map_err(|size| tch::TchError::Shape(format!("{size:?} are not two dimensions")))
}

/// Attention within each sequence in one call of libtorch. `qkv` is [tokens, 3 * hidden], `bounds` int32 [sequences + 1]; the
/// result is [tokens, hidden], of which rows outside the bounds are undefined.
fn attend_packed(attention: Attention, qkv: &Tensor, bounds: &Tensor, longest: i64, heads: i64) -> Torch<Tensor> {
    let [tokens, width] = two(qkv)?;
    let hidden = width / 3;
    // Views with strides: neither kernel needs the three apart.
    let split = qkv.f_view([tokens, 3, heads, hidden / heads])?;
    let part = |index| split.f_select(1, index);
    let (query, key, value) = (part(0)?, part(1)?, part(2)?);
    let attended = match attention {
        Attention::Flash => shim::flash_attention([&query, &key, &value], bounds, longest)?,
        _ => {
            let (query, key, value) = (query.f_unsqueeze(0)?, key.f_unsqueeze(0)?, value.f_unsqueeze(0)?);
            shim::efficient_attention([&query, &key, &value], bounds, longest)?
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
    /// Copies the weights to the GPUs. With `ours`, our own kernels run where they fit.
    ///
    /// # Errors
    /// `Exhausted` if a GPU has no room for them, `Unavailable` if one does not work.
    pub(super) fn new(encoder: &Encoder, gpus: &[(usize, Gpu)], precision: Precision, ours: bool) -> Result<Self> {
        if !shim::has_cuda() {
            return Err(Error::new(ErrorKind::Unavailable, "libtorch_cuda is loaded but has not registered itself")
                .help("install torch again, whole, and start undertone again"));
        }
        let attention = Attention::choose(precision, gpus);
        let replica = |(number, gpu): &(usize, Gpu)| {
            let device = Device::Cuda(*number);
            no_grad(|| Replica::new(encoder, device, kind(precision), attention))
                .map(|replica| if ours { replica.with_fused(gpu, precision) } else { replica })
                .map_err(|error| torch_error(error).with("device", format!("cuda:{number}")))
        };
        let replicas = gpus.iter().map(replica).collect::<Result<Vec<_>>>()?;
        for (number, _) in gpus {
            // The copies ran on this thread's streams; workers read the weights on theirs.
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
    /// Without pauses: a batch is handed to the GPU as a whole.
    fn forward_with_pauses(&self, batch: &Packed, _: &mut dyn FnMut()) -> Result<Tensor> {
        let replica = self.replica()?;
        if batch.sequences() == 0 {
            return Forward::forward(&replica.encoder, batch)
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
        let mut shared = Self {
            replicas: self.replicas.iter().map(Replica::share).collect(),
            mine,
            stream,
            precision: self.precision,
            next: Arc::clone(&self.next),
        };
        let warm = stream.map(|_| shared.warm());
        if let Some(Err(error)) = &warm {
            tracing::warn!(%error, "a GPU could not be warmed");
        }
        // Our kernels need the GPU to be the thread's own, which entering the stream makes it; and they are the newest part.
        if !matches!(warm, Some(Ok(())))
            && let Some(own) = shared.replicas.get_mut(mine)
        {
            own.fused = None;
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
            // Where one GPU has none of ours, no more is claimed for the others.
            kernels: self
                .replicas
                .iter()
                .min_by_key(|replica| replica.fused.is_some())
                .map_or("libtorch", Replica::kernels)
                .to_owned(),
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
