//! A catalog with something in front of its two calls that a commit makes; every other call passes through.
//!
//! A transaction's own rebase happens inside the `iceberg` crate and cannot be extended, but it asks its catalog for
//! the freshest metadata first. Standing there is the one way to look at exactly the metadata that the commit is based
//! on.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use iceberg::table::Table;
use iceberg::{Catalog, Namespace, NamespaceIdent, Result, TableCommit, TableCreation, TableIdent};

/// What stands in front of a catalog.
#[async_trait]
pub(super) trait Intercept: Debug + Send + Sync {
    /// Answers in place of `catalog.load_table(table)`.
    async fn load_table(&self, catalog: &dyn Catalog, table: &TableIdent) -> Result<Table> {
        catalog.load_table(table).await
    }

    /// Answers in place of `catalog.update_table(commit)`.
    async fn update_table(&self, catalog: &dyn Catalog, commit: TableCommit) -> Result<Table> {
        catalog.update_table(commit).await
    }
}

/// The catalog with the interceptor in front.
#[derive(Debug)]
pub(super) struct Intercepted<I> {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) by: I,
}

#[async_trait]
impl<I: Intercept> Catalog for Intercepted<I> {
    async fn load_table(&self, table: &TableIdent) -> Result<Table> {
        self.by.load_table(self.catalog.as_ref(), table).await
    }

    async fn update_table(&self, commit: TableCommit) -> Result<Table> {
        self.by.update_table(self.catalog.as_ref(), commit).await
    }

    async fn list_namespaces(&self, parent: Option<&NamespaceIdent>) -> Result<Vec<NamespaceIdent>> {
        self.catalog.list_namespaces(parent).await
    }

    async fn create_namespace(&self, name: &NamespaceIdent, properties: HashMap<String, String>) -> Result<Namespace> {
        self.catalog.create_namespace(name, properties).await
    }

    async fn get_namespace(&self, name: &NamespaceIdent) -> Result<Namespace> {
        self.catalog.get_namespace(name).await
    }

    async fn namespace_exists(&self, name: &NamespaceIdent) -> Result<bool> {
        self.catalog.namespace_exists(name).await
    }

    async fn update_namespace(&self, name: &NamespaceIdent, properties: HashMap<String, String>) -> Result<()> {
        self.catalog.update_namespace(name, properties).await
    }

    async fn drop_namespace(&self, name: &NamespaceIdent) -> Result<()> {
        self.catalog.drop_namespace(name).await
    }

    async fn list_tables(&self, namespace: &NamespaceIdent) -> Result<Vec<TableIdent>> {
        self.catalog.list_tables(namespace).await
    }

    async fn create_table(&self, namespace: &NamespaceIdent, creation: TableCreation) -> Result<Table> {
        self.catalog.create_table(namespace, creation).await
    }

    async fn drop_table(&self, table: &TableIdent) -> Result<()> {
        self.catalog.drop_table(table).await
    }

    async fn purge_table(&self, table: &TableIdent) -> Result<()> {
        self.catalog.purge_table(table).await
    }

    async fn table_exists(&self, table: &TableIdent) -> Result<bool> {
        self.catalog.table_exists(table).await
    }

    async fn rename_table(&self, from: &TableIdent, to: &TableIdent) -> Result<()> {
        self.catalog.rename_table(from, to).await
    }

    async fn register_table(&self, table: &TableIdent, metadata_location: String) -> Result<Table> {
        self.catalog.register_table(table, metadata_location).await
    }
}
