//! Text in, scores out: tokeniser, encoder, heads and the batcher that feeds them. This crate knows nothing of networks
//! or topics; the gateway and the stream both score through one [`Engine`].
//!
//! # Using it
//!
//! ```no_run
//! # async fn example() -> undertone_error::Result<()> {
//! use std::path::Path;
//! use undertone_inference::{Engine, EngineConfig, Lane, Request};
//!
//! let engine = Engine::start(Path::new("models/sentiment"), EngineConfig::default())?;
//! let scored = engine.score(Request::new("best espresso of the year 😍")).await?;
//! println!("{:?} {:?}", scored.sentiment, scored.polarity);
//! let results = engine.score_all(vec!["one".into(), "two".into()], Lane::Bulk).await;
//! # Ok(())
//! # }
//! ```
//!
//! # What happens to a text
//!
//! ```text
//! text ─▶ normalize ─▶ tokenize ─▶ [queue: two lanes] ─▶ pack ─▶ encoder ─▶ pool ─┬─▶ embedding
//!             └ clean text    └ token ids                                          └─▶ heads ─▶ probabilities, polarity
//! ```
//!
//! # Packing, for those who know PyTorch
//!
//! A Hugging Face model takes a rectangle `[batch, longest]` with an attention mask; short texts are padded, and for
//! posts about 40 % of the arithmetic is spent on padding. Here a batch is one row of tokens `[total_tokens]`, text
//! behind text, with the position of each token and the cumulative lengths beside it (what flash attention calls
//! `cu_seqlens`). `nn.Linear`, `LayerNorm` and GELU work on `[total_tokens, hidden]` as they are, since they never look
//! across rows. Attention does: on a CPU our kernels run it for one text after the other on the packed rows; libtorch's
//! encoder, the reference, sorts texts by length and runs `scaled_dot_product_attention` without a mask on each group of
//! equal length. Mean pooling averages each text's own rows. Because nothing of one text ever meets another, a text's score is the same in
//! any batch, up to the rounding of fp32; a property test holds that to 1e-5.
//!
//! # Lanes
//!
//! A person at a web page and a stream of millions share one model. Their texts wait in two lanes: interactive texts
//! fill each batch first, bulk texts fill the rest of its token budget. A bulk text that has waited long gets a turn of
//! its own now and then, so the stream moves even under constant interactive load. A full interactive lane refuses
//! (`Busy`), because a person is better served by a quick "no"; a full bulk lane makes its callers wait, which is
//! how backpressure reaches the stream's source. No batch waits to be filled: a free worker takes what is there.
//!
//! On a processor a batch of bulk pauses after each piece of work (64 tokens of one layer, a millisecond or two), and interactive
//! texts that came meanwhile run in the pause: they wait for a piece, not for the batch, which stays as large as it is best.
//! A long interactive text lets shorter ones pass in the same way. How much a batch gives away is bounded, so bulk moves on
//! under any load. A GPU has no such pauses: while interactive texts come, its batches with bulk texts in them are half as large.
//!
//! # When something fails
//!
//! A batch that fails is halved until the culprit fails alone, and a known-good text, the canary, is run after each
//! failure: if it passes, the text gets its error; if it fails too, the device is ill, its texts wait for another worker
//! or for its restart, and no text is blamed. When memory runs out the worker's token budget halves, and grows back.
//!
//! # Reposts and new revisions
//!
//! The score of a clean text is kept for a while, so reposts cost no forward pass ([`EngineConfig::cache_bytes`]); a
//! cache belongs to one loaded model. [`Engine::replace`] swaps the model for another revision while it serves; each
//! [`Scored`] names the model that scored it.
//!
//! # Precisions on a CPU
//!
//! The crate `undertone-kernels` multiplies, normalises and attends, compiled for several instruction sets and chosen at run
//! time (AVX-512 with BF16 and VNNI, AVX2, portable). `fp32` is the reference; `bf16` is the default where the processor
//! multiplies it; `int8` is taken when it is asked for: weights a scale a channel, activations a scale and a zero point a
//! row, sums exact. `UNDERTONE_KERNELS` forces a set by name, or `libtorch`; `undertone model show` says what runs.
//!
//! # Devices and precisions
//!
//! `--device auto|cpu|cuda|cuda:N` says where, `--precision auto|fp32|bf16|fp16|int8` in which arithmetic; what cannot be
//! had is refused by name, and `auto` logs what it chose and why. The binary is linked with no CUDA library: on a machine
//! with NVIDIA's driver (580 or newer) it loads `libtorch_cuda.so` at run time, from beside its own libtorch or from where
//! `UNDERTONE_LIBTORCH_CUDA` points (the `torch/lib` of a Python environment with torch 2.11.0). On CUDA the default is bf16,
//! fp16 on GPUs older than Ampere. Linear layers are cuBLAS's, with GELU in the same call; what lies between them is our own
//! (`model/cuda/kernels.cu`), compiled for the GPU when the model is loaded, by the compiler that PyTorch brings along: attention over
//! short texts, residual and layer norm in one pass, pooling. Long texts take libtorch's flash attention (memory-efficient
//! attention on older GPUs), and `UNDERTONE_KERNELS=libtorch` takes libtorch's operators for everything. Each GPU has two
//! workers with a stream each, so that copies overlap with arithmetic; the other cores only read texts for them. Heads run
//! on the CPU in fp32 everywhere. `benches/gpu/RESULTS.md` has what an H200 reaches.
//!
//! # Modules
//!
//! [`device`] names where a model runs and in which precision, [`model`] is the folder and the arithmetic, [`normalize`] and [`tokenize`] what comes before it, [`language`] tells
//! the language, [`mod@bench`] measures. The batcher is private; the [`Engine`] is its face.

mod batcher;
pub mod bench;
pub mod device;
mod engine;
mod info;
mod lane;
pub mod language;
pub mod model;
pub mod normalize;
mod scored;
mod telemetry;
pub mod tokenize;

pub use device::{Device, Precision, use_libtorch_cuda};
pub use engine::{Engine, EngineConfig, EngineStats, LaneStats, Request};
pub use info::{HeadInfo, HeadKind, ModelInfo};
pub use lane::Lane;
pub use model::LabelMap;
pub use scored::{HeadScores, Scored, Times};
