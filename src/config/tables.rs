//! What commands that look after tables need to know: where the tables are, and what writes them.

use std::path::PathBuf;

use undertone_error::{Error, ErrorKind, Result};
use undertone_proto::PostReader;
use undertone_sinks::iceberg::StoreConfig;

use super::layers::Layers;
use super::raw::RawConfig;
use super::{KafkaSettings, catalog, kafka};

/// The sections of the tables and of their sources, validated.
#[derive(Clone, Debug)]
pub(crate) struct TablesConfig {
    /// The data folder.
    pub(crate) data: PathBuf,
    /// Where the tables are.
    pub(crate) tables: StoreConfig,
    /// The cluster, if the stream runs on Kafka.
    pub(crate) kafka: Option<KafkaSettings>,
    /// Where posts have their fields.
    pub(crate) posts: PostReader,
}

impl TablesConfig {
    /// Validates what the layers say about tables and sources. The rest of a file must be of the right form, but is not
    /// looked at.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the key, the value, where it came from, and what would be right.
    pub(crate) fn load(layers: Layers) -> Result<Self> {
        let (raw, origins): (RawConfig, _) = layers.read()?;
        let data = PathBuf::from(&raw.data.dir);
        let variables = |name: &str| std::env::var(name).ok();
        Ok(Self {
            tables: catalog::settings(raw.catalog, raw.storage, &data, &origins, &variables)?,
            kafka: kafka::settings(raw.kafka, &origins)?,
            posts: raw.source.mapping.map_or_else(|| Ok(PostReader::default()), |mapping| mapping.reader(&origins))?,
            data,
        })
    }

    /// Fails if the tables would lie in a data folder that is not there: looking after them makes none.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] with the mend.
    pub(crate) fn is_there(&self) -> Result<()> {
        if !self.tables.uses_data() || self.data.join("catalog.db").is_file() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::NotFound, "data folder has no tables").with("data", self.data.display());
        Err(error.help("give --data DIR, or --config FILE if the tables are elsewhere"))
    }
}
