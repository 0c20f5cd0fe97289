//! TLS for both doors, and client certificates.
//!
//! TLS 1.2 and 1.3 with ring's ciphers, from PEM files. With an authority for clients, whoever has no certificate of it
//! is refused before a byte of HTTP is read.
//!
//! The guarantee: files that were renewed are served without a restart. Connections that are made from then on have them, and those that
//! are open go on with what they have; what cannot be used, half a file or a key of another certificate, changes nothing.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
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

/// Certificates that were read and fit. Clones share them.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    served: Arc<RwLock<Served>>,
    hurry: Arc<Notify>,
}

/// What connections are made with, and what the files were when they were last looked at.
struct Served {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    seen: Seen,
}

/// What was found in the files: the digest of all of them, or why there is none.
type Seen = Result<[u8; 32], String>;

/// What one door makes connections with.
#[derive(Clone)]
pub(crate) struct Acceptor {
    tls: Tls,
    of: fn(&Served) -> &Arc<ServerConfig>,
}

impl Acceptor {
    /// The one for the next connection.
    pub(super) fn now(&self) -> TlsAcceptor {
        (self.of)(&self.tls.read()).clone().into()
    }
}

/// What became of a look at the files.
#[derive(Debug)]
pub(crate) enum Renewal {
    /// They are what they were.
    Same,
    /// Connections are made with them from now on.
    Renewed,
    /// They cannot be used, and what was served is served on.
    Unusable(Error),
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the key of the configuration and the path.
    pub fn load(files: &TlsFiles) -> Result<Self> {
        let contents = Contents::read(files)?;
        let served = contents.served(files)?;
        let (files, served) = (Arc::new(files.clone()), Arc::new(RwLock::new(served)));
        Ok(Self { files, served, hurry: Arc::default() })
    }

    /// Whether clients need a certificate.
    pub fn asks_clients(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Has the files looked at now, by whoever follows them ([`Gateway::follow_certificates`](crate::Gateway::follow_certificates)).
    pub fn look_again(&self) {
        self.hurry.notify_one();
    }

    /// Waits until [`Tls::look_again`] is called, or was.
    pub(crate) async fn told(&self) {
        self.hurry.notified().await;
    }

    pub(crate) fn http(&self) -> Acceptor {
        Acceptor { tls: self.clone(), of: |served| &served.http }
    }

    pub(crate) fn grpc(&self) -> Acceptor {
        Acceptor { tls: self.clone(), of: |served| &served.grpc }
    }

    /// Looks at the files, and serves what is new in them. Reads from disk.
    pub(crate) fn renew(&self) -> Renewal {
        let contents = Contents::read(&self.files);
        let seen = contents.as_ref().map(Contents::digest).map_err(ToString::to_string);
        if seen == self.read().seen {
            return Renewal::Same;
        }
        let served = contents.and_then(|contents| contents.served(&self.files));
        let mut current = self.served.write().unwrap_or_else(PoisonError::into_inner);
        match served {
            Ok(served) => {
                *current = served;
                Renewal::Renewed
            }
            Err(error) => {
                current.seen = seen;
                Renewal::Unusable(error)
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Served> {
        self.served.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("asks_clients", &self.asks_clients()).finish_non_exhaustive()
    }
}

/// The files' bytes.
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self> {
        let of = |key: &'static str, what: &str, path: &Path| {
            std::fs::read(path).map_err(|e| {
                wrong(&format!("cannot read {what}"), key, path)
                    .source(e)
                    .help("name a PEM file that this process may read")
            })
        };
        let client_ca = files.client_ca.as_deref().map(|path| of("gateway.tls.client_ca", "certificates", path));
        Ok(Self {
            cert: of("gateway.tls.cert", "certificates", &files.cert)?,
            key: of("gateway.tls.key", "a private key", &files.key)?,
            client_ca: client_ca.transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&self.cert, &self.key].into_iter().chain(&self.client_ca) {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn served(&self, files: &TlsFiles) -> Result<Served> {
        let chain = certificates("gateway.tls.cert", &files.cert, &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|e| {
            let error = wrong("cannot read a private key", "gateway.tls.key", &files.key).source(e);
            error.help("name a PEM file with one private key that this process may read, without a password")
        })?;
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let config = config.map_err(|e| Error::new(ErrorKind::Internal, "cannot set up TLS").source(e))?;
        let config = match files.client_ca.as_deref().zip(self.client_ca.as_deref()) {
            None => config.with_no_client_auth(),
            Some((path, bytes)) => {
                let fail = |e: Box<dyn std::error::Error + Send + Sync>| {
                    let error = wrong("cannot trust a client authority", "gateway.tls.client_ca", path).source(e);
                    error.help("name a PEM file with the certificates of the authorities that sign your clients'")
                };
                let mut roots = RootCertStore::empty();
                for authority in certificates("gateway.tls.client_ca", path, bytes)? {
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
        // Sessions can be taken up again only under the configuration that they began with, so that a client whose authority was
        // taken out comes in no more.
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Served { http: speaking(b"http/1.1"), grpc: speaking(b"h2"), seen: Ok(self.digest()) })
    }
}

fn certificates(key: &'static str, path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let fail = || wrong("cannot read certificates", key, path);
    match CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(fail().help("the file holds no certificate: name one in PEM")),
        Err(error) => Err(fail().source(error).help("name a PEM file that this process may read")),
    }
}

fn wrong(message: &str, key: &'static str, path: &Path) -> Error {
    Error::new(ErrorKind::InvalidConfig, message).with("key", key).with("path", path.display())
}
