//! Tensors by name, from one `.safetensors` file or the shards of one model, with errors that name the file, the tensor
//! and the shape. Only headers are read at first; a tensor's bytes are read when it is asked for, so that loading
//! never holds a model twice.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tch::{Kind, Tensor};
use undertone_error::{Error, ErrorKind, Result};

use super::family::{Family, Part};
use super::folder::{INDEX, WEIGHTS, cannot_read, parse_json, read};
use super::torch_error;

/// A header may have this many bytes; the format itself allows no more.
const MAX_HEADER: u64 = 100_000_000;

/// What mends files that do not fit together.
const BELONG_TOGETHER: &str = "the weights, config.json and undertone.json must belong together";

/// Which shard holds which tensor: `model.safetensors.index.json`.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: HashMap<String, String>,
}

/// The files that hold a model's weights: `model.safetensors`, or the index and the shards that it lists.
pub(crate) fn weight_files(folder: &Path) -> Result<Vec<String>> {
    if folder.join(WEIGHTS).exists() {
        return Ok(vec![WEIGHTS.to_owned()]);
    }
    if folder.join(INDEX).exists() {
        let mut shards: Vec<String> = shard_index(folder)?.into_values().collect();
        shards.sort_unstable();
        shards.dedup();
        shards.insert(0, INDEX.to_owned());
        return Ok(shards);
    }
    let others = ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack"];
    let error =
        Error::new(ErrorKind::NotFound, "model folder has no weights that we read").with("path", folder.display());
    Err(match others.into_iter().find(|name| folder.join(name).exists()) {
        Some(found) if found.starts_with("pytorch") => error
            .with("file", WEIGHTS)
            .with("found", found)
            .help("`models/convert.py FOLDER NEW_FOLDER` makes model.safetensors of it"),
        Some(found) => {
            error.with("file", WEIGHTS).with("found", found).help("save the model with transformers as safetensors")
        }
        None => error.with("file", WEIGHTS).help("a model folder needs it: copy it from where the model comes from"),
    })
}

fn shard_index(folder: &Path) -> Result<HashMap<String, String>> {
    let index: ShardIndex =
        parse_json(INDEX, &read(folder, INDEX)?).map_err(|error| error.with("path", folder.display()))?;
    // A name, not a path: an index must not reach outside its folder.
    if let Some((tensor, file)) = index.weight_map.iter().find(|(_, file)| file.contains('/') || file.starts_with('.'))
    {
        return Err(Error::new(ErrorKind::InvalidConfig, "index of the shards names no file of its folder")
            .with("path", folder.display())
            .with("file", INDEX)
            .with("key", format!("weight_map.{tensor}"))
            .with("value", file)
            .help("copy the index again from where the model comes from"));
    }
    Ok(index.weight_map)
}

/// Where a tensor's values lie.
struct Entry {
    file: usize,
    dtype: String,
    shape: Vec<usize>,
    offset: u64,
    bytes: usize,
}

/// The tensors of a model or of one file, handed out as fp32.
pub(crate) struct Weights {
    folder: String,
    files: Vec<(String, File)>,
    tensors: HashMap<String, Entry>,
    /// Which shard should hold which tensor; empty where there is one file.
    index: HashMap<String, String>,
    parameters: Cell<u64>,
}

impl Weights {
    /// Opens one file of the folder. Values may be f32, f16 or bf16.
    pub(crate) fn read(folder: &Path, file: &str) -> Result<Self> {
        Self::open(folder, &[file.to_owned()], HashMap::new())
    }

    /// Opens the weights of the model, in one file or in shards.
    pub(crate) fn model(folder: &Path) -> Result<Self> {
        let mut files = weight_files(folder)?;
        let index = if files.first().is_some_and(|file| file == INDEX) {
            files.remove(0);
            shard_index(folder)?
        } else {
            HashMap::new()
        };
        Self::open(folder, &files, index)
    }

    fn open(folder: &Path, names: &[String], index: HashMap<String, String>) -> Result<Self> {
        let (mut files, mut tensors) = (Vec::new(), HashMap::new());
        for (number, name) in names.iter().enumerate() {
            let file = File::open(folder.join(name)).map_err(|error| {
                let error = cannot_read(folder, name, error);
                if index.is_empty() { error } else { error.with("listed_in", INDEX) }
            })?;
            for (tensor, entry) in read_header(folder, name, &file, number)? {
                tensors.insert(tensor, entry);
            }
            files.push((name.clone(), file));
        }
        Ok(Self { folder: folder.display().to_string(), files, tensors, index, parameters: Cell::new(0) })
    }

    /// A tensor of the encoder: `weight` or `bias` of a part.
    pub(crate) fn encoder(&self, family: Family, part: Part, field: &str, shape: &[usize]) -> Result<Tensor> {
        self.get(&self.encoder_name(family, &format!("{}.{field}", family.name(part))), shape)
    }

    /// The full name of something in the encoder: with the family's prefix where the file was saved with a head around it.
    pub(crate) fn encoder_name(&self, family: Family, name: &str) -> String {
        let prefix = family.prefix();
        let prefixed = self
            .tensors
            .keys()
            .any(|tensor| tensor.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("embeddings.")));
        if prefixed { format!("{prefix}{name}") } else { name.to_owned() }
    }

    /// A tensor by its full name, as contiguous fp32.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let Some(entry) = self.find(name) else {
            return Err(self.refuse("tensor is missing", name, None).help(BELONG_TOGETHER));
        };
        let refuse = |message: &str| self.refuse(message, name, Some(entry.file));
        if entry.shape != shape {
            return Err(refuse("tensor has the wrong shape")
                .with("found", format!("{:?}", entry.shape))
                .with("expected", format!("{shape:?}"))
                .help(BELONG_TOGETHER));
        }
        let kind = match entry.dtype.as_str() {
            "F32" => Kind::Float,
            "F16" => Kind::Half,
            "BF16" => Kind::BFloat16,
            other => {
                return Err(refuse("tensor has values of a kind that we do not compute with")
                    .with("found", other)
                    .help("save the weights as f32, f16 or bf16"));
            }
        };
        let mut bytes = vec![0; entry.bytes];
        if let Some((_, file)) = self.files.get(entry.file) {
            file.read_exact_at(&mut bytes, entry.offset).map_err(|error| {
                self.refuse("tensor cannot be read", name, Some(entry.file)).source(error).help("copy the file again")
            })?;
        }
        self.parameters.set(self.parameters.get() + shape.iter().product::<usize>() as u64);
        let shape: Vec<i64> = shape.iter().map(|&size| size as i64).collect();
        Tensor::f_from_data_size(&bytes, &shape, kind)
            .and_then(|tensor| tensor.f_to_kind(Kind::Float))
            .and_then(|tensor| tensor.f_contiguous())
            .map_err(torch_error)
    }

    /// Files of BERT's first years call the two halves of a layer norm gamma and beta.
    fn find(&self, name: &str) -> Option<&Entry> {
        let old = || {
            let (norm, field) = name.rsplit_once('.')?;
            let old = match field {
                "weight" => "gamma",
                "bias" => "beta",
                _ => return None,
            };
            norm.ends_with("LayerNorm").then(|| self.tensors.get(&format!("{norm}.{old}")))?
        };
        self.tensors.get(name).or_else(old)
    }

    fn refuse(&self, message: &str, tensor: &str, file: Option<usize>) -> Error {
        let held = file.and_then(|file| self.files.get(file)).map(|(name, _)| name.as_str());
        let listed = || self.index.get(tensor).map(String::as_str);
        let only = || self.files.first().filter(|_| self.index.is_empty()).map(|(name, _)| name.as_str());
        let file = held.or_else(listed).or_else(only).unwrap_or(INDEX);
        Error::new(ErrorKind::InvalidConfig, message)
            .with("path", &self.folder)
            .with("file", file)
            .with("tensor", tensor)
    }

    /// The first dimension of a tensor, if it is there.
    pub(crate) fn first_dimension(&self, name: &str) -> Option<usize> {
        self.find(name)?.shape.first().copied()
    }

    /// How many values were handed out.
    pub(crate) fn parameters(&self) -> u64 {
        self.parameters.get()
    }
}

/// Reads what a file says about its tensors, and checks that it is as long as it says.
fn read_header(folder: &Path, name: &str, file: &File, number: usize) -> Result<Vec<(String, Entry)>> {
    let damaged = || {
        Error::new(ErrorKind::Corrupt, "file of weights is damaged")
            .with("path", folder.display())
            .with("file", name)
            .help("copy it again, and compare its checksum with the source's")
    };
    let length = file.metadata().map_err(|error| cannot_read(folder, name, error))?.len();
    let mut prefix = [0; 8];
    file.read_exact_at(&mut prefix, 0).map_err(|error| damaged().with("bytes", length).source(error))?;
    let header = u64::from_le_bytes(prefix);
    if header > MAX_HEADER || header > length.saturating_sub(8) {
        return Err(damaged().with("bytes", length).with("header_bytes", header));
    }
    let start = 8 + header;
    let mut bytes = vec![0; usize::try_from(header).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, 8).map_err(|error| damaged().source(error))?;
    let tensors: HashMap<String, Value> = serde_json::from_slice(&bytes).map_err(|error| damaged().source(error))?;
    let mut entries = Vec::with_capacity(tensors.len());
    let mut end = 0;
    for (tensor, value) in tensors {
        if tensor == "__metadata__" {
            continue;
        }
        let described: Described =
            serde_json::from_value(value).map_err(|error| damaged().with("tensor", &tensor).source(error))?;
        let Some((offset, bytes)) = described.place() else {
            return Err(damaged().with("tensor", tensor));
        };
        end = end.max(offset + bytes as u64);
        let Described { dtype, shape, .. } = described;
        entries.push((tensor, Entry { file: number, dtype, shape, offset: start + offset, bytes }));
    }
    match length == start + end {
        true => Ok(entries),
        false => Err(damaged().with("bytes", length).with("expected_bytes", start + end)),
    }
}

/// A tensor as the header describes it; offsets count from the end of the header.
#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl Described {
    /// The first byte and how many there are; `None` if they are not as many as the shape needs.
    fn place(&self) -> Option<(u64, usize)> {
        let (from, to) = self.data_offsets;
        // Far above any file, and far below where sums of offsets overflow.
        let bytes = to.checked_sub(from).filter(|_| to < 1 << 60)?;
        let values = self.shape.iter().try_fold(1u64, |product, &size| product.checked_mul(size as u64))?;
        let fits = match self.dtype.as_str() {
            "F32" => values.checked_mul(4)? == bytes,
            "F16" | "BF16" => values.checked_mul(2)? == bytes,
            _ => true, // refused by name when it is asked for
        };
        Some((from, usize::try_from(bytes).ok().filter(|_| fits)?))
    }
}
