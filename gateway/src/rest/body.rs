//! From a request's bytes to a valid [`ScoreRequest`], or to a problem that says where it is wrong.
//!
//! Whatever arrives, no more than the limit is held in memory, nothing is waited for longer than the limit, and no part
//! of a text finds its way into a problem.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{
        DefaultBodyLimit, FromRequest, Request,
        rejection::{BytesRejection, FailedToBufferBody},
    },
    http::{HeaderMap, Uri, header},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, error::Category};
use tokio::time::{Instant, timeout_at};
use undertone_inference::{Lane, ModelInfo};
use utoipa::IntoParams;

use crate::{
    Limits,
    api::{Object, ScoreItem, ScoreRequest, Selection},
    errors::ProblemCode,
    problem::Problem,
    scoring::{asked_lane, select, too_long},
};

/// The caller's wish for a deadline, in milliseconds.
pub(super) const TIMEOUT_HEADER: &str = "x-timeout-ms";

/// The lane that the caller wants.
const LANE_HEADER: &str = "x-lane";

/// What a valid body asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) ids: Vec<Option<Value>>,
    pub(super) texts: Vec<String>,
    /// One text, whose problem is the problem of the call.
    pub(super) single: bool,
    pub(super) heads: Vec<String>,
    pub(super) embedding: bool,
}

/// Reads a body of JSON within the limits of size and time.
pub(super) async fn read(request: Request, limits: &Limits, deadline: Instant) -> Result<Bytes, Problem> {
    check_type(request.headers())?;
    read_any(request, limits, deadline).await
}

/// Reads the body, whatever its type is, within the limits of size and time.
pub(super) async fn read_any(mut request: Request, limits: &Limits, deadline: Instant) -> Result<Bytes, Problem> {
    check_encoding(request.headers())?;
    let too_large = || {
        let detail = format!("the body is over {} bytes; send fewer texts in a call", limits.body_bytes);
        Problem::new(ProblemCode::BodyTooLarge, detail)
    };
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > limits.body_bytes as u64) {
        return Err(too_large());
    }
    DefaultBodyLimit::max(limits.body_bytes).apply(&mut request);
    let by = deadline.min(Instant::now() + limits.body_timeout);
    match timeout_at(by, Bytes::from_request(request, &())).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)))) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(ProblemCode::Cancelled, "the body ended before its time")),
        Err(_) => {
            let detail = "the body did not arrive in time; send it faster, or in smaller calls";
            Err(Problem::new(ProblemCode::BodyTimeout, detail))
        }
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let essence = given.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    match essence.as_deref() {
        Some("application/json") => Ok(()),
        Some(essence) if essence.starts_with("application/") && essence.ends_with("+json") => Ok(()),
        Some(_) => {
            let detail = "the content type is not application/json; set the header content-type: application/json";
            Err(Problem::new(ProblemCode::UnsupportedMediaType, detail))
        }
        None => {
            let detail = "there is no content type; set the header content-type: application/json";
            Err(Problem::new(ProblemCode::UnsupportedMediaType, detail))
        }
    }
}

/// The lane that the caller asks for, if it does.
pub(super) fn lane(headers: &HeaderMap) -> Result<Option<Lane>, Problem> {
    asked_lane(headers.get(LANE_HEADER).map(|value| value.to_str().unwrap_or_default()))
}

/// One JSON object a line.
pub(super) const LINES: &str = "application/x-ndjson";

/// Whether the body is of lines.
pub(super) fn is_lines(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(LINES)
}

/// Compressed bodies are refused unread: a small one can unpack to any size.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let encoded = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if !encoded {
        return Ok(());
    }
    let detail = "compressed bodies are not read; send it as it is, without the header content-encoding";
    Err(Problem::new(ProblemCode::UnsupportedEncoding, detail))
}

/// What stands behind the path, or a problem that says what it may be.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri, may_be: &str) -> Result<T, Problem> {
    serde_urlencoded::from_str(uri.query().unwrap_or_default())
        .map_err(|_| Problem::new(ProblemCode::InvalidInput, format!("the query cannot be understood; {may_be}")))
}

/// What is answered of every text, of calls whose body is nothing but texts.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Chosen {
    /// Heads, parted by commas; left out, every head of the model.
    #[param(nullable = false)]
    heads: Option<String>,
    /// Whether to answer the embedding too.
    #[serde(default)]
    embedding: bool,
}

impl Chosen {
    /// What stands behind the path, if the model has it.
    ///
    /// # Errors
    /// `invalid-input` or `unknown-head`.
    pub(super) fn from_query(uri: &Uri, model: &ModelInfo) -> Result<Selection, Problem> {
        let chosen: Self = query(uri, "it may be like ?heads=sentiment,emotion&embedding=true")?;
        let named = chosen.heads.iter().flat_map(|heads| heads.split(',')).map(|head| head.trim().to_owned());
        select(named.collect(), chosen.embedding, model, "/heads")
    }
}

/// The time that the caller asks for, if it does.
pub(super) fn asked_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else { return Ok(None) };
    match value.to_str().ok().and_then(|text| text.trim().parse().ok()) {
        Some(ms) if ms > 0 => Ok(Some(Duration::from_millis(ms))),
        _ => {
            let detail = format!("{TIMEOUT_HEADER} is not a number of milliseconds above 0");
            Err(Problem::new(ProblemCode::InvalidHeader, detail))
        }
    }
}

/// Parses a body.
pub(super) fn parse(body: &[u8]) -> Result<Asked, Problem> {
    decide(from_json(body)?)
}

/// One JSON object, whole.
pub(super) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    from_json_at(body, 1)
}

/// The same, where what is wrong stands in a line that has this number, from 1.
pub(super) fn from_json_at<T: DeserializeOwned>(body: &[u8], first: usize) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let Object(request): Object<T> = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let pointer = pointer(error.path());
        invalid(error.inner(), Some(pointer), first)
    })?;
    json.end().map_err(|error| invalid(&error, None, first))?;
    Ok(request)
}

pub(super) fn decide(request: ScoreRequest) -> Result<Asked, Problem> {
    let heads = request.heads.unwrap_or_default();
    let embedding = request.embedding;
    match (request.text, request.texts, request.items) {
        (Some(text), None, None) => Ok(Asked { ids: vec![None], texts: vec![text], single: true, heads, embedding }),
        (None, Some(texts), None) => Ok(Asked { ids: vec![None; texts.len()], texts, single: false, heads, embedding }),
        (None, None, Some(items)) => {
            for (index, item) in items.iter().enumerate() {
                check_item(item, index)?;
            }
            let (ids, texts) = items.into_iter().map(|item| (item.id, item.text)).unzip();
            Ok(Asked { ids, texts, single: false, heads, embedding })
        }
        (None, None, None) => {
            let detail = "there is nothing to score; send exactly one of text, texts and items";
            Err(Problem::new(ProblemCode::InvalidInput, detail))
        }
        _ => {
            let detail = "more than one of text, texts and items is there; send exactly one";
            Err(Problem::new(ProblemCode::InvalidInput, detail))
        }
    }
}

fn check_item(item: &ScoreItem, index: usize) -> Result<(), Problem> {
    let Some(reason) = unfit_id(item.id.as_ref()) else { return Ok(()) };
    let problem = Problem::new(ProblemCode::InvalidInput, format!("item {index}: {reason}"));
    Err(problem.field(format!("/items/{index}/id"), reason))
}

/// Why an id cannot come back exactly as it was sent, if it cannot: a number that a JSON parser may round or rewrite is no
/// id.
pub(super) fn unfit_id(id: Option<&Value>) -> Option<String> {
    let reason = match id? {
        Value::String(id) => return too_long(id),
        Value::Number(number) if number.is_i64() || number.is_u64() => return None,
        Value::Number(_) => "the id is a number, but not an integer of 64 bits; send it as a string",
        _ => "an id is a string or an integer; send it as a string",
    };
    Some(reason.to_owned())
}

/// A JSON pointer (RFC 6901) to where parsing stopped.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                let shown: String = key.chars().take(64).collect();
                pointer.push_str(&format!("/{}", shown.replace('~', "~0").replace('/', "~1")));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

fn invalid(error: &serde_json::Error, pointer: Option<String>, first: usize) -> Problem {
    let place = format!("line {}, column {}", error.line() + first - 1, error.column());
    match (error.classify(), pointer) {
        (Category::Data, Some(pointer)) => {
            let reason = without_values(&error.to_string());
            Problem::new(ProblemCode::InvalidInput, format!("{reason} ({place})")).field(pointer, reason)
        }
        // JSON knows no such limit, so it is the number that is refused, not the body.
        (Category::Syntax, Some(pointer)) if error.to_string().starts_with("number out of range") => {
            let reason = "a number is out of range; send an integer of 64 bits, or a string";
            Problem::new(ProblemCode::InvalidInput, format!("{reason} ({place})")).field(pointer, reason)
        }
        (Category::Eof, _) => Problem::new(ProblemCode::InvalidJson, format!("the JSON ends too early ({place})")),
        _ => {
            let reason = without_values(&error.to_string());
            Problem::new(ProblemCode::InvalidJson, format!("the body is not JSON: {reason} ({place})"))
        }
    }
}

/// Serde's reason without its place, and without the string that it found: that may be a text.
fn without_values(reason: &str) -> String {
    let reason = reason.rsplit_once(" at line ").map_or(reason, |(reason, _)| reason);
    match (reason.find("string \""), reason.rfind("\", expected ")) {
        (Some(start), Some(end)) if start < end => format!("{}string, {}", &reason[..start], &reason[end + 3..]),
        _ => reason.chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problem(body: &str) -> Problem {
        parse(body.as_bytes()).expect_err(body)
    }

    #[test]
    fn exactly_one_of_the_three_forms_is_taken() {
        for (body, single, texts) in [
            (r#"{"text":"a"}"#, true, 1),
            (r#"{"texts":["a","b"],"heads":null}"#, false, 2),
            (r#"{"items":[{"id":"1","text":"a"},{"id":2,"text":"b"},{"text":"c"}]}"#, false, 3),
            (r#"{"texts":[]}"#, false, 0),
        ] {
            let asked = parse(body.as_bytes()).expect(body);
            assert_eq!((asked.single, asked.texts.len(), asked.ids.len()), (single, texts, texts), "{body}");
        }
        for body in ["{}", r#"{"text":null}"#, r#"{"text":"a","texts":["b"]}"#, r#"{"items":[],"texts":[]}"#] {
            assert_eq!(problem(body).code(), ProblemCode::InvalidInput, "{body}");
        }
    }

    #[test]
    fn bad_json_is_told_from_bad_input_and_both_say_where() {
        use ProblemCode as P;
        for (body, code, detail, pointer) in [
            ("", P::InvalidJson, "ends too early (line 1, column 0)", None),
            ("{\n  \"text\": }", P::InvalidJson, "line 2, column 11", None),
            (r#"{"text":"a"} x"#, P::InvalidJson, "line 1, column 14", None),
            (r#"["hi",null,null,null,false]"#, P::InvalidInput, "expected an object", Some("")),
            (r#"{"items":[["id","text"]]}"#, P::InvalidInput, "expected an object", Some("/items/0")),
            (r#"{"texts":["a",5]}"#, P::InvalidInput, "expected a string", Some("/texts/1")),
            (r#"{"items":[{"text":"a"},{"id":"x"}]}"#, P::InvalidInput, "missing field `text`", Some("/items/1")),
            (r#"{"text":"a","head":[]}"#, P::InvalidInput, "unknown field `head`", Some("/head")),
            (r#"{"text":"a","embedding":"yes"}"#, P::InvalidInput, "expected a boolean", Some("/embedding")),
            (r#"{"items":[{"id":{},"text":"a"}]}"#, P::InvalidInput, "an id is a string", Some("/items/0/id")),
            (r#"{"items":[{"id":1e400,"text":"a"}]}"#, P::InvalidInput, "out of range", Some("/items/0/id")),
        ] {
            let problem = problem(body);
            assert_eq!(problem.code(), code, "{body}");
            assert!(problem.detail.contains(detail), "{body}: {}", problem.detail);
            assert_eq!(problem.errors.first().map(|error| error.pointer.as_str()), pointer, "{body}");
        }
    }

    #[test]
    fn ids_come_back_as_they_were_sent_or_are_refused() {
        let items = |id: &str| format!(r#"{{"items":[{{"text":"a"}},{{"id":{id},"text":"b"}}]}}"#);
        let longest = format!("{:?}", "x".repeat(256));
        for id in ["0", "-9223372036854775808", "18446744073709551615", r#""1.10""#, r#""é""#, &longest] {
            let asked = parse(items(id).as_bytes()).expect(id);
            assert_eq!(asked.ids[1].as_ref().expect("an id").to_string(), id);
        }
        let too_long = format!("{:?}", "x".repeat(257));
        for (id, mend) in [
            ("1.10", "send it as a string"),
            ("1.0", "send it as a string"),
            ("1e3", "send it as a string"),
            ("-0", "send it as a string"),
            ("18446744073709551616", "send it as a string"),
            ("-9223372036854775809", "send it as a string"),
            ("true", "send it as a string"),
            ("[1]", "send it as a string"),
            (&too_long, "send a shorter one"),
        ] {
            let problem = problem(&items(id));
            assert_eq!((problem.status, problem.code()), (422, ProblemCode::InvalidInput), "{id}");
            assert_eq!(problem.errors[0].pointer, "/items/1/id");
            assert!(problem.detail.contains("item 1: ") && problem.detail.ends_with(mend), "{id}: {}", problem.detail);
        }
    }

    #[test]
    fn problems_never_repeat_a_text() {
        for body in [r#"{"texts":"a very private text"}"#, r#"{"text":"x","heads":"a very private \", expected text"}"#]
        {
            let said = serde_json::to_string(&problem(body)).expect("serialises");
            assert!(!said.contains("private"), "{said}");
        }
    }

    #[test]
    fn content_types_and_timeouts_are_read_as_their_standards_say() {
        let headers = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(header::HeaderName::from_static(name), value.parse().expect("a header value"))])
        };
        for (value, good) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.x+json", true),
            ("text/plain", false),
            ("application/jsonl", false),
            ("", false),
        ] {
            assert_eq!(check_type(&headers("content-type", value)).is_ok(), good, "{value}");
        }
        for (value, wanted) in [("250", Some(250)), ("0", None), ("-1", None), ("1s", None), ("", None)] {
            let asked = asked_timeout(&headers(TIMEOUT_HEADER, value)).ok().flatten();
            assert_eq!(asked, wanted.map(Duration::from_millis), "{value}");
        }
        assert_eq!(asked_timeout(&HeaderMap::new()).expect("no wish"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body: Vec<u8>) {
            let _ = parse(&body);
        }

        #[test]
        fn any_text_arrives_as_it_was_sent(text: String) {
            let body = serde_json::json!({ "text": text }).to_string();
            prop_assert_eq!(&parse(body.as_bytes()).expect("a good body").texts[0], &text);
        }
    }
}
