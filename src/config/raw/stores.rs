//! The sections of tables and stores: where they are, what they are called, and which variables hold their keys.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// Where the tables are listed.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Catalog {
    /// "sqlite" or "rest".
    pub(in crate::config) kind: String,
    /// The root of a REST catalog.
    pub(in crate::config) uri: Option<String>,
    /// REST: what the server calls the warehouse. SQLite: where tables are made.
    pub(in crate::config) warehouse: Option<String>,
    /// Authorities to trust beside the system's, in PEM.
    pub(in crate::config) ca: Option<String>,
    /// The variable that holds a bearer token.
    pub(in crate::config) token_env: Option<String>,
    /// Refused: a file is read by more people than ought to know it.
    pub(in crate::config) token: Option<IgnoredAny>,
    pub(in crate::config) oauth2: Option<OAuth2>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            kind: "sqlite".to_owned(),
            uri: None,
            warehouse: None,
            ca: None,
            token_env: None,
            token: None,
            oauth2: None,
        }
    }
}

/// A client that gets its tokens by itself.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct OAuth2 {
    /// The variables that hold its id and its secret.
    pub(in crate::config) client_id_env: String,
    pub(in crate::config) client_secret_env: String,
    /// Where tokens are given out; left out: by the catalog.
    pub(in crate::config) server_uri: Option<String>,
    pub(in crate::config) scope: Option<String>,
    /// Refused.
    pub(in crate::config) client_secret: Option<IgnoredAny>,
}

impl Default for OAuth2 {
    fn default() -> Self {
        Self {
            client_id_env: "UNDERTONE_CATALOG_CLIENT_ID".to_owned(),
            client_secret_env: "UNDERTONE_CATALOG_CLIENT_SECRET".to_owned(),
            server_uri: None,
            scope: None,
            client_secret: None,
        }
    }
}

/// Where the tables' files lie; without a section they are local.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Storage {
    pub(in crate::config) s3: Option<S3>,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct S3 {
    /// Left out: AWS.
    pub(in crate::config) endpoint: Option<String>,
    pub(in crate::config) region: String,
    pub(in crate::config) path_style: bool,
    /// The variables that hold the keys.
    pub(in crate::config) access_key_env: String,
    pub(in crate::config) secret_key_env: String,
    /// May be unset: only keys that end come with a token.
    pub(in crate::config) session_token_env: String,
    pub(in crate::config) ca: Option<String>,
    /// Refused.
    pub(in crate::config) access_key: Option<IgnoredAny>,
    pub(in crate::config) secret_key: Option<IgnoredAny>,
    pub(in crate::config) session_token: Option<IgnoredAny>,
}

impl Default for S3 {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: "us-east-1".to_owned(),
            path_style: false,
            access_key_env: "AWS_ACCESS_KEY_ID".to_owned(),
            secret_key_env: "AWS_SECRET_ACCESS_KEY".to_owned(),
            session_token_env: "AWS_SESSION_TOKEN".to_owned(),
            ca: None,
            access_key: None,
            secret_key: None,
            session_token: None,
        }
    }
}

/// Vectors for "find posts like this".
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Qdrant {
    /// Left out: no such store.
    pub(in crate::config) url: Option<String>,
    /// The alias that readers use; collections are called after it and the model.
    pub(in crate::config) collection: String,
    /// Whether vectors stay on disk instead of in memory.
    pub(in crate::config) on_disk: bool,
    /// "none" or "scalar".
    pub(in crate::config) quantization: String,
    pub(in crate::config) api_key_env: Option<String>,
    pub(in crate::config) api_key_file: Option<String>,
    /// Refused: a file is read by more people than ought to know it.
    pub(in crate::config) api_key: Option<IgnoredAny>,
}

impl Default for Qdrant {
    fn default() -> Self {
        Self {
            url: None,
            collection: "posts".to_owned(),
            on_disk: true,
            quantization: "scalar".to_owned(),
            api_key_env: None,
            api_key_file: None,
            api_key: None,
        }
    }
}

/// Documents for full-text search.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct OpenSearch {
    /// Left out: no such store.
    pub(in crate::config) url: Option<String>,
    /// The alias that readers use; day indices are called after it.
    pub(in crate::config) index: String,
    pub(in crate::config) shards: u32,
    pub(in crate::config) replicas: u32,
    /// Left out: for ever.
    pub(in crate::config) retention_days: Option<u32>,
    /// Left out: nobody logs in.
    pub(in crate::config) user: Option<String>,
    pub(in crate::config) password_env: Option<String>,
    pub(in crate::config) password_file: Option<String>,
    /// Refused.
    pub(in crate::config) password: Option<IgnoredAny>,
}

impl Default for OpenSearch {
    fn default() -> Self {
        Self {
            url: None,
            index: "posts".to_owned(),
            shards: 1,
            replicas: 1,
            retention_days: None,
            user: None,
            password_env: None,
            password_file: None,
            password: None,
        }
    }
}

/// Rows for charts.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct ClickHouse {
    /// Left out: no such store.
    pub(in crate::config) url: Option<String>,
    pub(in crate::config) database: String,
    pub(in crate::config) table: String,
    /// Left out: for ever.
    pub(in crate::config) retention_days: Option<u32>,
    pub(in crate::config) user: String,
    pub(in crate::config) password_env: Option<String>,
    pub(in crate::config) password_file: Option<String>,
    /// Refused.
    pub(in crate::config) password: Option<IgnoredAny>,
}

impl Default for ClickHouse {
    fn default() -> Self {
        Self {
            url: None,
            database: "default".to_owned(),
            table: "posts".to_owned(),
            retention_days: None,
            user: "default".to_owned(),
            password_env: None,
            password_file: None,
            password: None,
        }
    }
}
