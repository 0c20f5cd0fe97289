//! Tensors by name, with errors that name the file, the tensor and the shape.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

use tch::{Kind, Tensor};
use undertone_error::{Error, ErrorKind, Result};

use super::folder::cannot_read;
use super::torch_error;

/// The tensors of one `.safetensors` file, handed out as fp32.
pub(crate) struct Weights {
    folder: String,
    file: String,
    tensors: HashMap<String, Tensor>,
    /// `bert.` where the file was saved with a head around the encoder.
    prefix: &'static str,
    parameters: Cell<u64>,
}

impl Weights {
    /// Reads a file of the folder. Values may be f32, f16 or bf16.
    pub(crate) fn read(folder: &Path, file: &str) -> Result<Self> {
        let path = folder.join(file);
        std::fs::metadata(&path).map_err(|error| cannot_read(folder, file, error))?;
        let tensors: HashMap<_, _> = Tensor::read_safetensors(&path)
            .map_err(|error| {
                Error::new(ErrorKind::Corrupt, "file of weights is damaged")
                    .with("path", folder.display())
                    .with("file", file)
                    .source(error)
                    .help("copy it again, and compare its checksum with the source's")
            })?
            .into_iter()
            .collect();
        let prefix = if tensors.keys().any(|name| name.starts_with("bert.embeddings.")) { "bert." } else { "" };
        Ok(Self {
            folder: folder.display().to_string(),
            file: file.to_owned(),
            tensors,
            prefix,
            parameters: Cell::new(0),
        })
    }

    /// A tensor of the encoder, by its Hugging Face name without `bert.`.
    pub(crate) fn encoder(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.get(&format!("{}{name}", self.prefix), shape)
    }

    /// A tensor by its full name, as contiguous fp32.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let refuse = |message: &str| {
            Error::new(ErrorKind::InvalidConfig, message)
                .with("path", &self.folder)
                .with("file", &self.file)
                .with("tensor", name)
        };
        let Some(tensor) = self.tensors.get(name) else {
            return Err(
                refuse("tensor is missing").help("the weights, config.json and undertone.json must belong together")
            );
        };
        let found: Vec<usize> = tensor.size().iter().map(|&n| usize::try_from(n).unwrap_or(0)).collect();
        if found != shape {
            return Err(refuse("tensor has the wrong shape")
                .with("found", format!("{found:?}"))
                .with("expected", format!("{shape:?}"))
                .help("the weights, config.json and undertone.json must belong together"));
        }
        let kind = tensor.f_kind().map_err(torch_error)?;
        if !matches!(kind, Kind::Float | Kind::Half | Kind::BFloat16) {
            return Err(refuse("tensor has values of a kind that we do not compute with")
                .with("found", format!("{kind:?}"))
                .help("save the weights as f32, f16 or bf16"));
        }
        self.parameters.set(self.parameters.get() + shape.iter().product::<usize>() as u64);
        tensor.f_to_kind(Kind::Float).and_then(|tensor| tensor.f_contiguous()).map_err(torch_error)
    }

    /// The first dimension of a tensor, if it is there.
    pub(crate) fn first_dimension(&self, name: &str) -> Option<usize> {
        self.tensors.get(name).and_then(|tensor| tensor.size().first().and_then(|&n| usize::try_from(n).ok()))
    }

    /// How many values were handed out.
    pub(crate) fn parameters(&self) -> u64 {
        self.parameters.get()
    }
}
