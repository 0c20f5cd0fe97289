//! Encoder, embedding and heads as one forward pass: token ids in, scores out.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tch::{Tensor, no_grad};
use undertone_error::{Error, ErrorKind, Result};

use super::choose::choose;
use super::encoder::Encoder;
use super::folder::{ModelFolder, WEIGHTS};
use super::forward::{Arithmetic, Forward, Sizing};
use super::heads::{Heads, Rows, Verdict};
use super::pack::Packed;
use super::torch_error;
use super::weights::Weights;
use crate::device::{Device, Precision};
use crate::telemetry;

/// A vector shorter than this has no direction; sentence-transformers uses the same bound.
const SHORTEST: f64 = 1e-12;

/// What the network says about one text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) embedding: Vec<f32>,
    pub(crate) verdict: Verdict,
}

/// A loaded model, ready to run. `Send`, not `Sync`: each worker takes its own [`Network::share`].
#[derive(Debug)]
pub struct Network {
    encoder: Box<dyn Forward>,
    projection: Option<Projection>,
    normalize: bool,
    padding: Option<u32>,
    heads: Heads,
    dimensions: usize,
    parameters: u64,
}

/// A linear map from the pooled vector to the embedding: weight [dimensions, hidden].
#[derive(Debug)]
struct Projection {
    weight: Tensor,
    bias: Tensor,
}

impl Network {
    /// Reads the weights of a folder to run in fp32 on the CPU: the reference.
    ///
    /// # Errors
    /// As [`Network::load_on`].
    pub fn load(folder: &ModelFolder) -> Result<Self> {
        Self::load_on(folder, Device::Cpu, Precision::Fp32)
    }

    /// Reads the weights of a folder to where they are to run.
    ///
    /// # Errors
    /// `NotFound`, `Corrupt` or `InvalidConfig`, naming the file and the tensor; `Unsupported` or `Unavailable` if this
    /// machine cannot run it so, naming what is missing.
    pub fn load_on(folder: &ModelFolder, device: Device, precision: Precision) -> Result<Self> {
        let mut files: HashMap<String, Rc<Weights>> = HashMap::new();
        let mut open = |name: &str| -> Result<Rc<Weights>> {
            if let Some(file) = files.get(name) {
                return Ok(Rc::clone(file));
            }
            let weights =
                if name == WEIGHTS { Weights::model(folder.path()) } else { Weights::read(folder.path(), name) };
            let file = Rc::new(weights?);
            files.insert(name.to_owned(), Rc::clone(&file));
            Ok(file)
        };
        let shape = folder.shape();
        let manifest = folder.manifest();
        let encoder = Encoder::load(open(WEIGHTS)?.as_ref(), shape, manifest.pooling)?;
        let projection = match &manifest.embedding.projection {
            Some(name) => Some(Projection::load(open(&folder.head_file(None))?.as_ref(), name, shape.hidden)?),
            None => None,
        };
        let dimensions = projection.as_ref().map_or(shape.hidden, Projection::dimensions);
        let heads = Heads::load(folder, shape.hidden, dimensions, &mut open)?;
        let parameters = files.values().map(|file| file.parameters()).sum();
        let encoder = choose(folder, encoder, device, precision)?;
        // An id that does not fit is none that a tokeniser gives.
        let padding = shape.padding.and_then(|padding| u32::try_from(padding).ok());
        let normalize = manifest.embedding.normalize;
        Ok(Self { encoder, projection, normalize, padding, heads, dimensions, parameters })
    }

    /// Another handle on the same weights.
    #[must_use]
    pub fn share(&self) -> Self {
        Self {
            encoder: self.encoder.share(),
            projection: self.projection.as_ref().map(Projection::share),
            normalize: self.normalize,
            padding: self.padding,
            heads: self.heads.share(),
            dimensions: self.dimensions,
            parameters: self.parameters,
        }
    }

    /// The encoder alone.
    pub fn encoder(&self) -> &dyn Forward {
        &*self.encoder
    }

    /// In what arithmetic, where and by which kernels the encoder runs.
    pub fn arithmetic(&self) -> Arithmetic {
        self.encoder.describe()
    }

    /// How an engine that runs it is best sized.
    pub fn sizing(&self) -> Sizing {
        self.encoder.sizing()
    }

    /// The width of an embedding.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// How many weights there are.
    pub fn parameters(&self) -> u64 {
        self.parameters
    }

    /// Packs sequences of token ids as this model's encoder counts positions.
    pub fn pack<S: AsRef<[u32]>>(&self, sequences: &[S]) -> Packed {
        Packed::new(sequences, self.padding)
    }

    /// Runs a batch: one result a sequence, in order. A text whose numbers are not finite fails alone. In a `pause` other
    /// batches may run.
    pub(crate) fn forward<S: AsRef<[u32]>>(
        &self,
        sequences: &[S],
        pause: &mut dyn FnMut(),
    ) -> Result<Vec<Result<Outcome>>> {
        let started = Instant::now();
        let packed = self.pack(sequences);
        let mut paused = Duration::ZERO;
        let mut timed = || {
            let began = Instant::now();
            pause();
            paused += began.elapsed();
        };
        let pooled = self.encoder.forward_with_pauses(&packed, &mut timed)?;
        let encoded = Instant::now();
        telemetry::stage("encode", (encoded - started).saturating_sub(paused));
        let outcomes = no_grad(|| {
            let embedding = self.embed(&pooled)?;
            let logits = self.heads.logits(&pooled, &embedding)?;
            let rows = Rows::copy(&embedding)?;
            let outcome = |i: usize| {
                let embedding = rows.row(i).to_vec();
                if embedding.len() != self.dimensions || embedding.iter().any(|value| !value.is_finite()) {
                    return Err(Error::new(ErrorKind::Internal, "embedding has a value that is not finite")
                        .help("compare the revision that `undertone model show` prints with that of where the model comes from"));
                }
                Ok(Outcome { embedding, verdict: self.heads.verdict(&logits, i)? })
            };
            Ok((0..packed.sequences()).map(outcome).collect())
        });
        telemetry::stage("heads", encoded.elapsed());
        outcomes
    }

    /// Pooled vectors [texts, hidden] to embeddings [texts, dimensions].
    fn embed(&self, pooled: &Tensor) -> Result<Tensor> {
        let projected = match &self.projection {
            Some(projection) => pooled.f_linear(&projection.weight, Some(&projection.bias)).map_err(torch_error)?,
            None => pooled.shallow_clone(),
        };
        if !self.normalize {
            return Ok(projected);
        }
        let length =
            projected.f_norm_scalaropt_dim(2, [1].as_slice(), true).and_then(|norm| norm.f_clamp_min(SHORTEST));
        length.and_then(|length| projected.f_div(&length)).map_err(torch_error)
    }
}

impl Projection {
    fn load(weights: &Weights, name: &str, hidden: usize) -> Result<Self> {
        let weight = format!("{name}.weight");
        let dimensions = weights.first_dimension(&weight).unwrap_or(hidden);
        let weight = weights.get(&weight, &[dimensions, hidden])?;
        let bias = weights.get(&format!("{name}.bias"), &[dimensions])?;
        Ok(Self { weight, bias })
    }

    fn dimensions(&self) -> usize {
        self.bias.numel()
    }

    fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), bias: self.bias.shallow_clone() }
    }
}
