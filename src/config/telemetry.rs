//! The section `[telemetry]`, validated.

use undertone_error::Result;
use undertone_trace::Config;

use super::catalog::Reader;
use super::layers::Origins;
use super::raw::Telemetry;
use super::wrong;

/// Where spans go, if anything is to be traced.
///
/// # Errors
/// [`undertone_error::ErrorKind::InvalidConfig`], naming the key.
pub(super) fn settings(raw: Telemetry, origins: &Origins) -> Result<Option<Config>> {
    if !(0.0..=1.0).contains(&raw.sample) {
        return Err(wrong(origins, "telemetry.sample", &raw.sample, "a part of the calls, from 0 to 1"));
    }
    let Some(otlp) = raw.otlp else { return Ok(None) };
    let read = Reader { origins, variables: &|_| None };
    let otlp = read.uri("telemetry.otlp", &otlp, "write a collector's gRPC address, like http://127.0.0.1:4317")?;
    Ok(Some(Config { otlp, sample: raw.sample }))
}

#[cfg(test)]
mod tests {
    use super::super::Layers;
    use super::super::raw::RawConfig;
    use super::*;

    fn read(toml: &str) -> Result<Option<Config>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("u.toml");
        std::fs::write(&path, toml).expect("written");
        let (raw, origins): (RawConfig, _) = Layers::default().file(&path)?.read()?;
        settings(raw.telemetry, &origins)
    }

    #[test]
    fn nothing_is_traced_unless_a_collector_is_named() {
        let collector = |sample| Some(Config { otlp: "http://c:4317".to_owned(), sample });
        for (toml, wanted) in [
            ("", None),
            ("[telemetry]\nsample = 0.5", None),
            ("[telemetry]\notlp = 'http://c:4317'", collector(1.0)),
            ("[telemetry]\notlp = 'http://c:4317/'\nsample = 0.25", collector(0.25)),
        ] {
            assert_eq!(read(toml).expect(toml), wanted, "{toml}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password_is_shown() {
        for (body, key) in [
            ("sample = 1.5", "telemetry.sample"),
            ("sample = -0.1", "telemetry.sample"),
            ("sample = nan", "telemetry.sample"),
            ("otlp = 'c:4317'", "telemetry.otlp"),
            ("otlp = 'http://ann:hunter2@c:4317'", "telemetry.otlp"),
            ("headers = 'x'", "telemetry.headers"),
        ] {
            let error = read(&format!("[telemetry]\n{body}\n")).expect_err(body).to_string();
            assert!(error.contains(key) && !error.contains("hunter2"), "{error}");
        }
    }
}
