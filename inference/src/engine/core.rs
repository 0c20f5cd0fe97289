//! A model folder made ready to run: what each worker of the engine works with.

use std::path::Path;
use std::sync::Once;
use std::thread;

use undertone_error::{Error, ErrorKind, Result};

use super::EngineConfig;
use crate::batcher::{Backend, Normalized, Prepared, Reader};
use crate::language::{self, Languages, Reading};
use crate::model::{Arithmetic, ModelFolder, Network, Outcome, revision};
use crate::normalize::{Normalizer, is_blank};
use crate::tokenize::{TextTokenizer, Tokens};
use crate::{HeadInfo, ModelInfo};

/// A loaded model, and a backend for each worker.
pub(super) struct Loaded {
    pub(super) model: ModelInfo,
    pub(super) backends: Vec<Core>,
    /// What the other cores prepare texts with, beside a GPU.
    pub(super) readers: Vec<Box<dyn Reader>>,
    /// Whether it runs on a GPU, which wants large batches.
    pub(super) gpu: bool,
}

/// What texts are prepared with.
#[derive(Clone)]
struct TextReader {
    normalizer: Normalizer,
    detect_language: bool,
    languages: Option<Languages>,
    tokenizer: TextTokenizer,
}

/// What a worker of the engine works with.
pub(super) struct Core {
    reader: TextReader,
    network: Network,
}

/// Reads a model folder.
///
/// # Errors
/// `NotFound`, `InvalidConfig`, `Unsupported` or `Corrupt`, naming the file, the key and the mend.
pub(super) fn load(model_dir: &Path, config: &EngineConfig) -> Result<Loaded> {
    single_interop_thread();
    let folder = ModelFolder::open_with(model_dir, config.labels.as_ref())?;
    let hashing = {
        let folder = folder.clone();
        thread::spawn(move || revision(&folder))
    };
    let tokenizer = TextTokenizer::new(folder.tokenizer_json(), folder.max_tokens(), folder.vocabulary())?;
    let network = Network::load_on(&folder, config.device, config.precision)?;
    let revision =
        hashing.join().map_err(|_| Error::new(ErrorKind::Internal, "hashing the model folder panicked"))??;
    let model = describe(&folder, &network, revision);

    let sizing = network.sizing();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let workers = match config.workers {
        0 => sizing.workers.unwrap_or(cores),
        n => n,
    };
    let (normalizer, languages) = (folder.manifest().normalizer(), folder.manifest().languages().cloned());
    let reader = TextReader { normalizer, detect_language: config.detect_language, languages, tokenizer };
    let backends = (0..workers).map(|_| Core { reader: reader.clone(), network: network.share() }).collect();
    let others = if sizing.gpu { cores.saturating_sub(workers).max(1) } else { 0 };
    let readers = (0..others).map(|_| Box::new(reader.clone()) as Box<dyn Reader>).collect();
    tracing::info!(
        model = model.name,
        revision = model.short_revision(),
        precision = model.precision,
        device = model.device,
        kernels = model.kernels,
        workers,
        readers = others,
        "model loaded"
    );
    Ok(Loaded { model, backends, readers, gpu: sizing.gpu })
}

impl Reader for TextReader {
    fn normalize(&self, text: &str) -> Result<Normalized> {
        let readable = self.tokenizer.readable(text);
        let clean_text = self.normalizer.apply(readable);
        if is_blank(&clean_text) {
            return Err(Error::new(ErrorKind::InvalidInput, "text is empty")
                .with("bytes", text.len())
                .help("send a text that shows something"));
        }
        // The language is told from the text as it came: names of emoji are English in every language.
        let reading = match self.detect_language {
            true => language::read(readable, self.languages.as_ref()),
            false => Reading::default(),
        };
        Ok(Normalized { reading, clean_text, cut: readable.len() < text.len() })
    }

    fn tokenize(&self, text: &Normalized) -> Result<Tokens> {
        let tokens = self.tokenizer.encode(&text.clean_text)?;
        if tokens.empty {
            return Err(Error::new(ErrorKind::InvalidInput, "text has nothing that the model reads")
                .with("bytes", text.clean_text.len())
                .help("send a text with words, numbers, punctuation or emoji"));
        }
        Ok(tokens)
    }
}

impl Reader for Core {
    fn normalize(&self, text: &str) -> Result<Normalized> {
        self.reader.normalize(text)
    }

    fn tokenize(&self, text: &Normalized) -> Result<Tokens> {
        self.reader.tokenize(text)
    }
}

impl Backend for Core {
    fn enter(&mut self) -> Result<()> {
        // One worker a core: a second thread inside a forward pass would only take the core of another worker.
        tch::set_num_threads(1);
        Ok(())
    }

    fn pauses(&self) -> bool {
        !self.network.sizing().gpu
    }

    fn run(&self, batch: &[Prepared], pause: &mut dyn FnMut()) -> Result<Vec<Result<Outcome>>> {
        self.network.forward(batch, pause)
    }
}

/// Forward passes never use libtorch's inter-op pool, which has a thread a core otherwise. libtorch allows one call.
fn single_interop_thread() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tch::set_num_interop_threads(1));
}

fn describe(folder: &ModelFolder, network: &Network, revision: String) -> ModelInfo {
    let manifest = folder.manifest();
    let heads = manifest.heads();
    let Arithmetic { precision, device, kernels } = network.arithmetic();
    ModelInfo {
        name: folder.name(),
        revision,
        precision,
        device,
        kernels,
        dimensions: network.dimensions(),
        sentiment_head: manifest.sentiment_head().map(str::to_owned),
        heads: heads
            .iter()
            .map(|head| HeadInfo {
                name: head.name.clone(),
                labels: head.labels.clone(),
                kind: head.kind,
                temperature: head.temperature,
            })
            .collect(),
        max_tokens: folder.max_tokens(),
        normalizer: manifest.normalizer().name().to_owned(),
        languages: manifest.languages().map(|languages| languages.codes().into_iter().map(str::to_owned).collect()),
        parameters: network.parameters(),
        layers: folder.layers(),
    }
}
