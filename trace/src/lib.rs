//! Spans of calls and posts, and their way to an OTLP collector.
//!
//! The guarantee: nothing is answered otherwise, or later, for being traced. What has ended waits in a queue of a fixed
//! size; what finds it full, or cannot be delivered, is thrown away and counted. Until [`start`] every function here answers
//! that there is no trace, after one look at a flag. A span's facts are words of the code, numbers and times: there is no
//! function that puts a text into one.
//!
//! Who has a trace of their own (`traceparent`, as the W3C writes it) decides whether it is sampled; for all others
//! [`Config::sample`] does.

mod delivery;

use std::borrow::Cow;
use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{FutureExt, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, SpanExporter as Exporter};
use undertone_error::{Error, ErrorKind, Result};

pub use delivery::{Delivery, SPANS, describe};

/// The header that says which span a call or a record belongs to.
pub const TRACEPARENT: &str = "traceparent";
/// What vendors add to it.
const TRACESTATE: &str = "tracestate";

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Where spans go, and whose.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The collector's gRPC address, `http://` or `https://`.
    pub otlp: String,
    /// Which part of what has no trace of its own is sampled, from 0 to 1.
    pub sample: f64,
}

/// Begins to trace, for the whole process. The collector need not be there. `OTEL_SERVICE_NAME`,
/// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_EXPORTER_OTLP_HEADERS` mean what they mean elsewhere.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] for an address that is none; [`ErrorKind::Internal`] the second time.
pub fn start(config: &Config, version: &'static str) -> Result<Delivery> {
    let mut exporter = SpanExporter::builder().with_tonic().with_endpoint(&config.otlp);
    if config.otlp.starts_with("https://") {
        exporter = exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots());
    }
    let exporter = exporter.build().map_err(|e| {
        let error = Error::new(ErrorKind::InvalidConfig, "spans cannot be sent there").with("otlp", &config.otlp);
        error.source(e).help("write the gRPC address of a collector, like http://127.0.0.1:4317")
    })?;
    let (tracer, delivery) = tracing_to(exporter, config.sample, version);
    let twice = |_| Error::new(ErrorKind::Internal, "this process is traced already");
    TRACER.set(tracer).map_err(twice)?;
    Ok(delivery)
}

fn tracing_to(mut exporter: impl Exporter + 'static, sample: f64, version: &'static str) -> (SdkTracer, Delivery) {
    let name = std::env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty());
    let resource = Resource::builder()
        .with_service_name(name.unwrap_or_else(|| "undertone".to_owned()))
        .with_attribute(KeyValue::new("service.version", version))
        .build();
    exporter.set_resource(&resource);
    let (queue, delivery) = delivery::begin(exporter);
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample))))
        .with_resource(resource)
        .with_span_processor(queue)
        .build();
    (provider.tracer("undertone"), delivery)
}

/// Whether anything is traced in this process.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// Something that is sampled and under way. It ends when its last clone is dropped.
#[derive(Clone, Debug)]
pub struct Span(Context);

impl Span {
    /// Notes a number.
    pub fn count(&self, key: &'static str, value: i64) {
        self.0.span().set_attribute(KeyValue::new(key, value));
    }

    /// Notes a word.
    pub fn word(&self, key: &'static str, value: &'static str) {
        self.0.span().set_attribute(KeyValue::new(key, value));
    }

    /// Notes how long something took, in milliseconds.
    pub fn milliseconds(&self, key: &'static str, time: Duration) {
        self.0.span().set_attribute(KeyValue::new(key, time.as_secs_f64() * 1e3));
    }

    /// Notes that it failed, and not because of whoever asked for it.
    pub fn failed(&self) {
        self.0.span().set_status(Status::error(""));
    }

    /// The id of its trace, for logs.
    pub fn trace_id(&self) -> String {
        self.0.span().span_context().trace_id().to_string()
    }
}

/// A call, which goes on with the trace that its headers name.
pub fn call<'h>(name: impl FnOnce() -> Cow<'static, str>, header: impl Fn(&str) -> Option<&'h str>) -> Option<Span> {
    let tracer = TRACER.get()?;
    open(tracer, name(), SpanKind::Server, SystemTime::now(), &parent(header))
}

/// A part of the work that [`within`] a span is under way here.
pub fn part(name: &'static str) -> Option<Span> {
    let tracer = TRACER.get()?;
    let context = Context::current();
    let sampled = context.span().span_context().is_sampled();
    sampled.then(|| open(tracer, name.into(), SpanKind::Internal, SystemTime::now(), &context)).flatten()
}

/// What has been done since `began` with a record whose headers name a sampled trace.
pub fn record<'h>(name: &'static str, began: SystemTime, header: impl Fn(&str) -> Option<&'h str>) -> Option<Span> {
    let tracer = TRACER.get()?;
    record_of(tracer, name, began, header)
}

fn record_of<'h>(
    tracer: &SdkTracer,
    name: &'static str,
    began: SystemTime,
    header: impl Fn(&str) -> Option<&'h str>,
) -> Option<Span> {
    let parent = parent(header);
    // What has no trace begins none.
    let sampled = parent.span().span_context().is_sampled();
    sampled.then(|| open(tracer, name.into(), SpanKind::Consumer, began, &parent)).flatten()
}

fn open(
    tracer: &SdkTracer,
    name: Cow<'static, str>,
    kind: SpanKind,
    began: SystemTime,
    parent: &Context,
) -> Option<Span> {
    let span = tracer.span_builder(name).with_kind(kind).with_start_time(began).start_with_context(tracer, parent);
    let context = parent.with_span(span);
    context.span().is_recording().then_some(Span(context))
}

/// Does some work as a part of a span, if there is one.
pub async fn within<F: Future>(span: Option<&Span>, work: F) -> F::Output {
    match span {
        Some(Span(context)) => work.with_context(context.clone()).await,
        None => work.await,
    }
}

/// The headers of what goes on with the work that is under way here; none if that is not sampled.
pub fn headers() -> Vec<(String, String)> {
    if !is_on() {
        return Vec::new();
    }
    headers_of(&Context::current())
}

fn headers_of(context: &Context) -> Vec<(String, String)> {
    let mut headers = Set::default();
    if context.span().span_context().is_sampled() {
        TraceContextPropagator::new().inject_context(context, &mut headers);
    }
    headers.0
}

fn parent<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Context {
    let headers = Get { traceparent: header(TRACEPARENT), tracestate: header(TRACESTATE) };
    TraceContextPropagator::new().extract_with_context(&Context::new(), &headers)
}

/// What the propagator asks for.
struct Get<'h> {
    traceparent: Option<&'h str>,
    tracestate: Option<&'h str>,
}

impl Extractor for Get<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => self.traceparent,
            TRACESTATE => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

#[derive(Default)]
struct Set(Vec<(String, String)>);

impl Injector for Set {
    fn set(&mut self, key: &str, value: String) {
        // An empty state of the trace says nothing.
        if !value.is_empty() {
            self.0.push((key.to_owned(), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::delivery::tests::Kept;
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    fn of<'h>(traceparent: &'h str) -> impl Fn(&str) -> Option<&'h str> {
        move |name| (name == TRACEPARENT && !traceparent.is_empty()).then_some(traceparent)
    }

    #[tokio::test]
    async fn callers_with_a_trace_decide_and_the_ratio_decides_for_the_others() {
        for (traceparent, sample, call, record) in [
            (SAMPLED, 0.0, true, true),
            (SAMPLED, 1.0, true, true),
            (UNSAMPLED, 1.0, false, false),
            ("", 0.0, false, false),
            ("", 1.0, true, false),
            // What is no trace counts as none.
            ("00-0af7", 1.0, true, false),
            ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", 0.0, false, false),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01", 0.0, false, false),
            ("00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01", 0.0, false, false),
            ("0".repeat(100_000).as_str(), 1.0, true, false),
        ] {
            let (tracer, _delivery) = tracing_to(Kept::default(), sample, "0");
            let called = open(&tracer, "c".into(), SpanKind::Server, SystemTime::now(), &parent(of(traceparent)));
            assert_eq!(called.is_some(), call, "call of {traceparent:.60} at {sample}");
            let recorded = record_of(&tracer, "r", SystemTime::now(), of(traceparent));
            assert_eq!(recorded.is_some(), record, "record of {traceparent:.60} at {sample}");
        }
    }

    #[tokio::test]
    async fn a_trace_goes_on_through_headers() {
        let (tracer, _delivery) = tracing_to(Kept::default(), 0.0, "0");
        let span =
            open(&tracer, "c".into(), SpanKind::Server, SystemTime::now(), &parent(of(SAMPLED))).expect("sampled");
        assert_eq!(span.trace_id(), TRACE);
        let headers = within(Some(&span), async { headers_of(&Context::current()) }).await;
        let [(name, value)] = &headers[..] else { panic!("{headers:?}") };
        let own = span.0.span().span_context().span_id().to_string();
        assert_eq!((name.as_str(), value.as_str()), (TRACEPARENT, format!("00-{TRACE}-{own}-01").as_str()));
        assert!(headers_of(&Context::new()).is_empty());
        let next = record_of(&tracer, "r", SystemTime::now(), of(value)).expect("sampled");
        assert_eq!(next.trace_id(), TRACE);
    }

    #[tokio::test]
    async fn what_is_not_traced_costs_and_carries_nothing() {
        assert!(!is_on());
        assert!(call(|| panic!("a name that nobody needs"), of(SAMPLED)).is_none());
        assert!(record("r", SystemTime::now(), of(SAMPLED)).is_none());
        assert!(part("p").is_none());
        assert!(headers().is_empty());
        assert_eq!(within(None, async { 7 }).await, 7);
    }
}
