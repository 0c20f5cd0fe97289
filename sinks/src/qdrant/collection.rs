//! Collections and the alias: as they are made, and as they are found.

use std::collections::{BTreeMap, HashMap};

use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{
    CollectionInfo, CreateAliasBuilder, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, Distance,
    FieldType, Memory, PayloadSchemaType, QuantizationConfig, ScalarQuantizationBuilder, VectorParams,
    VectorParamsBuilder, VectorParamsMap, VectorsConfig, quantization_config::Quantization,
};
use undertone_error::{Error, ErrorKind, Result};

use super::failure::failed;
use super::{EmbeddingSpace, Qdrant, QdrantConfig, VECTOR};
use crate::latest::{Found, State};

/// What people filter by.
const INDEXED: [(&str, FieldType, PayloadSchemaType); 6] = [
    ("source", FieldType::Keyword, PayloadSchemaType::Keyword),
    ("language", FieldType::Keyword, PayloadSchemaType::Keyword),
    ("label", FieldType::Keyword, PayloadSchemaType::Keyword),
    ("tags", FieldType::Keyword, PayloadSchemaType::Keyword),
    ("created_at", FieldType::Datetime, PayloadSchemaType::Datetime),
    ("deleted", FieldType::Bool, PayloadSchemaType::Bool),
];
/// As much of a revision as people compare.
const REVISION_CHARS: usize = 12;
/// The first version whose upserts know `update_filter`. Older ones ignore it, and an older post would replace a newer one.
const FILTERS_SINCE: (u32, u32) = (1, 16);

/// The collection for embeddings of a model revision.
pub(super) fn name(alias: &str, revision: &str) -> String {
    let short: String = revision.chars().take(REVISION_CHARS).collect();
    format!("{alias}-{short}")
}

/// Whether a collection is called as ours are: after the alias and a revision, and not after a longer alias.
fn is_ours(alias: &str, collection: &str) -> bool {
    let revision = collection.strip_prefix(alias).and_then(|rest| rest.strip_prefix('-'));
    revision.is_some_and(|revision| {
        (1..=REVISION_CHARS).contains(&revision.len()) && revision.chars().all(|c| c.is_ascii_alphanumeric())
    })
}

/// Whether a server of this version compares versions as it is told to. One that tells no version is believed.
fn knows_filters(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= FILTERS_SINCE,
        _ => true,
    }
}

/// Our vector, and how the collection says that vectors are quantized where they do not say it themselves.
fn vector(info: &CollectionInfo) -> Option<(&VectorParams, Option<&QuantizationConfig>)> {
    let config = info.config.as_ref()?;
    match config.params.as_ref()?.vectors_config.as_ref()?.config.as_ref()? {
        Config::ParamsMap(map) => Some((map.map.get(VECTOR)?, config.quantization_config.as_ref())),
        Config::Params(_) => None,
    }
}

/// How a collection is found that should be for vectors of `size` numbers; indexes of the user's own are none of our
/// business.
fn compare(info: &CollectionInfo, size: u64, config: &QdrantConfig) -> State {
    match vector(info) {
        None => State::Unfit(format!("it has no vector {VECTOR}")),
        Some((params, _)) if params.size != size => {
            State::Unfit(format!("its vector {VECTOR} has {} numbers, not {size}", params.size))
        }
        Some((params, quantized)) => match differences(info, params, quantized, config) {
            none if none.is_empty() => State::There,
            differences => State::Differs(differences.join("; ")),
        },
    }
}

/// What differs of a collection whose vectors fit, in words.
fn differences(
    info: &CollectionInfo,
    params: &VectorParams,
    quantized: Option<&QuantizationConfig>,
    config: &QdrantConfig,
) -> Vec<String> {
    let mut found = Vec::new();
    if params.distance() != Distance::Cosine {
        found.push(format!("it compares by {}, not by Cosine", params.distance().as_str_name()));
    }
    #[allow(deprecated)]
    let on_disk = match params.memory {
        Some(_) => params.memory() == Memory::Cold,
        None => params.on_disk.unwrap_or_default(),
    };
    let kept = |on_disk| if on_disk { "on disk" } else { "in memory" };
    if on_disk != config.on_disk {
        found.push(format!("its vectors stay {}, not {}", kept(on_disk), kept(config.on_disk)));
    }
    let quantization = params.quantization_config.as_ref().or(quantized).and_then(|config| config.quantization);
    let word = match quantization {
        None => "none",
        Some(Quantization::Scalar(_)) => "scalar",
        Some(_) => "another",
    };
    let wanted = if config.quantized { "scalar" } else { "none" };
    if word != wanted {
        found.push(format!("its quantization is {word}, not {wanted}"));
    }
    for (field, _, kind) in INDEXED {
        match info.payload_schema.get(field) {
            None => found.push(format!("it has no index of {field}")),
            Some(index) if index.data_type() != kind => {
                let (is, wanted) = (index.data_type().as_str_name(), kind.as_str_name());
                found.push(format!("its index of {field} is of type {is}, not {wanted}"));
            }
            Some(_) => {}
        }
    }
    found
}

impl Qdrant {
    async fn listed(&self) -> Result<Vec<String>> {
        let listed = self.client.list_collections().await.map_err(|e| failed("cannot list collections", &e))?;
        let names = listed.collections.into_iter().map(|each| each.name);
        Ok(names.filter(|name| is_ours(&self.config.collection, name)).collect())
    }

    async fn info(&self, collection: &str) -> Result<CollectionInfo> {
        let doing = "cannot look at a collection";
        let info = self.client.collection_info(collection).await.map_err(|e| failed(doing, &e))?;
        info.result.ok_or_else(|| Error::new(ErrorKind::Unavailable, doing).with("collection", collection))
    }

    /// Our collections, with the size of their vectors; 0 for one that has none of ours. Those of `known` are not asked
    /// for it again.
    pub(super) async fn collections(&self, known: &BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
        let mut found = BTreeMap::new();
        for collection in self.listed().await? {
            let size = match known.get(&collection) {
                Some(&size) => size,
                None => vector(&self.info(&collection).await?).map_or(0, |(params, _)| params.size),
            };
            found.insert(collection, size);
        }
        Ok(found)
    }

    /// Looks at the collection for `space` and at the alias, and makes what is missing if `make` says so.
    pub(super) async fn prepare_for(&self, space: &EmbeddingSpace, make: bool) -> Result<Vec<Found>> {
        let server = self.client.health_check().await.map_err(|e| failed("cannot reach the server", &e))?;
        if !knows_filters(&server.version) {
            let error = Error::new(ErrorKind::Unavailable, "server does not compare versions, since it is too old");
            let (major, minor) = FILTERS_SINCE;
            return Err(error.with("version", server.version).help(format!("run Qdrant {major}.{minor} or newer")));
        }
        let wanted = name(&self.config.collection, &space.revision);
        let (collection, alias) = (self.prepare_collection(&wanted, space, make).await?, &self.config.collection);
        let listed = self.client.list_aliases().await.map_err(|e| failed("cannot list aliases", &e))?;
        let shown = listed.aliases.into_iter().find(|each| each.alias_name == *alias);
        let state = match shown {
            Some(shown) if shown.collection_name == wanted => State::There,
            // Whoever searches decides when the new collection has enough in it.
            Some(shown) => State::Differs(format!("it shows {}, not {wanted}", shown.collection_name)),
            None if make => {
                let made = self.client.create_alias(CreateAliasBuilder::new(&wanted, alias)).await;
                made.map_err(|e| failed("cannot make the alias", &e))?;
                State::Made
            }
            None => State::Missing,
        };
        Ok(vec![collection, Found { what: format!("alias {alias}"), state }])
    }

    async fn prepare_collection(&self, wanted: &str, space: &EmbeddingSpace, make: bool) -> Result<Found> {
        let (what, size) = (format!("collection {wanted}"), space.size as u64);
        let is_there = self.listed().await?.iter().any(|name| name == wanted);
        if !is_there && !make {
            return Ok(Found { what, state: State::Missing });
        }
        if !is_there {
            self.create(wanted, size).await?;
        }
        if make {
            // Also of a collection that is there: whoever made it may have died before its indexes.
            let there = self.info(wanted).await?.payload_schema;
            for (field, kind, _) in INDEXED.into_iter().filter(|(field, ..)| !there.contains_key(*field)) {
                let index = CreateFieldIndexCollectionBuilder::new(wanted, field, kind).wait(true);
                self.client.create_field_index(index).await.map_err(|e| failed("cannot make a payload index", &e))?;
            }
        }
        let state = match is_there {
            true => compare(&self.info(wanted).await?, size, &self.config),
            false => State::Made,
        };
        Ok(Found { what, state })
    }

    async fn create(&self, name: &str, size: u64) -> Result<()> {
        // `on_disk` is what servers of every version know.
        #[allow(deprecated)]
        let mut params = VectorParamsBuilder::new(size, Distance::Cosine).on_disk(self.config.on_disk);
        if self.config.quantized {
            params = params.quantization_config(ScalarQuantizationBuilder::default());
        }
        let map = HashMap::from([(VECTOR.to_owned(), params.build())]);
        let vectors = VectorsConfig { config: Some(Config::ParamsMap(VectorParamsMap { map })) };
        let made = self.client.create_collection(CreateCollectionBuilder::new(name).vectors_config(vectors)).await;
        made.map(|_| ()).map_err(|e| failed("cannot make the collection", &e))
    }
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::{CollectionConfig, CollectionParams, PayloadSchemaInfo};

    use super::*;

    fn config() -> QdrantConfig {
        let (url, collection) = (String::new(), "posts".to_owned());
        QdrantConfig { url, collection, on_disk: true, quantized: true, api_key: None }
    }

    /// As `create` and `prepare_collection` make it.
    #[allow(deprecated)]
    fn made() -> CollectionInfo {
        let params = VectorParamsBuilder::new(4, Distance::Cosine).on_disk(true);
        let params = params.quantization_config(ScalarQuantizationBuilder::default()).build();
        let map = HashMap::from([(VECTOR.to_owned(), params)]);
        let vectors_config = Some(VectorsConfig { config: Some(Config::ParamsMap(VectorParamsMap { map })) });
        let params = Some(CollectionParams { vectors_config, ..CollectionParams::default() });
        let index = |(field, _, kind): (&str, _, PayloadSchemaType)| {
            (field.to_owned(), PayloadSchemaInfo { data_type: kind.into(), ..PayloadSchemaInfo::default() })
        };
        CollectionInfo {
            config: Some(CollectionConfig { params, ..CollectionConfig::default() }),
            payload_schema: INDEXED.into_iter().map(index).collect(),
            ..CollectionInfo::default()
        }
    }

    #[test]
    fn a_collection_is_called_after_the_alias_and_the_revision() {
        assert_eq!(name("posts", "0123456789abcdef"), "posts-0123456789ab");
        for (collection, ours) in [
            ("posts-0123456789ab", true),
            ("posts-2-0123456789ab", false), // of the alias posts-2
            ("posts-archive-of-2025", false),
            ("posts", false),
            ("posts-", false),
            ("others-0123456789ab", false),
        ] {
            assert_eq!(is_ours("posts", collection), ours, "{collection}");
        }
    }

    #[test]
    fn a_collection_as_we_make_it_differs_in_nothing_and_else_every_difference_is_named() {
        assert_eq!(compare(&made(), 4, &config()), State::There);
        let mut info = made();
        info.payload_schema.remove("tags");
        info.payload_schema.insert("team".to_owned(), PayloadSchemaInfo::default());
        let other = QdrantConfig { on_disk: false, quantized: false, ..config() };
        let State::Differs(said) = compare(&info, 4, &other) else { panic!("it differs") };
        for words in ["stay on disk, not in memory", "quantization is scalar, not none", "no index of tags"] {
            assert!(said.contains(words), "{said}");
        }
        assert!(!said.contains("team"), "{said}");
        let unfit = |found| matches!(found, State::Unfit(_));
        assert!(unfit(compare(&info, 5, &other)) && unfit(compare(&CollectionInfo::default(), 4, &other)));
    }

    #[test]
    fn servers_that_would_ignore_the_filter_are_too_old() {
        for (version, knows) in
            [("1.15.4", false), ("0.11.0", false), ("1.16.0", true), ("v1.20.1-dev", true), ("2.0.0", true), ("", true)]
        {
            assert_eq!(knows_filters(version), knows, "{version}");
        }
    }
}
