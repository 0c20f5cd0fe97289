//! The store: inserts, and the table that they go to.

use std::time::Duration;

use async_trait::async_trait;
use clickhouse::{Client, Compression};
use undertone_error::Result;
use undertone_proto::v1::ScoredPost;

use super::ClickHouseConfig;
use super::failure::{failed, refusal};
use super::row::PostRow;
use super::schema::{ColumnInfo, TableInfo, compare, create, quoted};
use crate::latest::{Answer, Found, LatestStore, Refusal, Shape, State, WholeRequest, isolate};

/// A ClickHouse server. Cheap to clone.
#[derive(Clone)]
pub struct ClickHouse {
    /// Inserts, compressed.
    client: Client,
    /// Reads answers of a few rows, which are not worth it.
    pub(super) reading: Client,
    pub(super) config: ClickHouseConfig,
}

impl std::fmt::Debug for ClickHouse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHouse").field("config", &self.config).finish_non_exhaustive()
    }
}

impl ClickHouse {
    /// A client, which connects when it is first used.
    pub fn new(config: ClickHouseConfig) -> Self {
        let mut client = Client::default()
            .with_url(&config.url)
            .with_database(&config.database)
            .with_user(&config.user)
            .with_compression(Compression::Lz4);
        if let Some(password) = &config.password {
            client = client.with_password(password.reveal());
        }
        let reading = client.clone().with_compression(Compression::None);
        Self { client, reading, config }
    }

    /// The table's name, quoted.
    pub(super) fn table(&self) -> String {
        quoted(&self.config.table)
    }

    /// How the table is found; `None` if there is none.
    async fn look(&self) -> Result<Option<State>> {
        let doing = "cannot look at the table";
        let ours = "database = currentDatabase() AND";
        let sql = format!("SELECT engine_full, partition_key, sorting_key FROM system.tables WHERE {ours} name = ?");
        let table = self.reading.query(&sql).bind(&self.config.table).fetch_optional::<TableInfo>().await;
        let Some(table) = table.map_err(|e| failed(doing, &e))? else { return Ok(None) };
        let sql = format!("SELECT name, type AS kind FROM system.columns WHERE {ours} table = ?");
        let columns = self.reading.query(&sql).bind(&self.config.table).fetch_all::<ColumnInfo>().await;
        Ok(Some(compare(&self.config, &table, &columns.map_err(|e| failed(doing, &e))?)))
    }
}

#[async_trait]
impl LatestStore for ClickHouse {
    fn name(&self) -> &str {
        "clickhouse"
    }

    /// Each insert makes a part on the server's disk, so few and large.
    fn shape(&self) -> Shape {
        Shape { posts: 50_000, bytes: 64 << 20, concurrency: 1, timeout: Duration::from_secs(60) }
    }

    async fn prepare(&self, make: bool) -> Result<Vec<Found>> {
        let what = format!("table {}.{}", self.config.database, self.config.table);
        let state = match self.look().await? {
            Some(state) => state,
            None if make => {
                let made = self.reading.query(&create(&self.config)).execute().await;
                made.map_err(|e| failed("cannot make the table", &e))?;
                State::Made
            }
            None => State::Missing,
        };
        Ok(vec![Found { what, state }])
    }

    async fn write(&self, posts: &[&ScoredPost]) -> Result<Vec<Answer>> {
        isolate(self, posts).await
    }
}

#[async_trait]
impl WholeRequest for ClickHouse {
    async fn send(&self, posts: &[&ScoredPost]) -> Result<(), Refusal> {
        let outcome = self.insert(posts).await;
        if outcome.is_err() {
            // The table may have been altered, and then what is known of its columns is wrong.
            self.client.clear_cached_metadata().await;
        }
        outcome.map_err(|error| refusal("cannot insert rows", &error))
    }
}

impl ClickHouse {
    async fn insert(&self, posts: &[&ScoredPost]) -> clickhouse::error::Result<()> {
        let mut insert = self.client.insert::<PostRow<'_>>(&self.config.table).await?;
        // A wild clock may bring a hundred months into one insert.
        insert = insert.with_setting("max_partitions_per_insert_block", "0").with_setting("async_insert", "0");
        for post in posts {
            insert.write(&PostRow::of(post)).await?;
        }
        insert.end().await
    }
}
