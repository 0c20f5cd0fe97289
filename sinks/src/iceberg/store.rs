//! The tables of one catalog, and who writes them.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iceberg::table::Table;
use iceberg::transaction::{AddColumn, ApplyTransactionAction, Transaction};
use iceberg::{Catalog, NamespaceIdent, TableIdent};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_proto::v1::ScoredPost;
use undertone_proto::{Event, EventTime};

use super::catalog::{CatalogConfig, SqliteConfig};
use super::commit::{Committer, Patience};
use super::failure::Doing;
use super::fence::Safeguards;
use super::history::{BronzeHistory, SilverHistory};
use super::position::{RUN_PREFIX, RunName};
use super::read::Reader;
use super::schema::TableDefinition;
use super::sink::IcebergSink;
use super::storage::{StorageConfig, TableStorage, is_within, local};
use super::tables::aggregate::Grain;
use super::tables::{bronze, gold, silver};

/// The mend for a catalog whose tables' files are missing: they are looked for where the folder once was.
const MOVED: &str = "if the data folder was moved, move it back";

/// Where the tables are listed, and where their files lie.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    /// Where they are listed.
    pub catalog: CatalogConfig,
    /// Where their files lie.
    pub storage: StorageConfig,
}

/// What became of a table, or how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableState {
    /// It was made.
    Made,
    /// It is there, and as it should be.
    There,
    /// It is not there.
    Missing,
}

/// An Iceberg catalog with our tables in it.
#[derive(Clone, Debug)]
pub struct IcebergStore {
    committer: Committer,
    /// Where tables must lie to be written; anywhere, if it is left out.
    storage: Option<TableStorage>,
    /// The folder that every table must lie in, if the catalog's tables are this data folder's own.
    warehouse: Option<PathBuf>,
}

impl StoreConfig {
    /// Everything in a data folder: a SQLite catalog, and files beside it.
    pub fn embedded(data: &Path) -> Self {
        let catalog = CatalogConfig::Sqlite(SqliteConfig { data: data.to_owned(), warehouse: None });
        Self { catalog, storage: StorageConfig::Local { root: data.to_owned() } }
    }

    /// Whether catalog or files are in the data folder, which is then one process's alone.
    pub fn uses_data(&self) -> bool {
        matches!(self.catalog, CatalogConfig::Sqlite(_))
    }

    /// What people call it: "REST at https://catalog.example".
    pub fn describe(&self) -> String {
        self.catalog.describe()
    }

    /// The folder of tables that belong to the catalog beside them.
    fn own_warehouse(&self) -> Result<Option<PathBuf>> {
        match (&self.catalog, &self.storage) {
            (CatalogConfig::Sqlite(SqliteConfig { data, warehouse: None }), StorageConfig::Local { .. }) => {
                let folder = data.canonicalize().context(ErrorKind::Unavailable, "cannot resolve the data folder")?;
                Ok(Some(folder.join("warehouse")))
            }
            _ => Ok(None),
        }
    }
}

impl IcebergStore {
    /// The store with all tables made, and its storage tried out. In a data folder, tables that lie elsewhere are
    /// refused: locations are absolute, so a copied folder's catalog names the original's files, and a commit would write
    /// among them.
    ///
    /// # Errors
    /// As [`IcebergStore::connect`], [`IcebergStore::create_tables`] and [`IcebergStore::try_storage`].
    pub async fn open(config: &StoreConfig) -> Result<Self> {
        let store = Self::connect(config).await?;
        store.create_tables().await?;
        store.try_storage().await?;
        Ok(store)
    }

    /// The store, whose tables are not looked at yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if the catalog refuses us or TLS cannot be set up; [`ErrorKind::Unavailable`] if the
    /// catalog does not answer.
    pub async fn connect(config: &StoreConfig) -> Result<Self> {
        let storage = TableStorage::open(&config.storage)?;
        let catalog = config.catalog.open(&storage).await?;
        let committer = Committer {
            catalog,
            safeguards: Safeguards::of_this_process(),
            patience: Patience::default(),
            drops_old_metadata: config.catalog.leaves_old_metadata(),
        };
        Ok(Self { committer, storage: Some(storage), warehouse: config.own_warehouse()? })
    }

    /// The store over any catalog, whose tables are not looked at yet and may lie anywhere.
    #[cfg(test)]
    pub(super) fn over(catalog: Arc<dyn Catalog>) -> Self {
        Self::with(catalog, Safeguards::of_this_process(), Patience::default())
    }

    /// Makes the tables that are absent, and adds the optional columns that those of an older version lack. Safe to run
    /// again, also by several processes at once. Says what became of each.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if a table exists and differs otherwise from what we would make, or lies where we
    /// cannot write: it is left as it is. [`ErrorKind::Unavailable`] if the catalog does not answer.
    pub async fn create_tables(&self) -> Result<Vec<(String, TableState)>> {
        self.each_table(true).await
    }

    /// Looks at the tables and makes none.
    ///
    /// # Errors
    /// As [`IcebergStore::create_tables`].
    pub async fn look_at_tables(&self) -> Result<Vec<(String, TableState)>> {
        self.each_table(false).await
    }

    async fn each_table(&self, make: bool) -> Result<Vec<(String, TableState)>> {
        let mut states = vec![self.ensure(&bronze::posts(), make).await?, self.ensure(&silver::posts(), make).await?];
        for grain in [Grain::Minute, Grain::Hour] {
            states.push(self.ensure(&gold::sentiment(grain).definition, make).await?);
            states.push(self.ensure(&gold::tags(grain).definition, make).await?);
        }
        Ok(states)
    }

    /// The names of all tables, in the order of the data flow.
    pub fn tables() -> Vec<TableIdent> {
        let mut tables = vec![bronze::posts().ident(), silver::posts().ident()];
        for grain in [Grain::Minute, Grain::Hour] {
            tables.push(gold::sentiment(grain).definition.ident());
            tables.push(gold::tags(grain).definition.ident());
        }
        tables
    }

    /// Writes a small file where Bronze lies and reads it back, if the files are in an object store. What is wrong with
    /// its keys is told here, and not by the first commit.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the table is not there; [`ErrorKind::InvalidConfig`] if the store refuses us;
    /// [`ErrorKind::Unavailable`] if it does not answer.
    pub async fn try_storage(&self) -> Result<()> {
        let Some(storage) = &self.storage else { return Ok(()) };
        let ident = bronze::posts().ident();
        // Asked for by itself: of a table that is not there to be loaded a REST catalog says only that it is waited for.
        if !self.has_table(&ident).await? {
            return Err(Error::new(ErrorKind::NotFound, "table is not there").with("table", &ident));
        }
        let table = self.load(&ident).await?;
        storage.try_out(table.metadata().location()).await
    }

    /// What people call the storage: "objects at https://minio.example (us-east-1)".
    pub fn describe_storage(&self) -> String {
        self.storage.as_ref().map(TableStorage::describe).unwrap_or_default()
    }

    /// The sink of `bronze.posts`.
    pub fn bronze(&self) -> IcebergSink<Event> {
        let table = bronze::posts();
        IcebergSink::new(table.ident(), table, self.committer.clone())
    }

    /// The sink of `silver.posts`.
    pub fn silver(&self) -> IcebergSink<ScoredPost> {
        let table = silver::posts();
        IcebergSink::new(table.ident(), table, self.committer.clone())
    }

    /// The sink of `gold.sentiment_1m` or `gold.sentiment_1h`.
    pub fn gold_sentiment(&self, grain: Grain) -> IcebergSink<ScoredPost> {
        let table = gold::sentiment(grain);
        IcebergSink::new(table.definition.ident(), table, self.committer.clone())
    }

    /// The sink of `gold.tags_1m` or `gold.tags_1h`.
    pub fn gold_tags(&self, grain: Grain) -> IcebergSink<ScoredPost> {
        let table = gold::tags(grain);
        IcebergSink::new(table.definition.ident(), table, self.committer.clone())
    }

    /// Bronze as it is now, of events that were ingested in `ingested`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the table cannot be read.
    pub async fn bronze_history(&self, ingested: Range<EventTime>) -> Result<BronzeHistory> {
        BronzeHistory::of(self.load(&bronze::posts().ident()).await?, ingested).await
    }

    /// The rows of a run in Silver, as they are now.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the table cannot be read.
    pub async fn silver_history(&self, run: &RunName) -> Result<SilverHistory> {
        SilverHistory::of(self.load(&silver::posts().ident()).await?, run.clone())
    }

    /// Writes down in Silver what a run is, or sees that it is the same: a run that is gone on with must not end as
    /// another than it began.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if it was begun as another; [`ErrorKind::Unavailable`] if the table does not answer.
    pub async fn define_run(&self, run: &RunName, definition: &str) -> Result<()> {
        let (ident, key) = (silver::posts().ident(), format!("{RUN_PREFIX}{}.definition", run.as_str()));
        let table = self.load(&ident).await?;
        let mut found = table.metadata().properties().get(&key).cloned();
        if found.is_none() {
            let transaction = Transaction::new(&table);
            let set = transaction.update_table_properties().set(key.clone(), definition.to_owned());
            let transaction = set.apply(transaction).doing("cannot write down a run")?;
            // Whatever is answered, what counts is what the table says.
            let answer = transaction.commit(self.committer.catalog.as_ref()).await.doing("cannot write down a run");
            found = self.load(&ident).await?.metadata().properties().get(&key).cloned();
            if found.is_none() {
                return Err(answer
                    .err()
                    .unwrap_or_else(|| Error::new(ErrorKind::Unavailable, "run was not written down")));
            }
        }
        match found {
            Some(found) if found != definition => {
                let error = Error::new(ErrorKind::InvalidInput, "run was begun as another").with("run", run.as_str());
                let error = error.with("begun", found).with("asked", definition);
                Err(error.help("ask for the same again, or give the run another name"))
            }
            _ => Ok(()),
        }
    }

    /// Reads the tables.
    pub fn reader(&self) -> Reader {
        Reader::new(self.catalog())
    }

    /// The store with its safeguards and patience chosen, for tests that show what each is for.
    #[cfg(test)]
    pub(super) fn with(catalog: Arc<dyn Catalog>, safeguards: Safeguards, patience: Patience) -> Self {
        let committer = Committer { catalog, safeguards, patience, drops_old_metadata: true };
        Self { committer, storage: None, warehouse: None }
    }

    async fn ensure<R>(&self, wanted: &TableDefinition<R>, make: bool) -> Result<(String, TableState)> {
        let catalog = &self.committer.catalog;
        let (namespace, ident) = (wanted.namespace_ident(), wanted.ident());
        let named = |error: Error| error.with("table", &ident);
        let name = format!("{}.{}", wanted.namespace, wanted.name);
        if !make && !self.has_table(&ident).await.map_err(named)? {
            return Ok((name, TableState::Missing));
        }
        let mut state = TableState::There;
        // Another process may make them in the same moment, and a SQL catalog then answers with some error of its
        // database: what counts is whether they are there afterwards.
        if !self.has_namespace(&namespace).await.map_err(named)? {
            let made = catalog.create_namespace(&namespace, HashMap::new()).await.doing("cannot make a namespace");
            if let Err(error) = made
                && !self.has_namespace(&namespace).await.map_err(named)?
            {
                return Err(named(error));
            }
        }
        if !self.has_table(&ident).await.map_err(named)? {
            match catalog.create_table(&namespace, wanted.creation()?).await.doing("cannot make a table") {
                Ok(_) => {
                    tracing::info!(table = %ident, "table made");
                    state = TableState::Made;
                }
                Err(_) if self.has_table(&ident).await.map_err(named)? => {}
                Err(error) => return Err(named(error)),
            }
        }
        let mut table = self.load(&ident).await.map_err(named)?;
        let additions = wanted.additions(table.metadata())?;
        let lacks_columns = !additions.is_empty();
        if make && lacks_columns {
            // Another process may add them in the same moment: here, too, it counts what is there afterwards.
            let added = add_columns(&table, additions, catalog.as_ref()).await;
            table = self.load(&ident).await.map_err(named)?;
            match added {
                Ok(()) => tracing::info!(table = %ident, "columns added that are new in this version"),
                Err(_) if wanted.differences(table.metadata())?.is_empty() => {}
                Err(error) => return Err(named(error)),
            }
        }
        let differences = wanted.differences(table.metadata())?;
        // What only lacks what a later version adds is as it should be: it is added before anything is written.
        if differences.is_empty() || (!make && lacks_columns) {
            return Ok((name, state));
        }
        let error = Error::new(ErrorKind::InvalidConfig, "table differs from the one that is written");
        Err(named(error).with("differences", differences.join("; ")).help("move the table away, or alter it to match"))
    }

    /// The table, if it lies where it may.
    pub(super) async fn load(&self, ident: &TableIdent) -> Result<Table> {
        let table = self.committer.catalog.load_table(ident).await.doing("cannot load table");
        let table = match &self.warehouse {
            Some(warehouse) => own(table.map_err(|error| error.help(MOVED))?, warehouse)?,
            None => table?,
        };
        if let Some(storage) = &self.storage {
            storage.admits(table.metadata().location())?;
        }
        Ok(table)
    }

    pub(super) fn catalog(&self) -> Arc<dyn Catalog> {
        Arc::clone(&self.committer.catalog)
    }

    pub(super) fn storage(&self) -> Option<&TableStorage> {
        self.storage.as_ref()
    }

    pub(super) fn patience(&self) -> Patience {
        self.committer.patience
    }

    pub(super) fn drops_old_metadata(&self) -> bool {
        self.committer.drops_old_metadata
    }

    async fn has_namespace(&self, namespace: &NamespaceIdent) -> Result<bool> {
        self.committer.catalog.namespace_exists(namespace).await.doing("cannot look for a namespace")
    }

    async fn has_table(&self, table: &TableIdent) -> Result<bool> {
        self.committer.catalog.table_exists(table).await.doing("cannot look for a table")
    }
}

async fn add_columns(table: &Table, columns: Vec<AddColumn>, catalog: &dyn Catalog) -> Result<()> {
    let transaction = Transaction::new(table);
    let update = columns.into_iter().fold(transaction.update_schema(), |update, column| update.add_column(column));
    let transaction = update.apply(transaction).doing("cannot add columns")?;
    transaction.commit(catalog).await.doing("cannot add columns").map(|_| ())
}

/// The table, if it lies in this warehouse.
fn own(table: Table, warehouse: &Path) -> Result<Table> {
    let location = local(table.metadata().location());
    if is_within(&location, warehouse) {
        return Ok(table);
    }
    Err(Error::new(ErrorKind::InvalidConfig, "table lies outside this data folder")
        .with("location", location.display())
        .with("warehouse", warehouse.display())
        .help("the folder was copied or moved; move it back, or start with an empty one and read its input again"))
}
