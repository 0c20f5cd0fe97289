//! The section `[gateway]`, validated: where it listens, who may call, and what it accepts.
//!
//! The guarantee: the gateway never listens where others reach it while everybody may call, or in the clear, unless the
//! configuration says that this is meant.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use undertone_error::{Error, ErrorKind, Result};
use undertone_gateway::{Cors, Key, Keys, Limits, Rate, SigningSecret, Tls, TlsFiles};

use super::catalog::Reader;
use super::layers::Origins;
use super::raw::{self, GatewayKey};
use super::{address, wrong};

/// What serving needs to know.
#[derive(Clone, Debug)]
pub(crate) struct GatewayConfig {
    /// Where REST and the page listen.
    pub(crate) http: SocketAddr,
    /// Where gRPC listens.
    pub(crate) grpc: SocketAddr,
    /// What callers may ask for.
    pub(crate) limits: Limits,
    /// Who may call.
    pub(crate) keys: Keys,
    /// Whose pages may read answers.
    pub(crate) cors: Cors,
    /// Certificates, for a process that serves.
    pub(crate) tls: Option<Tls>,
    /// What senders of posts must sign with.
    pub(crate) signing: Option<SigningSecret>,
}

/// Whoever does not serve needs none of the files, and may name any address.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`], naming the key of the configuration and never what might be a key of the gateway.
pub(super) fn settings(raw: raw::Gateway, serves: bool, origins: &Origins) -> Result<GatewayConfig> {
    let http = address("gateway.http", &raw.http, origins)?;
    let grpc = address("gateway.grpc", &raw.grpc, origins)?;
    let limits = limits(&raw, origins)?;
    let keys: Keys = raw.keys.iter().map(|(name, key)| read_key(name, key, origins)).collect::<Result<_>>()?;
    let mut cors = Cors::default();
    for origin in &raw.cors_origins {
        if !cors.add(origin) {
            let help = "write origins as browsers do, like https://page.example, each by name";
            return Err(wrong(origins, "gateway.cors_origins", origin, help));
        }
    }
    let files = raw.tls.map(|tls| TlsFiles {
        cert: PathBuf::from(tls.cert),
        key: PathBuf::from(tls.key),
        client_ca: tls.client_ca.map(PathBuf::from),
    });
    let (mut tls, mut signing) = (None, None);
    if serves {
        signing = secret(raw.posts, origins)?;
        tls = files.map(|files| Tls::load(&files)).transpose()?;
        let has =
            Protection { callers: !keys.is_empty() || tls.as_ref().is_some_and(Tls::asks_clients), tls: tls.is_some() };
        for (key, address) in [("gateway.http", http), ("gateway.grpc", grpc)] {
            if let Some(missing) = missing(address, has).filter(|_| !raw.insecure_public) {
                let error = Error::new(ErrorKind::InvalidConfig, "gateway would be open to others");
                let error = error.with("key", key).with("value", address).with("from", origins.of(key));
                return Err(error.with("missing", missing).help(OPEN_HELP));
            }
        }
    }
    Ok(GatewayConfig { http, grpc, limits, keys, cors, tls, signing })
}

const OPEN_HELP: &str = "set [gateway.keys] (`undertone key new` makes one) and [gateway.tls], listen on 127.0.0.1, or, \
                         where something else protects it, set gateway.insecure_public = true";

/// What stands between the gateway and whoever reaches its address.
#[derive(Clone, Copy, Debug)]
struct Protection {
    /// Keys, or client certificates.
    callers: bool,
    tls: bool,
}

/// What an address lacks that others can reach.
fn missing(address: SocketAddr, has: Protection) -> Option<&'static str> {
    if address.ip().to_canonical().is_loopback() {
        return None;
    }
    match (has.callers, has.tls) {
        (true, true) => None,
        (false, true) => Some("keys, or client certificates"),
        (true, false) => Some("TLS"),
        (false, false) => Some("keys, and TLS"),
    }
}

fn limits(raw: &raw::Gateway, origins: &Origins) -> Result<Limits> {
    let whole = [
        ("max_texts", raw.max_texts, 1),
        ("max_text_bytes", raw.max_text_bytes, 1),
        ("max_body_bytes", raw.max_body_bytes, 1024),
        ("max_head_bytes", raw.max_head_bytes, 8192),
        ("max_connections", raw.max_connections, 1),
    ];
    for (key, value, least) in whole {
        if value < least {
            return Err(wrong(origins, &format!("gateway.{key}"), &value, &format!("at least {least}")));
        }
    }
    let time = |key: &str, value: SignedDuration| {
        let time = Duration::try_from(value).ok().filter(|time| *time >= Duration::from_millis(100));
        time.ok_or_else(|| wrong(origins, &format!("gateway.{key}"), &value, "a duration of at least 100ms, like 30s"))
    };
    Ok(Limits {
        texts: raw.max_texts,
        text_bytes: raw.max_text_bytes,
        body_bytes: raw.max_body_bytes,
        head_bytes: raw.max_head_bytes,
        connections: raw.max_connections,
        head_timeout: time("head_timeout", raw.head_timeout)?,
        body_timeout: time("body_timeout", raw.body_timeout)?,
        stall: time("stall_timeout", raw.stall_timeout)?,
        ..Limits::default()
    })
}

fn read_key(name: &str, raw: &GatewayKey, origins: &Origins) -> Result<Key> {
    let fail = |part: &str, value: &dyn std::fmt::Display, help: &str| {
        wrong(origins, &format!("gateway.keys.{name}.{part}"), value, help)
    };
    let Some(sha256) = hash(&raw.sha256) else {
        // What stands there may be the key itself.
        let help = "write the 64 hexadecimal digits that `undertone key new` prints, not the key itself";
        return Err(fail("sha256", &"(not shown)", help));
    };
    let sensible = |number: f64| (0.001..=1e9).contains(&number);
    if let Some(rate) = raw.rate.filter(|rate| !sensible(*rate)) {
        return Err(fail("rate", &rate, "texts a second, from 0.001 to 1e9; left out, no limit"));
    }
    let rate = match (raw.rate, raw.burst) {
        (None, None) => None,
        (None, Some(burst)) => return Err(fail("burst", &burst, "a burst needs a rate: set both, or neither")),
        (Some(per_second), burst) => {
            let burst = burst.unwrap_or(per_second * 10.0).max(1.0);
            if !sensible(burst) {
                return Err(fail("burst", &burst, "texts, from 1 to 1e9; left out, those of ten seconds"));
            }
            Some(Rate { per_second, burst })
        }
    };
    Ok(Key::new(name, sha256, rate))
}

/// What senders of posts sign with, from where it is said to be.
fn secret(raw: raw::GatewayPosts, origins: &Origins) -> Result<Option<SigningSecret>> {
    let variables = |name: &str| std::env::var(name).ok();
    let read = Reader { origins, variables: &variables };
    let [env, file] = ["gateway.posts.secret_env", "gateway.posts.secret_file"];
    read.never_here("gateway.posts.secret", raw.secret.is_some(), env)?;
    let (key, place, value) = match (raw.secret_env, raw.secret_file) {
        (None, None) => return Ok(None),
        (Some(_), Some(path)) => return Err(wrong(origins, file, &path, &format!("leave either it or {env} out"))),
        (Some(variable), None) => {
            read.secret(env, &variable)?;
            (env, variable.clone(), variables(&variable).unwrap_or_default())
        }
        (None, Some(path)) => {
            let value = std::fs::read_to_string(&path).map_err(|e| {
                let error = Error::new(ErrorKind::InvalidConfig, "cannot read a secret's file").with("key", file);
                error.with("path", &path).with("from", origins.of(file)).source(e)
            })?;
            (file, path, value)
        }
    };
    let value = value.trim_end_matches(['\r', '\n']);
    if value.len() < 16 {
        let error = Error::new(ErrorKind::InvalidConfig, "signing secret is too short to be one").with("key", key);
        return Err(error
            .with("in", place)
            .help("at least 16 characters of chance, like `openssl rand -hex 32` prints"));
    }
    Ok(Some(SigningSecret::new(value)))
}

fn hash(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Layers;
    use super::*;

    fn read(toml: &str) -> Result<GatewayConfig> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("u.toml");
        std::fs::write(&path, toml).expect("written");
        let (raw, origins): (raw::RawConfig, _) = Layers::default().file(&path)?.read()?;
        settings(raw.gateway, true, &origins)
    }

    #[test]
    fn an_address_that_others_reach_needs_keys_and_tls() {
        let (none, keys) = (Protection { callers: false, tls: false }, Protection { callers: true, tls: false });
        let (tls, both) = (Protection { callers: false, tls: true }, Protection { callers: true, tls: true });
        for (address, has, wanted) in [
            ("127.0.0.1:1", none, None),
            ("127.8.8.8:1", none, None),
            ("[::1]:1", none, None),
            ("[::ffff:127.0.0.1]:1", none, None),
            ("0.0.0.0:1", none, Some("keys, and TLS")),
            ("[::]:1", keys, Some("TLS")),
            ("192.168.1.2:1", tls, Some("keys, or client certificates")),
            ("10.0.0.1:1", both, None),
        ] {
            assert_eq!(missing(address.parse().expect("an address"), has), wanted, "{address}");
        }
    }

    #[test]
    fn a_public_address_is_refused_unless_that_is_meant() {
        let error = read("[gateway]\ngrpc = '0.0.0.0:1'\n").expect_err("open").to_string();
        assert!(error.contains("gateway.grpc") && error.contains("insecure_public"), "{error}");
        assert!(read("[gateway]\ngrpc = '0.0.0.0:1'\ninsecure_public = true\n").is_ok());
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said_without_showing_it() {
        let good = "0".repeat(64);
        assert!(read(&format!("[gateway.keys.ci]\nsha256 = '{good}'\nrate = 5\n")).is_ok());
        for (body, words) in [
            ("sha256 = 'ut_hunter2'".to_owned(), "gateway.keys.ci.sha256"),
            (format!("sha256 = '{}'", "é".repeat(32)), "gateway.keys.ci.sha256"),
            ("key = 'ut_hunter2'".to_owned(), "gateway.keys.ci"),
            (format!("sha256 = '{good}'\nrate = 0"), "gateway.keys.ci.rate"),
            (format!("sha256 = '{good}'\nburst = 3"), "gateway.keys.ci.burst"),
        ] {
            let error = read(&format!("[gateway.keys.ci]\n{body}\n")).expect_err(&body).to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn limits_and_origins_are_checked() {
        for (body, words) in [
            ("max_texts = 0", "gateway.max_texts"),
            ("max_head_bytes = 100", "gateway.max_head_bytes"),
            ("head_timeout = '0s'", "gateway.head_timeout"),
            ("body_timeout = '-1s'", "gateway.body_timeout"),
            ("cors_origins = ['*']", "gateway.cors_origins"),
            ("tls = { cert = '/no/cert.pem', key = '/no/key.pem' }", "/no/cert.pem"),
        ] {
            let error = read(&format!("[gateway]\n{body}\n")).expect_err(body).to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
