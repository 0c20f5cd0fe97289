//! The command line: names and meanings of commands and flags. Scripts rely on them.

mod dead;
mod tables;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use undertone_error::{Error, ErrorKind, Result};

pub(crate) use self::dead::{DeadArgs, DeadCommand, DeadFilter, EventPlace};
pub(crate) use self::tables::{ForgetArgs, MaintainArgs, RescoreArgs};
use crate::config::{Config, Layers, ModelConfig, Role};

/// Scores the sentiment of social posts: as a stream into Iceberg tables, over REST and gRPC, or from files.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// How logs are written to standard error
    #[arg(long, global = true, value_enum, default_value = "text", env = "UNDERTONE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the stream and the gateway; without a configuration: synthetic posts into ./data
    Run(RunArgs),
    /// Score the texts of a file or of standard input, one JSON line a text
    Score(ScoreArgs),
    /// Print the texts of a file or of standard input as a model reads them, one JSON line a text
    Normalize(NormalizeArgs),
    /// Print synthetic posts, one JSON object a line
    Generate(GenerateArgs),
    /// Print the JSON Schema of a post
    Schema,
    /// Validate the configuration, the model, the cluster, the data folder and the addresses
    Check(RunArgs),
    /// Make topics and tables, or see that they are there; safe to run again
    Init(RunArgs),
    /// Measure throughput and latency of the model on this machine
    Bench(BenchArgs),
    /// Score what bronze.posts holds again, as a run of its own beside the stream's; the same call goes on with it
    Rescore(RescoreArgs),
    /// Send a tombstone for a post, so that every store forgets it, and say how to erase it from the tables
    Forget(ForgetArgs),
    /// Expire snapshots and remove files that no table needs; says what it would do, and does it with --apply
    Maintain(MaintainArgs),
    /// Look at events that could not be scored, and score them again
    Dead(DeadArgs),
    /// Show what Kafka no longer holds of what is still to be scored or stored; with --yes: go on behind it
    AcceptGap(AcceptGapArgs),
    /// Look at a model folder
    Model(ModelArgs),
    /// Make keys for callers of the gateway
    Key(KeyArgs),
}

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// What this process does: gateway, score, bronze, silver, gold, qdrant, opensearch, clickhouse
    #[arg(long, value_delimiter = ',', value_name = "ROLE,…")]
    roles: Option<Vec<String>>,
    /// Posts to read: .jsonl, .csv, .tsv, .parquet or .txt, also .gz and .zst; "-" reads JSON lines from standard input,
    /// "http" takes what callers send to /v1/posts
    #[arg(long, value_name = "FILE")]
    input: Option<String>,
    /// End with status 0 when the input is used up and everything is committed
    #[arg(long)]
    once: bool,
    /// Folder that holds logs, catalog and tables [default: data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Address of REST and the live page [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// Address of gRPC [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    grpc: Option<String>,
    /// Model folder [default: models/sentiment]
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    #[command(flatten)]
    compute: ComputeArgs,
}

/// Where the model runs and in which arithmetic, and the file that says so and what else there is to configure.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ComputeArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "UNDERTONE_CONFIG")]
    config: Option<PathBuf>,
    /// Where the model runs: auto, cpu, cuda (every GPU) or cuda:N [default: auto]
    #[arg(long, value_name = "D")]
    device: Option<String>,
    /// Arithmetic of the encoder: auto, fp32, bf16, fp16 or int8 [default: auto]
    #[arg(long, value_name = "P")]
    precision: Option<String>,
}

impl ComputeArgs {
    /// The file, `variables` over it, and these flags over both.
    fn layers(self, variables: impl Iterator<Item = (String, String)>) -> Result<Layers> {
        let layers = match &self.config {
            Some(path) => Layers::default().file(path)?,
            None => Layers::default(),
        };
        let layers = layers.environment(variables).flag("--device", "inference.device", self.device);
        Ok(layers.flag("--precision", "inference.precision", self.precision))
    }

    /// The model of a command that only scores, `dir` if the command line names one. Of the variables only those of a model
    /// count: what ails the stream's does not concern such a command.
    ///
    /// # Errors
    /// As [`ModelConfig::load`].
    pub(crate) fn model(self, dir: Option<String>) -> Result<ModelConfig> {
        let ours = ["UNDERTONE_INFERENCE__", "UNDERTONE_MODEL__"];
        let variables = environment()?.filter(|(name, _)| ours.iter().any(|prefix| name.starts_with(prefix)));
        ModelConfig::load(self.layers(variables)?.flag("--model", "model.dir", dir))
    }
}

impl RunArgs {
    /// Lays file, environment and these flags over each other and validates the result.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn config(self) -> Result<Config> {
        let layers = self.compute.layers(environment()?)?;
        let layers = layers
            .flag("--roles", "run.roles", self.roles)
            .flag("--input", "source.input", self.input)
            .flag("--once", "run.once", self.once.then_some(true))
            .flag("--data", "data.dir", self.data)
            .flag("--http", "gateway.http", self.http)
            .flag("--grpc", "gateway.grpc", self.grpc)
            .flag("--model", "model.dir", self.model);
        Config::load(layers)
    }
}

#[derive(Args, Debug)]
pub(crate) struct AcceptGapArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "UNDERTONE_CONFIG")]
    config: Option<PathBuf>,
    /// Folder of an embedded catalog [default: data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Only what is missing for this: score, a table like silver.posts, or a store like qdrant [default: everything]
    #[arg(long, value_name = "SINK")]
    pub(crate) sink: Option<String>,
    /// Only this partition [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<i32>,
    /// Accept the loss: write it down as dead letters, and move the positions past it
    #[arg(long)]
    pub(crate) yes: bool,
}

impl AcceptGapArgs {
    /// The configuration as the other commands read it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn config(&self) -> Result<Config> {
        let compute = ComputeArgs { config: self.config.clone(), ..ComputeArgs::default() };
        Config::load(compute.layers(environment()?)?.flag("--data", "data.dir", self.data.clone()))
    }
}

/// Where a command reads texts from, and where it writes what it makes of them.
#[derive(Args, Debug)]
pub(crate) struct FileArgs {
    /// File to read; left out, or "-": standard input. The format is known by the name: .jsonl, .csv, .tsv, .parquet,
    /// .txt, also .gz and .zst
    #[arg(long, short, value_name = "FILE")]
    pub(crate) input: Option<String>,
    /// File to write; left out, or "-": standard output. It appears when it is complete
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<String>,
    /// Format of the input, if its name does not say
    #[arg(long, value_enum)]
    pub(crate) format: Option<InputFormat>,
    /// Column or field that holds the text
    #[arg(long, value_name = "FIELD", default_value = "text")]
    pub(crate) text_field: String,
}

#[derive(Args, Debug)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Column or field that holds the id [default: id, where there is one]
    #[arg(long, value_name = "FIELD")]
    pub(crate) id_field: Option<String>,
    /// The first row of a CSV or TSV is data; its columns are called 1, 2, …
    #[arg(long)]
    pub(crate) no_header: bool,
    /// Heads to answer [default: all]
    #[arg(long, value_delimiter = ',', value_name = "HEAD,…")]
    pub(crate) heads: Vec<String>,
    /// Also write the embedding
    #[arg(long)]
    pub(crate) embed: bool,
    /// Model folder [default: models/sentiment]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Args, Debug)]
pub(crate) struct NormalizeArgs {
    /// Normaliser, as the `normalizer` of a model's undertone.json names it
    #[arg(long, value_name = "NAME", default_value = "social-1")]
    pub(crate) normalizer: String,
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum InputFormat {
    Jsonl,
    Csv,
    Tsv,
    Parquet,
    /// One text a line
    Lines,
}

#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    /// Posts a second, in real time; left out: as fast as possible, with times 50 ms apart
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// How many posts; left out: for ever
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// The same seed and start give the same bytes
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Time of the first post, RFC 3339 [default: now]
    #[arg(long)]
    pub(crate) start: Option<String>,
    /// File to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Model folder [default: models/sentiment]
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<String>,
    /// File with texts (as `score` reads them) [default: synthetic posts]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Seconds that bulk is measured for; other phases take half of it to one and a half times as long
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Worker threads [default: one a core]
    #[arg(long, default_value_t = 0)]
    pub(crate) workers: usize,
    /// What to measure, in this order
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PHASE,…", default_value = "single,bulk,mixed")]
    pub(crate) phases: Vec<BenchPhase>,
    /// Interactive texts that arrive in a second, at random times fixed beforehand
    #[arg(long, value_name = "R", default_value_t = 20.0)]
    pub(crate) rate: f64,
    /// Bulk texts that arrive in a second beside interactive ones [default: as many as go through]
    #[arg(long, value_name = "R")]
    pub(crate) bulk_rate: Option<f64>,
    /// Score the texts each time that standard input says "go", and measure nothing else: for benches/peers
    #[arg(long, requires = "input", conflicts_with_all = ["json", "plot"])]
    pub(crate) rounds: bool,
    /// Picture to write: .svg, or .html
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// Print JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchPhase {
    /// One text at a time
    Single,
    /// As many bulk texts as keep every worker busy
    Bulk,
    /// Interactive texts at a rate, alone
    Interactive,
    /// Interactive texts at a rate, and bulk texts beside them
    Mixed,
}

#[derive(Args, Debug)]
pub(crate) struct ModelArgs {
    #[command(subcommand)]
    pub(crate) command: ModelCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// The model folders in a folder, one line each: name, revision, arithmetic, heads
    List {
        /// Folder that holds model folders [default: the one that holds the shipped model]
        dir: Option<PathBuf>,
        #[command(flatten)]
        compute: ComputeArgs,
    },
    /// Runs the texts of the folder's reference.json and says how far the results are from Python's in fp32; status 1 if
    /// too far
    Verify {
        /// Model folder
        dir: PathBuf,
        #[command(flatten)]
        compute: ComputeArgs,
    },
    /// Name, revision, heads and labels of a model folder
    Show {
        /// Model folder [default: models/sentiment]
        dir: Option<String>,
        #[command(flatten)]
        compute: ComputeArgs,
    },
}

/// A store of the latest of every post, by its name.
fn store(text: &str) -> std::result::Result<Role, String> {
    let role = Role::parse(text).filter(|role| role.is_latest());
    role.ok_or_else(|| "write qdrant, opensearch or clickhouse".to_owned())
}

#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print a new key, which is kept nowhere, and on standard error the lines for the configuration, which hold its hash
    New {
        /// What logs call its holder: small letters, digits, '-' and '_'
        #[arg(default_value = "caller")]
        name: String,
    },
}

/// Our own variables. Others may hold what they like, even what is not UTF-8.
fn environment() -> Result<impl Iterator<Item = (String, String)>> {
    let mut ours = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("UNDERTONE_")) else { continue };
        let value = value.into_string().map_err(|value| {
            let error = Error::new(ErrorKind::InvalidConfig, "environment variable is not UTF-8").with("name", name);
            error.with("value", value.display())
        })?;
        ours.push((name.to_owned(), value));
    }
    Ok(ours.into_iter())
}

/// Prints an error as a person reads it: what failed, what was looked at, and what mends it.
#[allow(clippy::print_stderr, reason = "the command line's own voice")]
pub(crate) fn print_error(error: &Error) {
    eprintln!("undertone: {error}");
}
