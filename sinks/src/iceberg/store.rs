//! The tables of one catalog, and who writes them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use iceberg::table::Table;
use iceberg::transaction::{AddColumn, ApplyTransactionAction, Transaction};
use iceberg::{Catalog, NamespaceIdent, TableIdent};
use undertone_error::{Context, Error, ErrorKind, Result};
use undertone_proto::Event;
use undertone_proto::v1::ScoredPost;

use super::catalog::open_embedded;
use super::commit::{Committer, Patience};
use super::failure::Doing;
use super::fence::Safeguards;
use super::read::Reader;
use super::schema::TableDefinition;
use super::sink::IcebergSink;
use super::storage::{is_within, local};
use super::tables::aggregate::Grain;
use super::tables::{bronze, gold, silver};

/// The mend for a catalog whose tables' files are missing: they are looked for where the folder once was.
const MOVED: &str = "if the data folder was moved, move it back";

/// An Iceberg catalog with our tables in it.
#[derive(Clone, Debug)]
pub struct IcebergStore {
    committer: Committer,
    /// The folder that every table must lie in, if the catalog's tables are this data folder's own.
    warehouse: Option<PathBuf>,
}

impl IcebergStore {
    /// The embedded store under a data folder (see [`open_embedded`]), with all tables made. Tables that lie elsewhere
    /// are refused: locations are absolute, so a copied folder's catalog names the original's files, and a commit would
    /// write among them.
    ///
    /// # Errors
    /// As [`open_embedded`] and [`IcebergStore::create_tables`]; [`ErrorKind::InvalidConfig`] if the folder is a copy.
    pub async fn open(data: &Path) -> Result<Self> {
        let catalog = open_embedded(data).await?;
        let folder = data.canonicalize().context(ErrorKind::Unavailable, "cannot resolve the data folder")?;
        let store = Self { warehouse: Some(folder.join("warehouse")), ..Self::over(catalog) };
        store.create_tables().await?;
        Ok(store)
    }

    /// The store over any catalog, whose tables are not looked at yet and may lie anywhere.
    pub fn over(catalog: Arc<dyn Catalog>) -> Self {
        Self {
            committer: Committer { catalog, safeguards: Safeguards::of_this_process(), patience: Patience::default() },
            warehouse: None,
        }
    }

    /// Makes the tables that are absent, and adds the optional columns that those of an older version lack. Safe to run
    /// again, also by several processes at once.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] if a table exists and differs otherwise from what we would make: it is left as it is.
    /// [`ErrorKind::Unavailable`] if the catalog does not answer.
    pub async fn create_tables(&self) -> Result<()> {
        self.ensure(&bronze::posts()).await?;
        self.ensure(&silver::posts()).await?;
        for grain in [Grain::Minute, Grain::Hour] {
            self.ensure(&gold::sentiment(grain).definition).await?;
            self.ensure(&gold::tags(grain).definition).await?;
        }
        Ok(())
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

    /// Reads the tables.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.committer.catalog))
    }

    /// The store with its safeguards and patience chosen, for tests that show what each is for.
    #[cfg(test)]
    pub(super) fn with(catalog: Arc<dyn Catalog>, safeguards: Safeguards, patience: Patience) -> Self {
        Self { committer: Committer { catalog, safeguards, patience }, warehouse: None }
    }

    async fn ensure<R>(&self, wanted: &TableDefinition<R>) -> Result<()> {
        let catalog = &self.committer.catalog;
        let (namespace, ident) = (wanted.namespace_ident(), wanted.ident());
        let named = |error: Error| error.with("table", &ident);
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
                Ok(_) => tracing::info!(table = %ident, "table made"),
                Err(_) if self.has_table(&ident).await.map_err(named)? => {}
                Err(error) => return Err(named(error)),
            }
        }
        let mut table = self.load(&ident).await.map_err(named)?;
        let additions = wanted.additions(table.metadata())?;
        if !additions.is_empty() {
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
        if differences.is_empty() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::InvalidConfig, "table differs from the one that is written");
        Err(named(error).with("differences", differences.join("; ")).help("move the table away, or alter it to match"))
    }

    /// The table, if it lies where it may.
    async fn load(&self, ident: &TableIdent) -> Result<Table> {
        let table = self.committer.catalog.load_table(ident).await.doing("cannot load table");
        match &self.warehouse {
            Some(warehouse) => own(table.map_err(|error| error.help(MOVED))?, warehouse),
            None => table,
        }
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
