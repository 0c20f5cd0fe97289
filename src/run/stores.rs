//! The stores of the latest of every post that a process writes to.

use std::sync::Arc;

use undertone_error::{Error, ErrorKind, Result};
use undertone_inference::{EngineConfig, ModelInfo};
use undertone_sinks::clickhouse::ClickHouse;
use undertone_sinks::latest::LatestStore;
use undertone_sinks::opensearch::OpenSearch;
use undertone_sinks::qdrant::{EmbeddingSpace, Qdrant};

use crate::commands::model::start_engine;
use crate::config::{Config, Stores};

/// A store with the name of its role, which is also that of its consumer group.
pub(crate) type Named = (&'static str, Arc<dyn LatestStore>);

/// Makes a client for each; none connects before it is used. `model` is whose embeddings are stored.
///
/// # Errors
/// [`undertone_error::ErrorKind::InvalidConfig`] for an address that is none, and for a model without embeddings.
pub(crate) fn open(stores: &Stores, model: &ModelInfo) -> Result<Vec<Named>> {
    let mut opened: Vec<Named> = Vec::new();
    if let Some(config) = &stores.qdrant {
        let space = EmbeddingSpace { revision: model.revision.clone(), size: model.dimensions };
        opened.push(("qdrant", Arc::new(Qdrant::new(config.clone(), space)?)));
    }
    if let Some(config) = &stores.opensearch {
        opened.push(("opensearch", Arc::new(OpenSearch::new(config.clone())?)));
    }
    if let Some(config) = &stores.clickhouse {
        opened.push(("clickhouse", Arc::new(ClickHouse::new(config.clone()))));
    }
    Ok(opened)
}

/// The one store that a command is about, which writes to what is there and needs no model.
///
/// # Errors
/// As [`open`]; [`ErrorKind::Internal`] if there is none.
pub(crate) fn open_one(stores: Stores) -> Result<Arc<dyn LatestStore>> {
    match (stores.qdrant, stores.opensearch, stores.clickhouse) {
        (Some(config), _, _) => Ok(Arc::new(Qdrant::without_model(config)?)),
        (_, Some(config), _) => Ok(Arc::new(OpenSearch::new(config)?)),
        (_, _, Some(config)) => Ok(Arc::new(ClickHouse::new(config))),
        _ => Err(Error::new(ErrorKind::Internal, "command about a store has none")),
    }
}

/// As [`open`] where no model is loaded: it is, if a store needs to know of it, and only for as long as that takes.
///
/// # Errors
/// Those of [`open`] and of loading the model.
pub(crate) async fn open_without(config: &Config) -> Result<Vec<Named>> {
    if config.stores.is_empty() {
        return Ok(Vec::new());
    }
    let engine = start_engine(&config.model, EngineConfig { workers: 1, ..config.engine.clone() }).await?;
    let opened = open(&config.stores, &engine.model());
    engine.shutdown().await;
    opened
}
