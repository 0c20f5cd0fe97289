//! The embedded catalog: one SQLite file in Iceberg's JDBC schema, so that PyIceberg, Spark or Trino can open it beside
//! us.
//!
//! A commit survives the process and a power cut: the file is in WAL mode with `synchronous=FULL` (SQLite's default,
//! which every connection of the pool has), writers wait for one another instead of failing, and every file that a
//! commit refers to is made durable by the [storage](crate::iceberg::storage) before the pointer moves. Locations are
//! absolute URIs, so that tables read the same from any working directory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use iceberg::table::Table;
use iceberg::{Catalog, CatalogBuilder, TableCommit, TableIdent};
use iceberg_catalog_sql::{
    SQL_CATALOG_PROP_BIND_STYLE, SQL_CATALOG_PROP_URI, SQL_CATALOG_PROP_WAREHOUSE, SqlBindStyle, SqlCatalog,
    SqlCatalogBuilder,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::RwLock;
use undertone_error::{Error, ErrorKind, Result};

use crate::iceberg::failure::Doing;
use crate::iceberg::intercept::{Intercept, Intercepted};
use crate::iceberg::storage::{TableStorage, create_dir_durably};

/// The catalog's name, which is part of every row of its tables: readers must use it too.
pub const CATALOG_NAME: &str = "undertone";

/// How long a connection waits for another's write transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the embedded catalog must be told.
#[derive(Clone, Debug, PartialEq)]
pub struct SqliteConfig {
    /// The folder in which `catalog.db` is made.
    pub data: PathBuf,
    /// Where tables are made, without a slash at its end; left out: `<data>/warehouse`.
    pub warehouse: Option<String>,
}

/// Opens `<data>/catalog.db`, making it and the folder of its tables if they are absent.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] if the path cannot stand in a URI; [`ErrorKind::Unavailable`] if the folder or the
/// database cannot be made or opened.
pub(super) async fn open(config: &SqliteConfig, storage: &TableStorage) -> Result<Arc<dyn Catalog>> {
    let data = &config.data;
    let unusable = |message: &str| Error::new(ErrorKind::Unavailable, message).with("path", data.display());
    let folder = if config.warehouse.is_some() { data.clone() } else { data.join("warehouse") };
    create_dir_durably(&folder).map_err(|e| unusable("cannot make the warehouse folder").source(e))?;
    let data = data.canonicalize().map_err(|e| unusable("cannot resolve the data folder").source(e))?;
    let path = uri_path(&data)?;

    let file = data.join("catalog.db");
    let located = |error: Error| error.with("path", file.display()).help("is it a SQLite file, and is the disk full?");
    let options = SqliteConnectOptions::new()
        .filename(&file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT);
    // The mode is kept by the file itself, so the pool that the catalog opens below finds it.
    let connection = options.connect().await.map_err(|e| located(failed("cannot open the catalog database", &e)))?;
    connection.close().await.map_err(|e| located(failed("cannot close the catalog database", &e)))?;

    let warehouse = config.warehouse.clone().unwrap_or_else(|| format!("file://{path}/warehouse"));
    let properties = HashMap::from([
        (SQL_CATALOG_PROP_URI.to_owned(), format!("sqlite://{path}/catalog.db")),
        (SQL_CATALOG_PROP_WAREHOUSE.to_owned(), warehouse),
        (SQL_CATALOG_PROP_BIND_STYLE.to_owned(), SqlBindStyle::QMark.to_string()),
    ]);
    let open = Open { properties, storage: storage.clone() };
    let doing = "cannot open the catalog";
    let catalog = Arc::new(open.pool().await.doing(doing).map_err(located)?);
    let pool = RwLock::new(Arc::new(open.pool().await.doing(doing).map_err(located)?));
    Ok(Arc::new(Intercepted { catalog, by: Clean { file, open, pool } }))
}

/// How the catalog of the `iceberg` crates is opened, with connections of its own.
#[derive(Debug)]
struct Open {
    properties: HashMap<String, String>,
    storage: TableStorage,
}

impl Open {
    async fn pool(&self) -> iceberg::Result<SqlCatalog> {
        let builder = SqlCatalogBuilder::default().with_storage_factory(self.storage.factory());
        builder.load(CATALOG_NAME, self.properties.clone()).await
    }
}

/// Loads and commits tables on connections without unfinished business.
///
/// `iceberg-catalog-sql` 0.10.1 drops the error of its `COMMIT`. The connection goes back to the pool with its
/// transaction open: it keeps everybody else from writing, and who reads by it sees what was never committed. So a commit
/// is believed only if a connection of our own sees it, and after any other the pool is replaced, which ends its
/// transactions.
#[derive(Debug)]
struct Clean {
    file: PathBuf,
    open: Open,
    pool: RwLock<Arc<SqlCatalog>>,
}

impl Clean {
    async fn pool(&self) -> Arc<SqlCatalog> {
        Arc::clone(&*self.pool.read().await)
    }

    /// The metadata file of a table, as everybody sees it.
    async fn location(&self, table: &TableIdent) -> sqlx::Result<Option<String>> {
        let options = SqliteConnectOptions::new().filename(&self.file).busy_timeout(BUSY_TIMEOUT);
        let mut connection = options.connect().await?;
        let select = "SELECT metadata_location FROM iceberg_tables \
            WHERE catalog_name = ? AND table_namespace = ? AND table_name = ?";
        let query = sqlx::query_scalar(select).bind(CATALOG_NAME).bind(table.namespace().join("."));
        let location = query.bind(table.name()).fetch_optional(&mut connection).await;
        connection.close().await?;
        location
    }
}

#[async_trait]
impl Intercept for Clean {
    async fn load_table(&self, _: &dyn Catalog, table: &TableIdent) -> iceberg::Result<Table> {
        self.pool().await.load_table(table).await
    }

    async fn update_table(&self, _: &dyn Catalog, commit: TableCommit) -> iceberg::Result<Table> {
        let ident = commit.identifier().clone();
        let answered = self.pool().await.update_table(commit).await;
        let wrong = match &answered {
            Ok(table) => match self.location(&ident).await {
                Ok(found) if found.as_deref() == table.metadata_location() => None,
                Ok(_) => Some("the catalog's database did not take the commit; is the disk full?".to_owned()),
                Err(error) => Some(format!("cannot read what the catalog's database took: {error}")),
            },
            Err(error) if error.kind() == iceberg::ErrorKind::CatalogCommitConflicts => None,
            // Its own error says what.
            Err(_) => Some(String::new()),
        };
        let Some(wrong) = wrong else { return answered };
        *self.pool.write().await = Arc::new(self.open.pool().await?);
        answered.and_then(|_| Err(iceberg::Error::new(iceberg::ErrorKind::Unexpected, wrong)))
    }
}

/// The catalog of a data folder with its tables in it.
#[cfg(test)]
pub(in crate::iceberg) async fn open_embedded(data: &Path) -> Result<Arc<dyn Catalog>> {
    use crate::iceberg::storage::StorageConfig;
    let storage = TableStorage::open(&StorageConfig::Local { root: data.to_owned() })?;
    open(&SqliteConfig { data: data.to_owned(), warehouse: None }, &storage).await
}

/// The error's text holds the texts of its causes, which would be printed again if they were kept as causes.
fn failed(doing: &str, error: &sqlx::Error) -> Error {
    Error::new(ErrorKind::Unavailable, doing).source(error.to_string())
}

/// The path as it stands in `sqlite://` and `file://` URIs. Readers disagree on what is escaped in them, so a path that
/// would need it is refused.
fn uri_path(data: &Path) -> Result<&str> {
    match data.to_str() {
        Some(path) if !path.contains(['?', '#', '%']) => Ok(path),
        _ => Err(Error::new(ErrorKind::InvalidConfig, "data folder's path cannot stand in a table's location")
            .with("path", data.display())
            .help("choose a path in UTF-8 without '?', '#' and '%'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_readers_would_unescape_differently_are_refused() {
        assert!(uri_path(Path::new("/srv/my data/ü")).is_ok());
        for path in ["/srv/50%", "/srv/a?b", "/srv/a#b"] {
            assert_eq!(uri_path(Path::new(path)).expect_err(path).kind(), ErrorKind::InvalidConfig);
        }
    }

    #[tokio::test]
    async fn the_catalog_is_in_wal_mode_and_can_be_opened_twice() {
        let data = tempfile::tempdir().expect("a folder");
        let first = open_embedded(&data.path().join("made/on demand")).await.expect("opened");
        let second = open_embedded(&data.path().join("made/on demand")).await.expect("opened again");
        assert!(first.list_namespaces(None).await.expect("it answers").is_empty());
        drop(second);

        let file = data.path().join("made/on demand/catalog.db");
        let mut connection = SqliteConnectOptions::new().filename(file).connect().await.expect("it is SQLite");
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await.expect("a mode");
        assert_eq!(mode, "wal");
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_named_with_its_cause_once() {
        let data = tempfile::tempdir().expect("a folder");
        let file = data.path().canonicalize().expect("a path").join("catalog.db");
        std::fs::write(&file, "not a database, ".repeat(100)).expect("written");
        let error = open_embedded(data.path()).await.expect_err("it is no database");
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(text.contains(&file.display().to_string()) && text.contains("is it a SQLite file"), "{text}");
        assert_eq!(text.matches("file is not a database").count(), 1, "{text}");
    }

    #[tokio::test]
    async fn tables_write_through_the_durable_storage() {
        let data = tempfile::tempdir().expect("a folder");
        let catalog = open_embedded(data.path()).await.expect("opened");
        let table = crate::iceberg::tables::bronze::posts();
        catalog.create_namespace(&table.namespace_ident(), HashMap::new()).await.expect("a namespace");
        let creation = table.creation().expect("a definition");
        let made = catalog.create_table(&table.namespace_ident(), creation).await.expect("a table");
        let loaded = catalog.load_table(&table.ident()).await.expect("the table");
        for table in [made, loaded] {
            let files = format!("{:?}", table.file_io());
            assert!(files.contains("factory: DurableFsStorage"), "{files}");
        }
    }
}
