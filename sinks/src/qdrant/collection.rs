//! Collections and the alias: as they are made, and as they are found.

use std::collections::{BTreeMap, HashMap};

use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{
    CreateAliasBuilder, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, Distance, FieldType,
    ScalarQuantizationBuilder, VectorParamsBuilder, VectorParamsMap, VectorsConfig,
};
use undertone_error::Result;

use super::failure::failed;
use super::{EmbeddingSpace, Qdrant, VECTOR};
use crate::latest::{Found, State};

/// What people filter by.
const INDEXED: [(&str, FieldType); 6] = [
    ("source", FieldType::Keyword),
    ("language", FieldType::Keyword),
    ("label", FieldType::Keyword),
    ("tags", FieldType::Keyword),
    ("created_at", FieldType::Datetime),
    ("deleted", FieldType::Bool),
];
/// As much of a revision as people compare.
const REVISION_CHARS: usize = 12;

/// The collection for embeddings of a model revision.
pub(super) fn name(alias: &str, revision: &str) -> String {
    let short: String = revision.chars().take(REVISION_CHARS).collect();
    format!("{alias}-{short}")
}

impl Qdrant {
    /// Our collections, with the size of their vectors; 0 for one that has none of ours.
    pub(super) async fn collections(&self) -> Result<BTreeMap<String, u64>> {
        let doing = "cannot list collections";
        let listed = self.client.list_collections().await.map_err(|e| failed(doing, &e))?;
        let prefix = format!("{}-", self.config.collection);
        let mut found = BTreeMap::new();
        for collection in listed.collections.into_iter().filter(|each| each.name.starts_with(&prefix)) {
            let info = self.client.collection_info(&collection.name).await.map_err(|e| failed(doing, &e))?;
            let vectors = info.result.and_then(|info| info.config?.params?.vectors_config?.config);
            let size = match vectors {
                Some(Config::ParamsMap(map)) => map.map.get(VECTOR).map_or(0, |params| params.size),
                _ => 0,
            };
            found.insert(collection.name, size);
        }
        Ok(found)
    }

    /// Looks at the collection for `space` and at the alias, and makes what is missing if `make` says so.
    pub(super) async fn prepare_for(&self, space: &EmbeddingSpace, make: bool) -> Result<Vec<Found>> {
        let wanted = name(&self.config.collection, &space.revision);
        let size = space.size as u64;
        let state = match self.collections().await?.get(&wanted) {
            Some(&found) if found == size => State::There,
            Some(found) => State::Differs(format!("its vector {VECTOR} has {found} numbers, not {size}")),
            None if make => {
                self.create(&wanted, size).await?;
                State::Made
            }
            None => State::Missing,
        };
        let collection = Found { what: format!("collection {wanted}"), state };

        let alias = &self.config.collection;
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
        made.map_err(|e| failed("cannot make the collection", &e))?;
        for (field, kind) in INDEXED {
            let index = CreateFieldIndexCollectionBuilder::new(name, field, kind).wait(true);
            self.client.create_field_index(index).await.map_err(|e| failed("cannot make a payload index", &e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collection_is_called_after_the_alias_and_the_revision() {
        assert_eq!(name("posts", "0123456789abcdef"), "posts-0123456789ab");
    }
}
