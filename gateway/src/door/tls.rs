//! TLS for both doors, and client certificates.
//!
//! TLS 1.2 and 1.3 with ring's ciphers, from PEM files. With an authority for clients, whoever has no certificate of it
//! is refused before a byte of HTTP is read.

use std::{fmt, path::Path, path::PathBuf, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_rustls::TlsAcceptor;
use undertone_error::{Error, ErrorKind, Result};

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its authority (`gateway.tls.cert`).
    pub cert: PathBuf,
    /// Its private key (`gateway.tls.key`).
    pub key: PathBuf,
    /// The authorities whose clients may connect (`gateway.tls.client_ca`); without them any may.
    pub client_ca: Option<PathBuf>,
}

/// Certificates that were read and fit.
#[derive(Clone)]
pub struct Tls {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    asks_clients: bool,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the key of the configuration and the path.
    pub fn load(files: &TlsFiles) -> Result<Self> {
        let chain = certificates("gateway.tls.cert", &files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| {
            let error = wrong("cannot read a private key", "gateway.tls.key", &files.key).source(e);
            error.help("name a PEM file with one private key that this process may read, without a password")
        })?;
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let config = config.map_err(|e| Error::new(ErrorKind::Internal, "cannot set up TLS").source(e))?;
        let config = match &files.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let fail = |e: Box<dyn std::error::Error + Send + Sync>| {
                    let error = wrong("cannot trust a client authority", "gateway.tls.client_ca", path).source(e);
                    error.help("name a PEM file with the certificates of the authorities that sign your clients'")
                };
                let mut roots = RootCertStore::empty();
                for authority in certificates("gateway.tls.client_ca", path)? {
                    roots.add(authority).map_err(|e| fail(e.into()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                config.with_client_cert_verifier(verifier.map_err(|e| fail(e.into()))?)
            }
        };
        let config = config.with_single_cert(chain, key).map_err(|e| {
            let error = wrong("certificate and private key do not fit", "gateway.tls.key", &files.key).source(e);
            error.with("cert", files.cert.display()).help("name the key that the first certificate of the file is for")
        })?;
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Self { http: speaking(b"http/1.1"), grpc: speaking(b"h2"), asks_clients: files.client_ca.is_some() })
    }

    /// Whether clients need a certificate.
    pub fn asks_clients(&self) -> bool {
        self.asks_clients
    }

    pub(crate) fn http(&self) -> TlsAcceptor {
        self.http.clone().into()
    }

    pub(crate) fn grpc(&self) -> TlsAcceptor {
        self.grpc.clone().into()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("asks_clients", &self.asks_clients).finish_non_exhaustive()
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(|found| found.collect::<Result<Vec<_>, _>>());
    let fail = || wrong("cannot read certificates", key, path);
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(fail().help("the file holds no certificate: name one in PEM")),
        Err(error) => Err(fail().source(error).help("name a PEM file that this process may read")),
    }
}

fn wrong(message: &str, key: &'static str, path: &Path) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with("key", key).with("path", path.display())
}
