//! A catalog behind Iceberg's REST protocol, which several processes and other engines share.
//!
//! The server decides about commits: it applies one only if the branch's head is the one that was checked, and answers 409
//! otherwise, after which the transaction is rebased behind the fence. It also removes old metadata files, and says
//! where tables lie.
//!
//! A refusal is told as what it is, with the variable or the key that mends it; tokens are never part of it. With client
//! id and secret a token that has ended is replaced once before a call counts as refused. A commit is not repeated
//! here even then: whether it happened is for the [commit](crate::iceberg::commit) to find out.
//!
//! Redirects are not followed: some would make a commit's POST a GET, and others would send secrets to who knows whom.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use iceberg::table::Table;
use iceberg::{Catalog, CatalogBuilder, Namespace, NamespaceIdent, Result, TableCommit, TableCreation, TableIdent};
use iceberg_catalog_rest::{
    REST_CATALOG_PROP_URI, REST_CATALOG_PROP_WAREHOUSE, RestCatalog as Client, RestCatalogBuilder,
};
use reqwest::ClientBuilder;
use reqwest::redirect::Policy;
use tokio::sync::Mutex;
use undertone_error::{Error, ErrorKind};

use super::CATALOG_NAME;
use super::answer::{self, Meaning};
use crate::iceberg::failure::{Doing, text, wrap};
use crate::iceberg::http::{self, causes, is_untrusted};
use crate::iceberg::secret::{Secret, without_tokens};
use crate::iceberg::storage::TableStorage;

/// How long one request may take. A commit that took longer may have happened, and is looked for.
const REQUEST: Duration = Duration::from_secs(30);

/// What a REST catalog must be told.
#[derive(Clone, Debug, PartialEq)]
pub struct RestConfig {
    /// `https://host:port/path`, without `/v1` and without a slash at its end.
    pub uri: String,
    /// What the server calls the warehouse, if it has several.
    pub warehouse: Option<String>,
    /// Who we are.
    pub login: Login,
    /// Authorities to trust beside the system's, in PEM.
    pub ca: Option<PathBuf>,
}

/// Who we are to a catalog.
#[derive(Clone, Debug, PartialEq)]
pub enum Login {
    /// Anybody.
    None,
    /// Whoever holds this bearer token.
    Token(Secret),
    /// A client that gets its tokens by itself.
    OAuth2(OAuth2),
}

/// OAuth2's client credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2 {
    /// The client's id.
    pub client_id: Secret,
    /// Its secret.
    pub client_secret: Secret,
    /// Where tokens are given out; left out: `/v1/oauth/tokens` of the catalog.
    pub server_uri: Option<String>,
    /// What the token is for; left out: `catalog`.
    pub scope: Option<String>,
}

/// Connects to the catalog and hears what it says about itself.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] if it refuses us, [`ErrorKind::Unavailable`] if it does not answer.
pub(super) async fn open(config: &RestConfig, storage: &TableStorage) -> undertone_error::Result<Arc<dyn Catalog>> {
    let http = http::client(config.ca.as_deref(), "catalog.ca", limits)?;
    let builder = RestCatalogBuilder::default().with_client(http).with_storage_factory(storage.factory());
    let client = builder.load(CATALOG_NAME, properties(config)).await.doing("cannot open the catalog")?;
    let catalog = RestCatalog { client, config: config.clone(), renewed: Mutex::default() };
    // The first call asks for the server's configuration: here, and not in the middle of something. What it asks for
    // is a namespace that we need anyway.
    let probe = NamespaceIdent::new("bronze".to_owned());
    catalog.namespace_exists(&probe).await.doing("cannot open the catalog")?;
    Ok(Arc::new(catalog))
}

fn limits(builder: ClientBuilder) -> ClientBuilder {
    builder.timeout(REQUEST).redirect(Policy::none())
}

fn properties(config: &RestConfig) -> HashMap<String, String> {
    let mut properties = HashMap::from([(REST_CATALOG_PROP_URI.to_owned(), config.uri.clone())]);
    let mut set = |key: &str, value: &str| properties.insert(key.to_owned(), value.to_owned());
    if let Some(warehouse) = &config.warehouse {
        set(REST_CATALOG_PROP_WAREHOUSE, warehouse);
    }
    match &config.login {
        Login::None => {}
        Login::Token(token) => {
            set("token", token.reveal());
        }
        Login::OAuth2(OAuth2 { client_id, client_secret, server_uri, scope }) => {
            set("credential", &format!("{}:{}", client_id.reveal(), client_secret.reveal()));
            if let Some(uri) = server_uri {
                set("oauth2-server-uri", uri);
            }
            if let Some(scope) = scope {
                set("scope", scope);
            }
        }
    }
    properties
}

/// The crate's client, whose errors are told in our terms.
struct RestCatalog {
    client: Client,
    config: RestConfig,
    /// When the token was last replaced. Who replaces it holds this.
    renewed: Mutex<Option<Instant>>,
}

/// The client's own would print its token.
impl fmt::Debug for RestCatalog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestCatalog").field("config", &self.config).finish_non_exhaustive()
    }
}

impl RestCatalog {
    /// Makes a call that may be repeated.
    async fn call<T, F>(&self, call: impl Fn() -> F + Send + Sync) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let began = Instant::now();
        match call().await {
            Err(error) if self.renews(&error) => {
                self.renew(began).await?;
                call().await.map_err(|error| self.explain(error))
            }
            outcome => outcome.map_err(|error| self.explain(error)),
        }
    }

    /// Whether a new token may mend this.
    fn renews(&self, error: &iceberg::Error) -> bool {
        let refused = || answer::read(&error.to_string()).is_some_and(|it| it.meaning() == Meaning::TokenRefused);
        matches!(self.config.login, Login::OAuth2(_)) && refused()
    }

    /// Replaces the token that was refused to a call, unless another call did so since that one `began`: all sinks
    /// miss it in the same moment.
    async fn renew(&self, began: Instant) -> Result<()> {
        let mut renewed = self.renewed.lock().await;
        if renewed.is_some_and(|renewed| renewed > began) {
            return Ok(());
        }
        tracing::debug!(uri = self.config.uri, "catalog's token has ended, asking for another");
        self.client.regenerate_token().await.map_err(|error| self.explain(error))?;
        *renewed = Some(Instant::now());
        Ok(())
    }

    /// What it means that a table is not there. Whatever answers while a catalog is away may say so of every table, which
    /// would stop all sinks for good; of the namespace only a catalog says that it is there.
    async fn missing(&self, error: iceberg::Error, namespace: &NamespaceIdent) -> iceberg::Error {
        let Err(also) = self.call(|| self.client.get_namespace(namespace)).await else { return error };
        let instead = Error::new(ErrorKind::Unavailable, "something answers in the catalog's place")
            .with("uri", &self.config.uri)
            .with("namespace", namespace);
        let help = "is the catalog running? If the namespace was removed, run undertone init";
        wrap(instead.source(text(&also)).help(help))
    }

    /// The server's words without secrets: some repeat what they were sent.
    fn hide(&self, words: &str) -> String {
        let words = match &self.config.login {
            Login::None => words.to_owned(),
            Login::Token(token) => token.hide_in(words),
            Login::OAuth2(oauth) => oauth.client_id.hide_in(&oauth.client_secret.hide_in(words)),
        };
        without_tokens(&words)
    }

    /// What went wrong, and what mends it. What the crate names by kind (a table that is not there, a conflict) stays.
    fn explain(&self, error: iceberg::Error) -> iceberg::Error {
        if !matches!(error.kind(), iceberg::ErrorKind::Unexpected | iceberg::ErrorKind::DataInvalid) {
            return error;
        }
        let text = error.to_string();
        let explained = match answer::read(&text) {
            // What was answered is not repeated: it may be a token, or keys.
            _ if answer::is_foreign(&text) => misunderstood(&error),
            Some(answer) => self.answered(&answer),
            None if is_transport(&error) => unanswered(&error),
            None => return error,
        };
        wrap(explained.with("uri", &self.config.uri))
    }

    fn answered(&self, answer: &answer::Answer) -> Error {
        let meaning = answer.meaning();
        let (message, help) = match (meaning, &self.config.login) {
            (Meaning::LoginRefused, Login::OAuth2(oauth)) => (
                "catalog refuses the client's id or secret",
                format!("check the values of {} and {}", oauth.client_id.variable(), oauth.client_secret.variable()),
            ),
            (Meaning::LoginRefused | Meaning::TokenRefused, Login::None) => (
                "catalog wants to know who asks",
                "name the variable that holds a token as catalog.token_env, or a client in [catalog.oauth2]".to_owned(),
            ),
            (Meaning::LoginRefused | Meaning::TokenRefused, Login::Token(token)) => {
                ("catalog refuses the token", format!("put one that is valid into {}", token.variable()))
            }
            (Meaning::TokenRefused, Login::OAuth2(_)) => (
                "catalog refuses a token that was just given out",
                "is catalog.oauth2.server_uri the server that it trusts, and the scope the one that it wants?".to_owned(),
            ),
            (Meaning::Forbidden, _) => (
                "catalog does not allow this",
                "give the client the right to make and alter tables in bronze, silver and gold".to_owned(),
            ),
            (Meaning::Elsewhere, Login::OAuth2(_)) if answer.login => (
                "who gives out the catalog's tokens sends its callers elsewhere",
                "set catalog.oauth2.server_uri to where tokens are given out now".to_owned(),
            ),
            (Meaning::Elsewhere, _) => (
                "catalog sends its callers elsewhere",
                match &answer.location {
                    Some(location) => {
                        let location = self.hide(location);
                        format!("it names {location}: set catalog.uri to it, without /v1 and what follows")
                    }
                    None => "set catalog.uri to where it is now".to_owned(),
                },
            ),
            (Meaning::NotUnderstood, _) => (
                "catalog does not know what was asked for",
                "is catalog.uri the root of an Iceberg REST catalog (what comes before /v1), and catalog.warehouse one \
                 that it has?"
                    .to_owned(),
            ),
            (Meaning::Ill, _) => ("catalog does not do its part", "look into its own log".to_owned()),
        };
        let said = answer.told(|words| self.hide(words));
        Error::new(meaning.kind(), message).with("status", answer.status).source(said).help(help)
    }
}

fn unanswered(error: &iceberg::Error) -> Error {
    let said = std::error::Error::source(error).map_or_else(|| error.to_string(), causes);
    let (message, help) = if is_untrusted(&said) {
        ("catalog's certificate is not trusted", "name the authority that signed it as catalog.ca")
    } else {
        ("catalog does not answer", "is it running, and is catalog.uri its address?")
    };
    Error::new(ErrorKind::Unavailable, message).source(said).help(help)
}

/// Waited for, since something on the way may have cut the answer.
fn misunderstood(error: &iceberg::Error) -> Error {
    let said = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    Error::new(ErrorKind::Unavailable, "catalog's answer is not that of an Iceberg REST catalog")
        .source(said)
        .help("is catalog.uri the root of one, what comes before /v1?")
}

/// Whether a request or its answer got lost on the way.
fn is_transport(error: &iceberg::Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if cause.is::<reqwest::Error>() {
            return true;
        }
        next = cause.source();
    }
    false
}

#[async_trait]
impl Catalog for RestCatalog {
    async fn load_table(&self, table: &TableIdent) -> Result<Table> {
        match self.call(|| self.client.load_table(table)).await {
            Err(error) if error.kind() == iceberg::ErrorKind::TableNotFound => {
                Err(self.missing(error, table.namespace()).await)
            }
            outcome => outcome,
        }
    }

    async fn update_table(&self, commit: TableCommit) -> Result<Table> {
        let began = Instant::now();
        match self.client.update_table(commit).await {
            Err(error) if self.renews(&error) => {
                self.renew(began).await?;
                // The next attempt at the commit has a new token, once it is seen that this one did not happen.
                let ended =
                    Error::new(ErrorKind::Unavailable, "catalog's token had ended").with("uri", &self.config.uri);
                Err(wrap(ended))
            }
            outcome => outcome.map_err(|error| self.explain(error)),
        }
    }

    async fn list_namespaces(&self, parent: Option<&NamespaceIdent>) -> Result<Vec<NamespaceIdent>> {
        self.call(|| self.client.list_namespaces(parent)).await
    }

    async fn create_namespace(&self, name: &NamespaceIdent, properties: HashMap<String, String>) -> Result<Namespace> {
        self.call(|| self.client.create_namespace(name, properties.clone())).await
    }

    async fn get_namespace(&self, name: &NamespaceIdent) -> Result<Namespace> {
        self.call(|| self.client.get_namespace(name)).await
    }

    async fn namespace_exists(&self, name: &NamespaceIdent) -> Result<bool> {
        self.call(|| self.client.namespace_exists(name)).await
    }

    async fn update_namespace(&self, name: &NamespaceIdent, properties: HashMap<String, String>) -> Result<()> {
        self.call(|| self.client.update_namespace(name, properties.clone())).await
    }

    async fn drop_namespace(&self, name: &NamespaceIdent) -> Result<()> {
        self.call(|| self.client.drop_namespace(name)).await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.call(|| self.client.list_tables(namespace)).await
    }

    async fn create_table(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Table> {
        // A second call after a lost answer finds the table made; who makes tables looks whether it is there.
        self.client.create_table(namespace, creation).await.map_err(|error| self.explain(error))
    }

    async fn drop_table(&self, table: &TableIdent) -> Result<()> {
        self.call(|| self.client.drop_table(table)).await
    }

    async fn purge_table(&self, table: &TableIdent) -> Result<()> {
        self.call(|| self.client.purge_table(table)).await
    }

    async fn table_exists(&self, table: &TableIdent) -> Result<bool> {
        self.call(|| self.client.table_exists(table)).await
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.call(|| self.client.rename_table(from, to)).await
    }

    async fn register_table(&self, table: &TableIdent, metadata_location: String) -> Result<Table> {
        self.call(|| self.client.register_table(table, metadata_location.clone())).await
    }
}
