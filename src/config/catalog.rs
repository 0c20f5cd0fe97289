//! The sections `[catalog]` and `[storage]`, validated.
//!
//! Secrets come from variables alone, and only the names of these stand in the file. They are read here, so that one
//! that is missing is told before anything is started.

use std::path::{Path, PathBuf};

use undertone_error::{Error, ErrorKind, Result};
use undertone_sinks::iceberg::{
    CatalogConfig, Login, OAuth2, RestConfig, S3Config, Secret, SqliteConfig, StorageConfig, StoreConfig,
};

use super::layers::Origins;
use super::{raw, wrong};

/// A variable of the environment.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Which catalog and which storage the tables are in.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`], naming the key, and for a secret its variable and never its value.
pub(super) fn settings(
    catalog: raw::Catalog,
    storage: raw::Storage,
    data: &Path,
    origins: &Origins,
    variables: Variables<'_>,
) -> Result<StoreConfig> {
    let read = Reader { origins, variables };
    let s3 = storage.s3.map(|s3| read.s3(s3)).transpose()?;
    read.no_user_in_warehouse(catalog.warehouse.as_deref().unwrap_or_default())?;
    match catalog.kind.as_str() {
        "sqlite" => read.sqlite(catalog, s3, data),
        "rest" => read.rest(catalog, s3),
        other => Err(wrong(origins, "catalog.kind", &other, "write sqlite or rest")),
    }
}

/// Reads addresses and secrets.
pub(super) struct Reader<'a> {
    pub(super) origins: &'a Origins,
    pub(super) variables: Variables<'a>,
}

impl Reader<'_> {
    fn sqlite(&self, catalog: raw::Catalog, s3: Option<S3Config>, data: &Path) -> Result<StoreConfig> {
        let rest_only = [
            ("catalog.uri", catalog.uri.is_some()),
            ("catalog.ca", catalog.ca.is_some()),
            ("catalog.token_env", catalog.token_env.is_some()),
            ("catalog.token", catalog.token.is_some()),
            ("catalog.oauth2", catalog.oauth2.is_some()),
        ];
        if let Some((key, _)) = rest_only.iter().find(|(_, given)| *given) {
            let help = "the SQLite catalog is a file in the data folder and needs none: leave it out, or set catalog.kind to rest";
            return Err(wrong(self.origins, key, &"set", help));
        }
        let Some(s3) = s3 else {
            return match catalog.warehouse {
                None => Ok(StoreConfig::embedded(data)),
                Some(warehouse) => {
                    let help =
                        "without [storage.s3], tables of the SQLite catalog lie in the data folder: leave it out";
                    Err(wrong(self.origins, "catalog.warehouse", &shown(&warehouse), help))
                }
            };
        };
        let warehouse = catalog.warehouse.unwrap_or_default();
        let trimmed = warehouse.trim_end_matches('/');
        let Some(bucket) = trimmed.strip_prefix("s3://").filter(|rest| !rest.is_empty() && !rest.contains("//")) else {
            let help = "with [storage.s3], say where tables are made, like s3://bucket/undertone";
            return Err(wrong(self.origins, "catalog.warehouse", &shown(&warehouse), help));
        };
        let warehouse = Some(format!("s3://{bucket}"));
        let catalog = CatalogConfig::Sqlite(SqliteConfig { data: data.to_owned(), warehouse });
        Ok(StoreConfig { catalog, storage: StorageConfig::S3(s3) })
    }

    fn rest(&self, catalog: raw::Catalog, s3: Option<S3Config>) -> Result<StoreConfig> {
        let uri = catalog.uri.unwrap_or_default();
        let uri = self.uri("catalog.uri", &uri, "write what comes before /v1, like https://catalog.example:8181")?;
        if uri.ends_with("/v1") {
            return Err(wrong(self.origins, "catalog.uri", &uri, "leave /v1 out: it is added to every request"));
        }
        self.never_here("catalog.token", catalog.token.is_some(), "catalog.token_env")?;
        let login = match (catalog.token_env, catalog.oauth2) {
            (Some(_), Some(_)) => {
                let help = "a client either has a token or gets one: leave catalog.token_env or [catalog.oauth2] out";
                return Err(wrong(self.origins, "catalog.token_env", &"beside [catalog.oauth2]", help));
            }
            (Some(name), None) => Login::Token(self.secret("catalog.token_env", &name)?),
            (None, Some(oauth2)) => Login::OAuth2(self.oauth2(oauth2)?),
            (None, None) => Login::None,
        };
        let storage = match (s3, &catalog.warehouse) {
            (Some(s3), _) => StorageConfig::S3(s3),
            (None, Some(warehouse)) if local_folder(warehouse).is_some() => {
                StorageConfig::Local { root: local_folder(warehouse).unwrap_or_default() }
            }
            (None, warehouse) => {
                let value = shown(warehouse.as_deref().unwrap_or_default());
                let help = "say how to reach the object store in [storage.s3], or name a folder that the catalog writes to \
                            as well, like file:///srv/warehouse";
                return Err(wrong(self.origins, "catalog.warehouse", &value, help));
            }
        };
        let ca = catalog.ca.map(PathBuf::from);
        let catalog = CatalogConfig::Rest(RestConfig { uri, warehouse: catalog.warehouse, login, ca });
        Ok(StoreConfig { catalog, storage })
    }

    fn oauth2(&self, raw: raw::OAuth2) -> Result<OAuth2> {
        self.never_here(
            "catalog.oauth2.client_secret",
            raw.client_secret.is_some(),
            "catalog.oauth2.client_secret_env",
        )?;
        let client_id = self.secret("catalog.oauth2.client_id_env", &raw.client_id_env)?;
        if (self.variables)(&raw.client_id_env).is_some_and(|id| id.contains(':')) {
            let error =
                Error::new(ErrorKind::InvalidConfig, "client id has a colon in it, where its secret would begin");
            return Err(error.with("variable", raw.client_id_env).help("give the client an id without one"));
        }
        let client_secret = self.secret("catalog.oauth2.client_secret_env", &raw.client_secret_env)?;
        let help = "write the address that gives out tokens, like https://login.example/oauth/tokens";
        let server_uri = raw.server_uri.map(|uri| self.uri("catalog.oauth2.server_uri", &uri, help)).transpose()?;
        Ok(OAuth2 { client_id, client_secret, server_uri, scope: raw.scope })
    }

    fn s3(&self, raw: raw::S3) -> Result<S3Config> {
        self.never_here("storage.s3.access_key", raw.access_key.is_some(), "storage.s3.access_key_env")?;
        self.never_here("storage.s3.secret_key", raw.secret_key.is_some(), "storage.s3.secret_key_env")?;
        self.never_here("storage.s3.session_token", raw.session_token.is_some(), "storage.s3.session_token_env")?;
        let help = "write the store's address, like https://minio.example:9000; leave it out for AWS";
        let endpoint = raw.endpoint.map(|uri| self.uri("storage.s3.endpoint", &uri, help)).transpose()?;
        if raw.region.trim().is_empty() {
            return Err(wrong(
                self.origins,
                "storage.s3.region",
                &"",
                "us-east-1 is what most stores of one's own take",
            ));
        }
        // A token goes with its keys: with keys of other names, what is in the default's variable is somebody else's.
        let default = raw::S3::default();
        let foreign =
            raw.session_token_env == default.session_token_env && raw.access_key_env != default.access_key_env;
        let set = (self.variables)(&raw.session_token_env).is_some_and(|value| !value.trim().is_empty());
        let session_token = if foreign || (!set && is_name(&raw.session_token_env)) {
            None
        } else {
            Some(self.secret("storage.s3.session_token_env", &raw.session_token_env)?)
        };
        Ok(S3Config {
            endpoint,
            region: raw.region,
            path_style: raw.path_style,
            access_key: self.secret("storage.s3.access_key_env", &raw.access_key_env)?,
            secret_key: self.secret("storage.s3.secret_key_env", &raw.secret_key_env)?,
            session_token,
            ca: raw.ca.map(PathBuf::from),
        })
    }

    /// An address without a slash at its end, and without a user in it: that would be printed wherever the address is.
    pub(super) fn uri(&self, key: &str, value: &str, help: &str) -> Result<String> {
        if value.contains('@') {
            return Err(self.has_user(key));
        }
        let rest = ["http://", "https://"].iter().find_map(|scheme| value.strip_prefix(scheme));
        let good = |rest: &&str| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#', ' ']);
        match rest.filter(good) {
            Some(_) => Ok(value.trim_end_matches('/').to_owned()),
            None => Err(wrong(self.origins, key, &shown(value), help)),
        }
    }

    /// Refuses a warehouse that is an address with a user in it. One that is a name may have any letters.
    fn no_user_in_warehouse(&self, warehouse: &str) -> Result<()> {
        let host = warehouse.split_once("://").and_then(|(_, rest)| rest.split('/').next());
        if host.is_some_and(|host| host.contains('@')) { Err(self.has_user("catalog.warehouse")) } else { Ok(()) }
    }

    fn has_user(&self, key: &str) -> Error {
        let error = Error::new(ErrorKind::InvalidConfig, "address has a user or a password in it").with("key", key);
        error.with("from", self.origins.of(key)).help("leave them out: secrets come from variables")
    }

    /// Refuses a secret in the file, without repeating it.
    pub(super) fn never_here(&self, key: &str, given: bool, instead: &str) -> Result<()> {
        if !given {
            return Ok(());
        }
        let error =
            Error::new(ErrorKind::InvalidConfig, "secrets are not read from the configuration").with("key", key);
        let help = format!("take it out, put it into an environment variable, and name that as {instead}");
        Err(error.with("from", self.origins.of(key)).help(help))
    }

    pub(super) fn secret(&self, key: &str, variable: &str) -> Result<Secret> {
        if !is_name(variable) {
            // Perhaps it is the secret itself.
            let error =
                Error::new(ErrorKind::InvalidConfig, "not the name of an environment variable").with("key", key);
            let help = "write the name alone, in capital letters, digits and _; the secret is its value";
            return Err(error.with("from", self.origins.of(key)).help(help));
        }
        let value = (self.variables)(variable).unwrap_or_default();
        let value = value.trim_end_matches(['\r', '\n']);
        let fail = |message: &str, help: String| {
            let error = Error::new(ErrorKind::InvalidConfig, message).with("variable", variable).with("key", key);
            Err(error.with("from", self.origins.of(key)).help(help))
        };
        if value.is_empty() {
            return fail("environment variable is not set", format!("set it, or name another one as {key}"));
        }
        if !value.chars().all(|c| c.is_ascii_graphic()) {
            return fail("environment variable holds what no key or token has", "was it quoted, or cut?".to_owned());
        }
        Ok(Secret::new(variable, value))
    }
}

/// A wrong address as messages may show it: a query may hold a key.
fn shown(address: &str) -> &str {
    if address.contains('?') { "not shown, since it has a query" } else { address }
}

fn is_name(variable: &str) -> bool {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    variable.chars().all(allowed) && !variable.starts_with(|c: char| c.is_ascii_digit()) && !variable.is_empty()
}

/// The folder of a `file:` location or an absolute path.
fn local_folder(location: &str) -> Option<PathBuf> {
    let path = match location.strip_prefix("file:") {
        Some(path) => format!("/{}", path.trim_start_matches('/')),
        None => location.to_owned(),
    };
    let path = path.trim_end_matches('/');
    (path.starts_with('/')).then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::super::Layers;
    use super::*;

    const KEYS: [(&str, &str); 5] = [
        ("AWS_ACCESS_KEY_ID", "the-id"),
        ("AWS_SECRET_ACCESS_KEY", "the-key\n"),
        ("TOKEN", "the-token"),
        ("UNDERTONE_CATALOG_CLIENT_ID", "client"),
        ("UNDERTONE_CATALOG_CLIENT_SECRET", "the-secret"),
    ];

    fn read_with(toml: &str, set: &[(&str, &str)]) -> Result<StoreConfig> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("u.toml");
        std::fs::write(&path, toml).expect("written");
        let (raw, origins): (raw::RawConfig, _) = Layers::default().file(&path)?.read()?;
        let find = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        settings(raw.catalog, raw.storage, Path::new("/data"), &origins, &find)
    }

    fn read(toml: &str) -> Result<StoreConfig> {
        read_with(toml, &KEYS)
    }

    #[test]
    fn nothing_said_is_everything_in_the_data_folder() {
        let embedded = read("").expect("valid");
        assert_eq!(embedded, StoreConfig::embedded(Path::new("/data")));
        assert!(embedded.uses_data());
    }

    #[test]
    fn every_pair_of_catalog_and_storage_can_be_said() {
        let s3 = "[storage.s3]\nendpoint = 'http://m:9000/'\npath_style = true\n";
        let with_objects = read(&format!("[catalog]\nwarehouse = 's3://b/u/'\n{s3}")).expect("SQLite and S3");
        let CatalogConfig::Sqlite(sqlite) = with_objects.catalog else { panic!("SQLite") };
        assert_eq!(sqlite.warehouse.as_deref(), Some("s3://b/u"));
        let StorageConfig::S3(store) = with_objects.storage else { panic!("S3") };
        assert_eq!((store.endpoint.as_deref(), store.path_style), (Some("http://m:9000"), true));
        assert_eq!(store.secret_key, Secret::new("AWS_SECRET_ACCESS_KEY", "the-key"));

        let rest = "[catalog]\nkind = 'rest'\nuri = 'https://c/iceberg/'\n";
        let server = read(&format!("{rest}token_env = 'TOKEN'\nca = 'ca.pem'\n{s3}")).expect("REST and S3");
        assert!(!server.uses_data());
        let CatalogConfig::Rest(catalog) = server.catalog else { panic!("REST") };
        assert_eq!(catalog.uri, "https://c/iceberg");
        assert_eq!(catalog.login, Login::Token(Secret::new("TOKEN", "the-token")));

        let local =
            read(&format!("{rest}warehouse = 'file:///srv/w/'\n[catalog.oauth2]\nscope = 'x'")).expect("REST, local");
        assert_eq!(local.storage, StorageConfig::Local { root: PathBuf::from("/srv/w") });
        let CatalogConfig::Rest(RestConfig { login: Login::OAuth2(oauth2), .. }) = local.catalog else {
            panic!("OAuth2")
        };
        assert_eq!(oauth2.client_secret.variable(), "UNDERTONE_CATALOG_CLIENT_SECRET");
    }

    #[test]
    fn mistakes_name_the_key_and_the_mend() {
        let rest = "[catalog]\nkind = 'rest'\n";
        let cases = [
            ("[catalog]\nkind = 'hive'", "catalog.kind", "sqlite or rest"),
            ("[catalog]\nuri = 'http://c'", "catalog.uri", "catalog.kind to rest"),
            ("[catalog]\nwarehouse = 's3://b/w'", "catalog.warehouse", "[storage.s3]"),
            ("[storage.s3]", "catalog.warehouse", "s3://bucket/undertone"),
            (rest, "catalog.uri", "before /v1"),
            (&format!("{rest}uri = 'c:8181'"), "catalog.uri", "https://catalog.example"),
            (&format!("{rest}uri = 'http://c/v1'"), "catalog.uri", "leave /v1 out"),
            (&format!("{rest}uri = 'http://c'"), "catalog.warehouse", "[storage.s3]"),
            (&format!("{rest}uri = 'http://c'\ntoken_env = 'TOKEN'\n[catalog.oauth2]"), "catalog.token_env", "either"),
            (&format!("{rest}uri = 'http://c'\ntoken_env = 'UNSET'"), "UNSET", "catalog.token_env"),
            ("[storage.s3]\nendpoint = 'minio:9000'", "storage.s3.endpoint", "https://minio.example:9000"),
            ("[storage.s3]\nsecret_key_env = 'UNSET'", "UNSET", "storage.s3.secret_key_env"),
            ("[storage.s3]\nregion = ''", "storage.s3.region", "us-east-1"),
        ];
        for (toml, key, mend) in cases {
            let error = read(toml).expect_err(toml);
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
            assert!(text.contains(key) && text.contains(mend), "{toml}: {text}");
        }
    }

    #[test]
    fn secrets_in_the_file_are_refused_and_not_repeated() {
        let rest = "[catalog]\nkind = 'rest'\nuri = 'http://c'\n";
        for toml in [
            format!("{rest}token = 'hunter2'"),
            format!("{rest}[catalog.oauth2]\nclient_secret = 'hunter2'"),
            "[storage.s3]\naccess_key = 'hunter2'".to_owned(),
            "[storage.s3]\nsecret_key = 'hunter2'".to_owned(),
            "[storage.s3]\nsession_token = 'hunter2'".to_owned(),
            "[storage.s3]\nsecret = 'hunter2'".to_owned(), // no key of ours at all
            "[storage.s3]\nsecret_key_env = ['hunter2']".to_owned(),
            "[storage.s3]\nsecret_key_env = 'hunter2'".to_owned(),
            "[storage.s3]\nsession_token_env = 'hunter2'".to_owned(),
            "[storage.s3]\nendpoint = 'http://u:hunter2@m:9000'".to_owned(),
            "[storage.s3]\nendpoint = 'HTTPS://u:hunter2@m:9000'".to_owned(),
            "[storage.s3]\nendpoint = 'u:hunter2@m:9000'".to_owned(),
            "[storage.s3]\nendpoint = 'http://m:9000/?key=hunter2'".to_owned(),
            "[catalog]\nkind = 'rest'\nuri = 'c?token=hunter2'".to_owned(),
            "[catalog]\nkind = 'rest'\nuri = 'http://c/hunter2@/v1'".to_owned(),
            "[catalog]\nwarehouse = 's3://u:hunter2@b/w'\n[storage.s3]".to_owned(),
            "[catalog]\nwarehouse = 'S3://u:hunter2@b'".to_owned(),
            format!("{rest}warehouse = 's3://u:hunter2@b/w'"),
            format!("{rest}warehouse = 's3://b/w?key=hunter2'"),
        ] {
            let text = read(&toml).expect_err(&toml).to_string();
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_session_token_goes_with_its_keys() {
        // (what the file says, the variables, the variable that is used)
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<&'a str>);
        let own = [("OWN_ID", "id"), ("OWN_TOKEN", "own"), ("AWS_SESSION_TOKEN", "aws")];
        let empty = [("AWS_SESSION_TOKEN", "\n")];
        let cases: [Case<'_>; 5] = [
            ("", &own, Some("AWS_SESSION_TOKEN")),
            ("access_key_env = 'OWN_ID'", &own, None),
            ("access_key_env = 'OWN_ID'\nsession_token_env = 'OWN_TOKEN'", &own, Some("OWN_TOKEN")),
            ("session_token_env = 'UNSET'", &own, None),
            ("", &empty, None),
        ];
        for (keys, set, wanted) in cases {
            let toml = format!("[catalog]\nwarehouse = 's3://b'\n[storage.s3]\n{keys}");
            let StorageConfig::S3(s3) = read_with(&toml, &[&KEYS[..], set].concat()).expect(&toml).storage else {
                panic!("S3")
            };
            assert_eq!(s3.session_token.as_ref().map(Secret::variable), wanted, "{keys} {set:?}");
        }
    }

    #[test]
    fn variables_that_cannot_hold_a_secret_are_named() {
        for value in ["", "two words", "\"quoted\u{a0}\""] {
            let text = read_with("[storage.s3]", &[("AWS_ACCESS_KEY_ID", value)]).expect_err("no key").to_string();
            assert!(text.contains("AWS_ACCESS_KEY_ID") && !text.contains("quoted\u{a0}"), "{text}");
        }
        let debug = format!("{:?}", read("[catalog]\nwarehouse = 's3://b'\n[storage.s3]").expect("valid"));
        assert!(!debug.contains("the-"), "{debug}");
    }
}
