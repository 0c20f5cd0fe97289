//! Loads a gateway from outside, over HTTP/1.1, and prints what came back as one JSON object.
//!
//! The guarantee: what is reported happened. An open loop's calls are planned before the first is sent, and each latency
//! counts from the planned time; what could not be sent as planned is counted and said, never left out. Every answer is
//! looked at: a text counts as scored if its scores are there.
//!
//! | command | does |
//! |---|---|
//! | `closed` | keeps calls in flight: single texts, JSON bulk or Arrow |
//! | `beside` | the same in the bulk lane, with interactive texts beside it at the times of a Poisson process |
//! | `overload` | single texts at the times of a Poisson process, whatever the server says; then asks until it answers |
//! | `idle` | opens connections, asks once on each, and holds them until standard input ends |

mod calls;
mod closed;
mod http;
mod idle;
mod open;
mod tally;

// The core's own, so that both are measured with the same arrivals and the same percentiles; taken as files, since the crate
// would bring libtorch with it.
#[allow(unreachable_pub, dead_code, reason = "public where it comes from")]
#[path = "../../../inference/src/bench/latency.rs"]
mod latency;
#[allow(unreachable_pub, reason = "public where it comes from")]
#[path = "../../../inference/src/bench/schedule.rs"]
mod schedule;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};
use undertone_error::{Context, Error, ErrorKind, Result};

use self::calls::{Calls, Shape};
use self::http::Target;

/// Interactive arrivals: the same in every run.
const SEED: u64 = 1;

/// Loads an Undertone gateway and prints what came back as JSON
#[derive(Parser)]
struct Cli {
    /// Where it listens
    #[arg(long, value_name = "ADDR")]
    server: SocketAddr,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keep calls in flight
    Closed {
        #[command(flatten)]
        bulk: Bulk,
    },
    /// Keep bulk calls in flight, and send interactive texts at a rate
    Beside {
        #[command(flatten)]
        bulk: Bulk,
        /// Interactive texts a second
        #[arg(long, default_value_t = 20.0)]
        rate: f64,
        /// Connections for them
        #[arg(long, default_value_t = 64)]
        connections: usize,
    },
    /// Send single texts at a rate that is too high
    Overload {
        #[command(flatten)]
        texts: Texts,
        /// Texts a second
        #[arg(long)]
        rate: f64,
        /// Seconds of it
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
        /// Connections for them: no more calls than these can be under way
        #[arg(long, default_value_t = 512)]
        connections: usize,
        /// Each call's deadline in milliseconds; left out, the server's own
        #[arg(long)]
        timeout_ms: Option<u64>,
    },
    /// Hold idle connections until standard input ends
    Idle {
        /// How many
        #[arg(long, default_value_t = 5000)]
        connections: usize,
    },
}

#[derive(Args)]
struct Texts {
    /// File of JSON lines with a field `text`, as `undertone generate` prints them
    #[arg(long, value_name = "FILE")]
    texts: PathBuf,
}

#[derive(Args)]
struct Bulk {
    #[command(flatten)]
    texts: Texts,
    /// What a call looks like
    #[arg(long, value_enum, default_value = "json")]
    shape: Shape,
    /// Texts in a call of many
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Calls in flight
    #[arg(long, default_value_t = 4)]
    in_flight: usize,
    /// Seconds in which calls are begun
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds of the same before, which are not counted
    #[arg(long, default_value_t = 1.0)]
    warm: f64,
}

impl Bulk {
    fn plan(&self) -> Result<closed::Plan> {
        let texts = calls::read(&self.texts.texts)?;
        let (size, in_flight) = (self.size, self.in_flight);
        if in_flight == 0 || size == 0 {
            return Err(Error::new(ErrorKind::InvalidConfig, "--size and --in-flight must be at least 1"));
        }
        let (warm, time) = (seconds("--warm", self.warm)?, seconds("--seconds", self.seconds)?);
        Ok(closed::Plan { calls: Arc::new(Calls::new(self.shape, &texts, size)?), in_flight, warm, time })
    }
}

/// A flag's number of seconds.
fn seconds(flag: &'static str, value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value).ok().filter(|time| time.as_secs() < 86_400).ok_or_else(|| {
        let error = Error::new(ErrorKind::InvalidConfig, "time makes no sense").with("flag", flag).with("value", value);
        error.help("give seconds, at least 0 and less than a day")
    })
}

/// The arrivals of a Poisson process.
fn arrivals(rate: f64, time: Duration) -> Result<Vec<Duration>> {
    let arrivals = schedule::poisson(SEED, rate, time);
    if arrivals.is_empty() {
        let error = Error::new(ErrorKind::InvalidConfig, "nothing would be sent").with("flag", "--rate");
        return Err(error.with("value", rate).help("raise the rate or the time, so that at least one text is sent"));
    }
    Ok(arrivals)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.context(ErrorKind::Exhausted, "cannot start the runtime").and_then(|runtime| {
        let report = runtime.block_on(run(cli))?;
        say(&report)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
    }
}

async fn run(cli: Cli) -> Result<Value> {
    let target = Arc::new(Target::new(cli.server));
    match cli.command {
        Command::Closed { bulk } => value(&closed::run(&target, &bulk.plan()?).await?),
        Command::Beside { bulk, rate, connections } => {
            let plan = bulk.plan()?;
            let texts = calls::read(&bulk.texts.texts)?;
            let singles = Arc::new(Calls::new(Shape::Single, &texts, 1)?);
            closed::warm(&target, &plan).await?;
            // Longer than bulk can last, since its last calls count, too; it is stopped when they are answered.
            let plan_ahead = open::Plan::new(arrivals(rate, plan.time * 4 + Duration::from_secs(600))?, None);
            let stop = plan_ahead.stop.clone();
            let bulk = async {
                let report = closed::measure(&target, &plan).await;
                stop.set();
                report
            };
            let interactive = open::run(&target, &singles, plan_ahead, connections, None);
            let (bulk, interactive) = tokio::join!(bulk, interactive);
            Ok(json!({ "bulk": value(&bulk?)?, "interactive": value(&interactive?)? }))
        }
        Command::Overload { texts, rate, seconds: time, connections, timeout_ms } => {
            let texts = calls::read(&texts.texts)?;
            let singles = Arc::new(Calls::new(Shape::Single, &texts, 1)?);
            let time = seconds("--seconds", time)?;
            let plan = open::Plan::new(arrivals(rate, time)?, Some(time));
            value(&open::run(&target, &singles, plan, connections, timeout_ms).await?)
        }
        Command::Idle { connections } => idle::hold(&target, connections, say).await,
    }
}

fn value(report: &impl Serialize) -> Result<Value> {
    serde_json::to_value(report).context(ErrorKind::Internal, "cannot write the report")
}

#[allow(clippy::print_stdout, reason = "what the command is for")]
fn say(report: &Value) -> Result<()> {
    println!("{report}");
    Ok(())
}

#[allow(clippy::print_stderr, reason = "the end of a command line")]
fn complain(error: &Error) {
    eprintln!("undertone-load: {error}");
}
