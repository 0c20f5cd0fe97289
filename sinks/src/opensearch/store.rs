//! The store: bulk requests, and the template of the indices that they go to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opensearch::auth::Credentials;
use opensearch::http::headers::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use opensearch::http::transport::{SingleNodeConnectionPool, Transport, TransportBuilder};
use opensearch::http::{Method, Url};
use serde_json::Value;
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_proto::v1::ScoredPost;

use super::OpenSearchConfig;
use super::bulk::{ANSWER, answers, body};
use super::document::{index, is_ours};
use super::failure::{refused, unanswered};
use super::template::{differences, index_differences, name, template};
use crate::latest::{Answer, Found, LatestStore, Shape, State};

/// How long a request may take that writes nothing.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a batch may take: what the layer above does is give the call up.
const BULK: Duration = Duration::from_secs(60);
/// As many indices as fit into the first line of a request, of which a server reads 4 KiB.
const NAMED: usize = 32;

/// An OpenSearch cluster. Cheap to clone.
#[derive(Clone)]
pub struct OpenSearch {
    pub(super) transport: Transport,
    pub(super) config: OpenSearchConfig,
}

impl std::fmt::Debug for OpenSearch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenSearch").field("config", &self.config).finish_non_exhaustive()
    }
}

impl OpenSearch {
    /// A client, which connects when it is first used.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the address is none.
    pub fn new(config: OpenSearchConfig) -> Result<Self> {
        let wrong = "opensearch.url is no address";
        let url = Url::parse(&format!("{}/", config.url)).context(ErrorKind::InvalidConfig, wrong)?;
        let mut transport = TransportBuilder::new(SingleNodeConnectionPool::new(url));
        if let Some((user, password)) = &config.login {
            transport = transport.auth(Credentials::Basic(user.clone(), password.reveal().to_owned()));
        }
        let transport =
            transport.build().map_err(|e| Error::new(ErrorKind::InvalidConfig, wrong).source(e.to_string()))?;
        Ok(Self { transport, config })
    }

    /// One request, and the body of its answer if its status is good; `None` where there is no such thing.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] with what the server said.
    pub(super) async fn call(
        &self,
        doing: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Option<Bytes>> {
        let body = body.map(|body| Bytes::from(body.to_string()));
        let sent = self.transport.send(method, path, HeaderMap::new(), None::<&()>, body, Some(PATIENCE)).await;
        let answer = sent.map_err(|e| unanswered(doing, &e))?;
        let status = answer.status_code().as_u16();
        let body = answer.bytes().await.map_err(|e| unanswered(doing, &e))?;
        match status {
            200..=299 => Ok(Some(body)),
            404 if matches!(method, Method::Get | Method::Delete) => Ok(None),
            status => Err(refused(doing, status, &body)),
        }
    }

    /// The template that is there.
    async fn found(&self) -> Result<Option<Value>> {
        let path = format!("/_index_template/{}", name(&self.config));
        let doing = "cannot look at the index template";
        let Some(body) = self.call(doing, Method::Get, &path, None).await? else { return Ok(None) };
        let answer: Value = serde_json::from_slice(&body).context(ErrorKind::Unavailable, doing)?;
        Ok(answer.pointer("/index_templates/0/index_template").cloned())
    }

    /// Looks, before every request, at where it will go: an index that is there must be shown by the alias, and one that is
    /// not is made by the template, which must be there. Otherwise documents would be stored and never be found. It is
    /// asked each time, since whoever lost everything while nothing was written would make indices of any kind.
    async fn watch_out(&self, posts: &[&ScoredPost]) -> Result<()> {
        let (doing, alias) = ("cannot look at the indices", &self.config.index);
        let wanted: BTreeSet<String> = posts.iter().map(|post| index(alias, post)).collect();
        let named = match wanted.len() {
            ..=NAMED => wanted.iter().map(String::as_str).collect::<Vec<_>>().join(","),
            _ => format!("{alias}-*"),
        };
        let body = self.call(doing, Method::Get, &format!("/{named}/_alias?ignore_unavailable=true"), None).await?;
        let there: BTreeMap<String, Value> =
            serde_json::from_slice(&body.unwrap_or_else(|| "{}".into())).context(ErrorKind::Unavailable, doing)?;
        let is_hidden = |index: &&String| there.get(*index).is_some_and(|index| index["aliases"].get(alias).is_none());
        if let Some(hidden) = wanted.iter().find(is_hidden) {
            let error = Error::new(ErrorKind::Unavailable, "index is not shown by the alias").with("index", hidden);
            return Err(error.with("alias", alias).help(
                "add it to the alias as the index template does, or delete it if it is empty: it is made anew as it should be",
            ));
        }
        if wanted.iter().all(|index| there.contains_key(index)) || self.found().await?.is_some() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Unavailable, "index template is gone").with("template", name(&self.config));
        Err(error.help("`undertone init` makes it again; without it new indices would have no mapping"))
    }

    /// What differs of indices that are there already, once for all that differ alike.
    async fn differing(&self, wanted: &Value) -> Result<Vec<Found>> {
        let (doing, alias) = ("cannot look at the indices", &self.config.index);
        let path = format!("/{alias}-*?filter_path=*.aliases,*.mappings");
        let body = self.call(doing, Method::Get, &path, None).await?;
        let there: BTreeMap<String, Value> =
            serde_json::from_slice(&body.unwrap_or_else(|| "{}".into())).context(ErrorKind::Unavailable, doing)?;
        let mut alike: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (index, found) in there.into_iter().filter(|(index, _)| is_ours(alias, index)) {
            let differences = index_differences(alias, &found, wanted);
            if !differences.is_empty() {
                alike.entry(differences.join("; ")).or_default().push(index);
            }
        }
        let found = |(how, indices): (String, Vec<String>)| {
            let more = match indices.len() {
                1 => String::new(),
                count => format!(" and {} more", count - 1),
            };
            Found {
                what: format!("index {}{more}", indices.first().map_or("", String::as_str)),
                state: State::Differs(how),
            }
        };
        Ok(alike.into_iter().map(found).collect())
    }

    /// Sends posts, in halves where they are too large for one request.
    async fn bulk(&self, posts: &[&ScoredPost]) -> Result<Vec<Answer>> {
        let doing = "cannot write documents";
        let mut answered = Vec::with_capacity(posts.len());
        let mut left = vec![posts];
        while let Some(part) = left.pop() {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            let body = Bytes::from(body(&self.config.index, part)?);
            let only = [("filter_path", ANSWER)];
            let sent = self.transport.send(Method::Post, "/_bulk", headers, Some(&only), Some(body), Some(BULK)).await;
            let answer = sent.map_err(|e| unanswered(doing, &e))?;
            let status = answer.status_code().as_u16();
            let said = answer.bytes().await.map_err(|e| unanswered(doing, &e))?;
            match (status, part) {
                (200, _) => answered.extend(answers(&said, part.len())?),
                (413, [_]) => answered.push(Answer::Rejected("document is larger than the server takes".to_owned())),
                (413, _) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    left.extend([second, first]);
                }
                (status, _) => return Err(refused(doing, status, &said)),
            }
        }
        Ok(answered)
    }
}

#[async_trait]
impl LatestStore for OpenSearch {
    fn name(&self) -> &str {
        "opensearch"
    }

    fn shape(&self) -> Shape {
        Shape { posts: 2_000, bytes: 8 << 20, concurrency: 2, timeout: BULK }
    }

    async fn prepare(&self, make: bool) -> Result<Vec<Found>> {
        let wanted = template(&self.config);
        let what = format!("index template {}, for {}-*", name(&self.config), self.config.index);
        let state = match self.found().await? {
            Some(found) => match differences(&found, &wanted) {
                none if none.is_empty() => State::There,
                differences => State::Differs(differences.join("; ")),
            },
            None if make => {
                let path = format!("/_index_template/{}", name(&self.config));
                self.call("cannot make the index template", Method::Put, &path, Some(&wanted)).await?;
                State::Made
            }
            None => State::Missing,
        };
        let mut found = vec![Found { what, state }];
        found.extend(self.differing(&wanted).await?);
        Ok(found)
    }

    async fn write(&self, posts: &[&ScoredPost]) -> Result<Vec<Answer>> {
        self.watch_out(posts).await?;
        self.bulk(posts).await
    }
}
