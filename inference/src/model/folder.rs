//! Reading a model folder: which files it has, their bytes, and JSON errors that name file and key.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use undertone_error::{Error, ErrorKind, Result};

use super::manifest::{self, Manifest};
use super::shape::EncoderShape;

/// The encoder's shape.
pub(crate) const CONFIG: &str = "config.json";
/// The tokeniser.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// The encoder's weights.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// Where heads are looked for before [`WEIGHTS`].
pub(crate) const HEADS: &str = "heads.safetensors";

/// A model folder whose small files are read and validated. The weights are not read yet.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    path: PathBuf,
    manifest: Manifest,
    shape: EncoderShape,
    tokenizer: Vec<u8>,
}

impl ModelFolder {
    /// Opens a folder: `config.json`, `tokenizer.json` and, if it exists, `undertone.json`.
    ///
    /// # Errors
    /// `NotFound` for a missing folder or file, `InvalidConfig` and `Unsupported` naming file and key.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(Error::new(ErrorKind::NotFound, "model folder does not exist")
                .with("path", path.display())
                .help("name a folder with config.json, tokenizer.json and model.safetensors; `scripts/setup.py run` fetches the shipped one"));
        }
        let shape = in_folder(path, EncoderShape::parse(&read(path, CONFIG)?))?;
        let manifest = match path.join(manifest::FILE).exists() {
            true => in_folder(path, Manifest::parse(&read(path, manifest::FILE)?))?,
            false => Manifest::default(),
        };
        if let Some(max) = manifest.max_tokens.filter(|&max| max > shape.positions) {
            return Err(Error::new(ErrorKind::InvalidConfig, "max_tokens is more than the encoder has positions")
                .with("path", path.display())
                .with("file", manifest::FILE)
                .with("max_tokens", max)
                .help(format!("use at most {}", shape.positions)));
        }
        let tokenizer = read(path, TOKENIZER)?;
        Ok(Self { path: path.to_owned(), manifest, shape, tokenizer })
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
        self.manifest.max_tokens.unwrap_or(self.shape.positions)
    }

    /// The file that holds a head's tensors; without a name, also that of the embedding's projection.
    pub(crate) fn head_file(&self, named: Option<&str>) -> String {
        let fallback = || if self.path.join(HEADS).exists() { HEADS } else { WEIGHTS }.to_owned();
        named.map_or_else(fallback, str::to_owned)
    }

    /// The names of the files that the model consists of, in a fixed order.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut files = vec![CONFIG.to_owned(), TOKENIZER.to_owned(), WEIGHTS.to_owned()];
        if self.path.join(manifest::FILE).exists() {
            files.push(manifest::FILE.to_owned());
        }
        let heads = self.manifest.heads.iter().map(|head| self.head_file(head.file.as_deref()));
        let projection = self.manifest.embedding.projection.iter().map(|_| self.head_file(None));
        for file in heads.chain(projection) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }
}

/// Reads a file of the folder.
pub(crate) fn read(folder: &Path, file: &str) -> Result<Vec<u8>> {
    fs::read(folder.join(file)).map_err(|error| cannot_read(folder, file, error))
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
