//! The HTTP client of catalogs and object stores.
//!
//! TLS trusts what the system trusts, and besides it the authorities that the configuration names. No request waits for
//! ever: a server that holds a connection and says nothing is an outside fault like one that is not there.

use std::path::Path;
use std::time::Duration;

use reqwest::{Certificate, Client, ClientBuilder};
use undertone_error::{Context, Error, ErrorKind, Result};

/// How long a connection may take to come to be.
const CONNECT: Duration = Duration::from_secs(10);

/// A client that also trusts the authorities in `ca`, a file of PEM certificates named by the configuration's `key`.
/// `limit` sets how long a request may take.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] with the path if the file cannot be read or holds no certificate.
pub(super) fn client(
    ca: Option<&Path>,
    key: &'static str,
    limit: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> Result<Client> {
    let mut builder = limit(Client::builder().connect_timeout(CONNECT));
    if let Some(path) = ca {
        for certificate in authorities(path).map_err(|error| error.with("key", key).with("path", path.display()))? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().context(ErrorKind::InvalidConfig, "cannot set up TLS")
}

fn authorities(path: &Path) -> Result<Vec<Certificate>> {
    let help = "name a file with the authority's certificate in PEM, -----BEGIN CERTIFICATE-----";
    let unread = |e| Error::new(ErrorKind::InvalidConfig, "cannot read the authority's certificate").source(e);
    let pem = std::fs::read(path).map_err(|e| unread(e).help(help))?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::new(ErrorKind::InvalidConfig, "file holds no certificate").help(help)),
        Err(e) => Err(Error::new(ErrorKind::InvalidConfig, "file is no certificate").source(e).help(help)),
    }
}

/// What an error and its causes say, each once: the outermost of an HTTP client says only that a request failed.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// Whether a failure is about certificates, which no wait mends.
pub(super) fn is_untrusted(causes: &str) -> bool {
    causes.contains("certificate") || causes.contains("UnknownIssuer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_named_with_its_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "no certificate here\n").expect("written");
        for path in [empty, folder.path().join("absent.pem")] {
            let error = client(Some(&path), "catalog.ca", |builder| builder).expect_err("no certificate");
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(text.contains("catalog.ca") && text.contains(&path.display().to_string()), "{text}");
        }
        assert!(client(None, "catalog.ca", |builder| builder).is_ok());
    }

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("connection refused");
        let outer = std::io::Error::other(Error::new(ErrorKind::Unavailable, "no answer").source(inner));
        assert_eq!(causes(&outer), "no answer: connection refused");
    }
}
