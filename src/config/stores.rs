//! The sections `[qdrant]`, `[opensearch]` and `[clickhouse]`, validated.
//!
//! Secrets come from variables or from files of their own, never from the configuration. They are read here, so that one
//! that is missing is told before anything is started.

use undertone_error::{Error, ErrorKind, Result};
use undertone_sinks::clickhouse::ClickHouseConfig;
use undertone_sinks::iceberg::{Secret, StoreConfig};
use undertone_sinks::opensearch::OpenSearchConfig;
use undertone_sinks::qdrant::QdrantConfig;

use super::catalog::Reader;
use super::layers::{Layers, Origins};
use super::{Role, raw, wrong};

/// The stores that keep the latest of every post.
#[derive(Clone, Debug)]
pub(crate) struct Stores {
    pub(crate) qdrant: Option<QdrantConfig>,
    pub(crate) opensearch: Option<OpenSearchConfig>,
    pub(crate) clickhouse: Option<ClickHouseConfig>,
    /// The share of posts above which a store that rejects them is not believed, 0 to 1.
    pub(crate) max_rejected: f64,
}

/// What the gateway may ask, whatever else this process does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readable {
    pub(crate) qdrant: Option<QdrantConfig>,
    pub(crate) opensearch: Option<OpenSearchConfig>,
    pub(crate) clickhouse: Option<ClickHouseConfig>,
    /// The tables of a catalog that others write too.
    pub(crate) tables: Option<StoreConfig>,
    /// Why others are not among them.
    pub(crate) unread: Vec<Unread>,
}

/// A store that has a section, and cannot be asked.
#[derive(Clone, Debug)]
pub(crate) struct Unread {
    /// The section's name.
    pub(crate) store: &'static str,
    pub(crate) reason: String,
}

impl Readable {
    /// The stores that have an address. Where a secret is missing the process need not fail: it asks no such store.
    pub(super) fn of(
        qdrant: raw::Qdrant,
        opensearch: raw::OpenSearch,
        clickhouse: raw::ClickHouse,
        origins: &Origins,
    ) -> Self {
        let variables = |name: &str| std::env::var(name).ok();
        let read = Reader { origins, variables: &variables };
        let mut readable = Self::default();
        if qdrant.url.is_some() {
            readable.qdrant = readable.add("qdrant", read.qdrant(qdrant));
        }
        if opensearch.url.is_some() {
            readable.opensearch = readable.add("opensearch", read.opensearch(opensearch));
        }
        if clickhouse.url.is_some() {
            readable.clickhouse = readable.add("clickhouse", read.clickhouse(clickhouse));
        }
        readable
    }

    /// What is read from a section, if it can be.
    pub(super) fn add<T>(&mut self, store: &'static str, section: Result<T>) -> Option<T> {
        section.map_err(|error| self.unread.push(Unread { store, reason: error.to_string() })).ok()
    }
}

/// The roles whose stores have an address.
pub(super) fn configured(
    qdrant: &raw::Qdrant,
    opensearch: &raw::OpenSearch,
    clickhouse: &raw::ClickHouse,
) -> Vec<&'static str> {
    let each = [("qdrant", &qdrant.url), ("opensearch", &opensearch.url), ("clickhouse", &clickhouse.url)].into_iter();
    each.filter(|(_, url)| url.is_some()).map(|(role, _)| role).collect()
}

/// The stores of `roles`. Whoever does not play a role needs none of the secrets that writing to its store takes.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`], naming the key, and for a secret where it should be and never its value.
pub(super) fn settings(
    qdrant: raw::Qdrant,
    opensearch: raw::OpenSearch,
    clickhouse: raw::ClickHouse,
    max_rejected: f64,
    roles: &[Role],
    origins: &Origins,
) -> Result<Stores> {
    let variables = |name: &str| std::env::var(name).ok();
    let read = Reader { origins, variables: &variables };
    if !(0.0..=1.0).contains(&max_rejected) {
        return Err(wrong(origins, "sinks.max_rejected", &max_rejected, "a share from 0 to 1; 0.05 is the default"));
    }
    let plays = |role| roles.contains(&role);
    Ok(Stores {
        qdrant: plays(Role::Qdrant).then(|| read.qdrant(qdrant)).transpose()?,
        opensearch: plays(Role::OpenSearch).then(|| read.opensearch(opensearch)).transpose()?,
        clickhouse: plays(Role::ClickHouse).then(|| read.clickhouse(clickhouse)).transpose()?,
        max_rejected,
    })
}

impl Stores {
    /// One store alone, for a command about it. The rest of a file must be of the right form, but is not looked at.
    ///
    /// # Errors
    /// As [`settings`].
    pub(crate) fn only(role: Role, layers: Layers) -> Result<Self> {
        let (raw, origins): (raw::RawConfig, _) = layers.read()?;
        Self::of(raw, &[role], &origins)
    }

    /// The stores of `roles`.
    ///
    /// # Errors
    /// As [`settings`].
    pub(super) fn of(raw: raw::RawConfig, roles: &[Role], origins: &Origins) -> Result<Self> {
        settings(raw.qdrant, raw.opensearch, raw.clickhouse, raw.sinks.max_rejected, roles, origins)
    }

    /// What they are called.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let there = [
            ("qdrant", self.qdrant.is_some()),
            ("opensearch", self.opensearch.is_some()),
            ("clickhouse", self.clickhouse.is_some()),
        ];
        there.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }

    /// The one of this name alone.
    pub(crate) fn only_this(&self, name: &str) -> Self {
        Self {
            qdrant: self.qdrant.clone().filter(|_| name == "qdrant"),
            opensearch: self.opensearch.clone().filter(|_| name == "opensearch"),
            clickhouse: self.clickhouse.clone().filter(|_| name == "clickhouse"),
            max_rejected: self.max_rejected,
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.names().is_empty()
    }
}

/// Where a secret is said to be.
struct Place {
    /// "clickhouse.password"
    key: &'static str,
    variable: Option<String>,
    file: Option<String>,
    /// Used if it is set and nothing else is said.
    usual: &'static str,
}

impl Reader<'_> {
    fn clickhouse(&self, raw: raw::ClickHouse) -> Result<ClickHouseConfig> {
        let url = self.address("clickhouse.url", raw.url)?;
        self.never_here("clickhouse.password", raw.password.is_some(), "clickhouse.password_env")?;
        let url = self.uri("clickhouse.url", &url, "write the HTTP address, like http://clickhouse.example:8123")?;
        for (key, name) in [("clickhouse.database", &raw.database), ("clickhouse.table", &raw.table)] {
            self.name(key, name)?;
        }
        self.days("clickhouse.retention_days", raw.retention_days)?;
        let password = self.placed(Place {
            key: "clickhouse.password",
            variable: raw.password_env,
            file: raw.password_file,
            usual: "CLICKHOUSE_PASSWORD",
        })?;
        let (database, table, user, retention_days) = (raw.database, raw.table, raw.user, raw.retention_days);
        Ok(ClickHouseConfig { url, database, table, user, password, retention_days })
    }

    fn qdrant(&self, raw: raw::Qdrant) -> Result<QdrantConfig> {
        let url = self.address("qdrant.url", raw.url)?;
        self.never_here("qdrant.api_key", raw.api_key.is_some(), "qdrant.api_key_env")?;
        let url = self.uri("qdrant.url", &url, "write the gRPC address, like https://qdrant.example:6334")?;
        self.name("qdrant.collection", &raw.collection)?;
        let quantized = match raw.quantization.as_str() {
            "none" => false,
            "scalar" => true,
            other => return Err(wrong(self.origins, "qdrant.quantization", &other, "write none or scalar")),
        };
        let api_key = self.placed(Place {
            key: "qdrant.api_key",
            variable: raw.api_key_env,
            file: raw.api_key_file,
            usual: "QDRANT_API_KEY",
        })?;
        Ok(QdrantConfig { url, collection: raw.collection, on_disk: raw.on_disk, quantized, api_key })
    }

    fn opensearch(&self, raw: raw::OpenSearch) -> Result<OpenSearchConfig> {
        let url = self.address("opensearch.url", raw.url)?;
        self.never_here("opensearch.password", raw.password.is_some(), "opensearch.password_env")?;
        let url = self.uri("opensearch.url", &url, "write the HTTP address, like https://opensearch.example:9200")?;
        self.name("opensearch.index", &raw.index)?;
        if raw.shards == 0 {
            return Err(wrong(self.origins, "opensearch.shards", &0, "at least 1"));
        }
        self.days("opensearch.retention_days", raw.retention_days)?;
        let password = self.placed(Place {
            key: "opensearch.password",
            variable: raw.password_env,
            file: raw.password_file,
            usual: "OPENSEARCH_PASSWORD",
        });
        let login = match raw.user {
            None => None,
            Some(user) => match password? {
                Some(password) => Some((user, password)),
                None => {
                    let help = "a user needs a password: set OPENSEARCH_PASSWORD, or name opensearch.password_env or \
                                opensearch.password_file";
                    return Err(wrong(self.origins, "opensearch.user", &user, help));
                }
            },
        };
        let raw::OpenSearch { index, shards, replicas, retention_days, .. } = raw;
        Ok(OpenSearchConfig { url, index, shards, replicas, retention_days, login })
    }

    fn days(&self, key: &str, days: Option<u32>) -> Result<()> {
        let help = "days from 1 to 20000; left out, posts are kept for ever";
        let wrong = |days| Err(wrong(self.origins, key, &days, help));
        days.filter(|days| !(1..=20_000).contains(days)).map_or(Ok(()), wrong)
    }

    fn address(&self, key: &str, url: Option<String>) -> Result<String> {
        let help = "the role needs to know where its store is: set it, or leave the role out";
        url.ok_or_else(|| wrong(self.origins, key, &"nothing", help))
    }

    /// A name that every store takes as it is.
    fn name(&self, key: &str, name: &str) -> Result<()> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        if !name.is_empty() && name.len() <= 100 && name.chars().all(allowed) && !name.starts_with(['_', '-']) {
            return Ok(());
        }
        Err(wrong(
            self.origins,
            key,
            &name,
            "small letters, digits, '_' and '-', beginning with neither of the last two",
        ))
    }

    /// The secret, if there is one.
    fn placed(&self, place: Place) -> Result<Option<Secret>> {
        let key = |how: &str| format!("{}_{how}", place.key);
        match (place.variable, place.file) {
            (Some(_), Some(file)) => {
                Err(wrong(self.origins, &key("file"), &file, &format!("leave either it or {} out", key("env"))))
            }
            (Some(variable), None) => self.secret(&key("env"), &variable).map(Some),
            (None, Some(file)) => {
                let fail = |message: &str| {
                    let error = Error::new(ErrorKind::InvalidConfig, message).with("key", key("file"));
                    error.with("path", &file).with("from", self.origins.of(&key("file")))
                };
                let text = std::fs::read_to_string(&file).map_err(|e| fail("cannot read a secret's file").source(e))?;
                let text = text.trim_end_matches(['\r', '\n']);
                if text.is_empty() || !text.chars().all(|c| c.is_ascii_graphic()) {
                    return Err(fail("secret's file holds none").help("put the secret into it, on one line, alone"));
                }
                Ok(Some(Secret::new(file.clone(), text)))
            }
            (None, None) if (self.variables)(place.usual).is_some_and(|value| !value.trim().is_empty()) => {
                self.secret(&key("env"), place.usual).map(Some)
            }
            (None, None) => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str, roles: &[Role]) -> Result<Stores> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("u.toml");
        std::fs::write(&path, toml.replace("FOLDER", &folder.path().display().to_string())).expect("written");
        std::fs::write(folder.path().join("secret"), "hunter2\n").expect("written");
        let (raw, origins): (raw::RawConfig, _) = Layers::default().file(&path)?.read()?;
        Stores::of(raw, roles, &origins)
    }

    const CLICKHOUSE: &[Role] = &[Role::ClickHouse];

    #[test]
    fn a_secret_may_be_a_file_and_whoever_does_not_play_a_role_needs_none() {
        let toml = "[clickhouse]\nurl = 'http://c:8123/'\npassword_file = 'FOLDER/secret'\n\
                    [qdrant]\nurl = 'http://q:6334'\napi_key_env = 'NO_SUCH_VARIABLE'\n";
        let found = read(toml, CLICKHOUSE).expect("valid");
        let clickhouse = found.clickhouse.expect("played");
        assert_eq!((clickhouse.url.as_str(), clickhouse.user.as_str()), ("http://c:8123", "default"));
        assert!(clickhouse.password.is_some() && !format!("{clickhouse:?}").contains("hunter2"));
        assert!(found.qdrant.is_none() && read(toml, &[]).expect("valid").is_empty());
        assert!(read(toml, &[Role::Qdrant]).is_err());
    }

    #[test]
    fn whoever_serves_may_ask_every_store_that_it_has_the_secrets_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("u.toml");
        let toml =
            "[clickhouse]\nurl = 'http://c:8123'\n[qdrant]\nurl = 'http://q:6334'\napi_key_env = 'NO_SUCH_VARIABLE'\n";
        std::fs::write(&path, toml).expect("written");
        let (raw, origins): (raw::RawConfig, _) = Layers::default().file(&path).expect("read").read().expect("valid");
        let readable = Readable::of(raw.qdrant, raw.opensearch, raw.clickhouse, &origins);
        assert!(readable.clickhouse.is_some() && readable.opensearch.is_none() && readable.qdrant.is_none());
        assert_eq!(readable.unread.iter().map(|unread| unread.store).collect::<Vec<_>>(), ["qdrant"]);
        assert!(readable.unread[0].reason.contains("NO_SUCH_VARIABLE"), "{:?}", readable.unread);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_is_repeated() {
        for (more, words) in [
            ("password = 'hunter2'", "clickhouse.password_env"),
            ("password_env = 'hunter2'", "clickhouse.password_env"),
            ("password_env = 'NO_SUCH_VARIABLE'", "NO_SUCH_VARIABLE"),
            ("password_file = '/no/such/file'", "/no/such/file"),
            ("table = 'a`b'", "clickhouse.table"),
            ("retention_days = 0", "clickhouse.retention_days"),
        ] {
            let error = read(&format!("[clickhouse]\nurl = 'http://c:8123'\n{more}\n"), CLICKHOUSE).expect_err(more);
            let error = error.to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
        let error = read("[clickhouse]\nurl = 'http://ann:hunter2@c:8123'\n", CLICKHOUSE).expect_err("a user");
        let error = error.to_string();
        assert!(error.contains("clickhouse.url") && !error.contains("hunter2"), "{error}");
        assert!(read("[sinks]\nmax_rejected = 5\n", &[]).is_err());
        assert!(read("[sinks]\nmax_rejected = 1.0\n", &[]).is_ok());
        let error = read("", CLICKHOUSE).expect_err("no address").to_string();
        assert!(error.contains("clickhouse.url"), "{error}");
    }
}
