//! Reading a model folder: which files it has, their bytes, and JSON errors that name file and key.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use undertone_error::{Error, ErrorKind, Result};

use super::classification::classification;
use super::companions;
use super::labels::LabelMap;
use super::manifest::{self, HeadInput, HeadSpec, Manifest};
use super::shape::EncoderShape;
use super::weights::weight_files;

/// The encoder's shape.
pub(crate) const CONFIG: &str = "config.json";
/// The tokeniser.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// The encoder's weights.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// Which shard holds which tensor, where [`WEIGHTS`] was too large for one file.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Where heads are looked for before [`WEIGHTS`].
pub(crate) const HEADS: &str = "heads.safetensors";

/// A model folder whose small files are read and validated. The weights are not read yet.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    path: PathBuf,
    manifest: Manifest,
    shape: EncoderShape,
    tokenizer: Vec<u8>,
    /// The limit of the files beside `config.json`, and of the position table.
    limit: usize,
    weights: Vec<String>,
    /// The configured mapping of labels, where it says something else than the folder.
    remapped: Option<LabelMap>,
}

impl ModelFolder {
    /// Opens a folder: `config.json`, `tokenizer.json` and, if it exists, `undertone.json`. What that does not say is
    /// taken from the files that transformers and sentence-transformers write.
    ///
    /// # Errors
    /// `NotFound` for a missing folder or file, `InvalidConfig` and `Unsupported` naming file and key.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, None)
    }

    /// Opens a folder as [`ModelFolder::open`] does, and maps its labels as a configuration says.
    ///
    /// # Errors
    /// As [`ModelFolder::open`]; `InvalidConfig` naming the key of `[model.labels]` if it does not fit the folder.
    pub fn open_with(path: &Path, labels: Option<&LabelMap>) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::new(ErrorKind::NotFound, "model folder does not exist")
                .with("path", path.display())
                .help("name a folder with config.json, tokenizer.json and model.safetensors; `scripts/setup.py run` fetches the shipped one"));
        }
        let config = read(path, CONFIG)?;
        let shape = in_folder(path, EncoderShape::parse(&config))?;
        let json = match path.join(manifest::FILE).exists() {
            true => Some(read(path, manifest::FILE)?),
            false => None,
        };
        let found = Manifest::resolve(json.as_deref(), &|| classification(&config), &|| companions::pooling(path));
        let mut manifest = in_folder(path, found)?;
        let remapped = match labels {
            Some(labels) => in_folder(path, manifest.map_labels(labels))?.then(|| labels.clone()),
            None => None,
        };
        if let Some(max) = manifest.max_tokens.filter(|&max| max > shape.positions) {
            return Err(Error::new(ErrorKind::InvalidConfig, "max_tokens is more than the encoder has positions")
                .with("path", path.display())
                .with("file", manifest::FILE)
                .with("max_tokens", max)
                .help(format!("use at most {}", shape.positions)));
        }
        let limit =
            in_folder(path, companions::token_limit(path))?.map_or(shape.positions, |limit| limit.min(shape.positions));
        let tokenizer = read_tokenizer(path)?;
        let weights = weight_files(path)?;
        Ok(Self { path: path.to_owned(), manifest, shape, tokenizer, limit, weights, remapped })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `undertone.json` says.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub(crate) fn shape(&self) -> &EncoderShape {
        &self.shape
    }

    /// How many transformer layers the encoder has.
    pub fn layers(&self) -> usize {
        self.shape.layers
    }

    /// How many word embeddings the encoder has.
    pub fn vocabulary(&self) -> usize {
        self.shape.vocabulary
    }

    /// The bytes of `tokenizer.json`.
    pub fn tokenizer_json(&self) -> &[u8] {
        &self.tokenizer
    }

    /// The model's name: as the manifest says, else the folder's.
    pub(crate) fn name(&self) -> String {
        let folder = || self.path.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
        self.manifest.name.clone().or_else(folder).unwrap_or_else(|| "model".to_owned())
    }

    /// The longest sequence, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.manifest.max_tokens.unwrap_or(self.limit)
    }

    /// The configured mapping of labels, where it changes what the folder says.
    pub(crate) fn remapped(&self) -> Option<&LabelMap> {
        self.remapped.as_ref()
    }

    /// The file that holds a head's tensors.
    pub(crate) fn file_of(&self, head: &HeadSpec) -> String {
        match head.input {
            HeadInput::Classifier => WEIGHTS.to_owned(),
            HeadInput::Pooled | HeadInput::Embedding => self.head_file(head.file.as_deref()),
        }
    }

    /// The file that holds tensors of ours; without a name, also that of the embedding's projection.
    pub(crate) fn head_file(&self, named: Option<&str>) -> String {
        let fallback = || if self.path.join(HEADS).exists() { HEADS } else { WEIGHTS }.to_owned();
        named.map_or_else(fallback, str::to_owned)
    }

    /// The names of the files that the model consists of, in a fixed order.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut files = vec![CONFIG.to_owned(), TOKENIZER.to_owned()];
        files.extend(self.weights.iter().cloned());
        if self.path.join(manifest::FILE).exists() {
            files.push(manifest::FILE.to_owned());
        }
        let heads = self.manifest.heads.iter().map(|head| self.file_of(head));
        let projection = self.manifest.embedding.projection.iter().map(|_| self.head_file(None));
        for file in heads.chain(projection) {
            // The model's own weights are listed already, in one file or in shards.
            if file != WEIGHTS && !files.contains(&file) {
                files.push(file);
            }
        }
        files.extend(companions::files(&self.path));
        files
    }
}

/// Reads a file of the folder.
pub(crate) fn read(folder: &Path, file: &str) -> Result<Vec<u8>> {
    fs::read(folder.join(file)).map_err(|error| cannot_read(folder, file, error))
}

/// Reads the tokeniser; where only files of a slow one are there, says what makes a fast one of them.
fn read_tokenizer(folder: &Path) -> Result<Vec<u8>> {
    let slow = ["vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model"];
    match slow.into_iter().find(|name| folder.join(name).exists()) {
        Some(found) if !folder.join(TOKENIZER).exists() => {
            Err(Error::new(ErrorKind::NotFound, "model folder has a slow tokeniser only")
                .with("path", folder.display())
                .with("file", TOKENIZER)
                .with("found", found)
                .help("`models/convert.py FOLDER NEW_FOLDER` makes tokenizer.json of it"))
        }
        _ => read(folder, TOKENIZER),
    }
}

/// Says which file of the folder could not be read, and why that matters.
pub(crate) fn cannot_read(folder: &Path, file: &str, error: std::io::Error) -> Error {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let (kind, help) = match missing {
        true => (ErrorKind::NotFound, "a model folder needs it: copy it from where the model comes from"),
        false => (ErrorKind::Unavailable, "make it readable"),
    };
    Error::new(kind, "cannot read a file of the model folder")
        .with("path", folder.display())
        .with("file", file)
        .source(error)
        .help(help)
}

fn in_folder<T>(path: &Path, result: Result<T>) -> Result<T> {
    result.map_err(|error| error.with("path", path.display()))
}

/// Parses JSON; an error names the file and the key.
pub(crate) fn parse_json<T: DeserializeOwned>(file: &'static str, json: &[u8]) -> Result<T> {
    let deserializer = &mut serde_json::Deserializer::from_slice(json);
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let key = error.path().to_string();
        Error::new(ErrorKind::InvalidConfig, "a file of the model folder does not say what it must")
            .with("file", file)
            .with("key", key)
            .source(error.into_inner())
            .help("see models/README.md for what the files of a model folder say")
    })
}
