//! Tables are made once, pinned column by column, and reported when they differ.

use iceberg::transaction::{ApplyTransactionAction, Transaction};
use undertone_error::ErrorKind;

use super::*;
use crate::iceberg::schema::TableDefinition;
use crate::iceberg::tables::aggregate::Grain;
use crate::iceberg::tables::{bronze, gold, silver};

async fn matches<R>(home: &Home, wanted: &TableDefinition<R>) {
    let table = home.table(wanted.namespace, wanted.name).await;
    let metadata = table.metadata();
    assert_eq!(wanted.differences(metadata).unwrap(), Vec::<String>::new());
    // The catalog gave the ids that the definition says, so a definition is enough to know them.
    let creation = wanted.creation().unwrap();
    assert_eq!(metadata.current_schema().as_struct(), creation.schema.as_struct());
    assert!(metadata.current_schema().as_struct().fields().iter().all(|field| field.doc.is_some()));
    assert!(!metadata.default_sort_order().is_unsorted());
}

#[tokio::test]
async fn tables_are_made_as_defined_and_making_them_again_changes_nothing() {
    let home = Home::new().await;
    let before = home.table("silver", "posts").await.metadata_location().unwrap().to_owned();
    home.store().create_tables().await.unwrap();
    assert_eq!(home.table("silver", "posts").await.metadata_location().unwrap(), before);
    matches(&home, &bronze::posts()).await;
    matches(&home, &silver::posts()).await;
    for grain in [Grain::Minute, Grain::Hour] {
        matches(&home, &gold::sentiment(grain).definition).await;
        matches(&home, &gold::tags(grain).definition).await;
    }
}

#[tokio::test]
async fn two_processes_may_make_the_tables_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (open_embedded(folder.path()).await.unwrap(), open_embedded(folder.path()).await.unwrap());
    let (a, b) = (IcebergStore::over(a), IcebergStore::over(b));
    let (first, second) = tokio::join!(a.create_tables(), b.create_tables());
    first.unwrap();
    second.unwrap();
}

/// What `cp -a` does.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            std::fs::copy(path, copied).unwrap();
        }
    }
}

#[tokio::test]
async fn a_copied_or_moved_data_folder_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let root = home.path().canonicalize().unwrap();
    let (original, copied, moved) = (root.join("d"), root.join("d1"), root.join("d2"));
    drop(IcebergStore::open(&StoreConfig::embedded(&original)).await.unwrap());
    copy(&original, &copied);
    let error = IcebergStore::open(&StoreConfig::embedded(&copied)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    for path in [original.join("warehouse/bronze/posts"), copied.join("warehouse")] {
        assert!(error.to_string().contains(&format!(": {}", path.display())), "{error}");
    }
    assert!(error.mend().unwrap().contains("copied or moved"));
    // A table anywhere is fine for a catalog that is not the folder's own.
    IcebergStore::over(open_embedded(&copied).await.unwrap()).create_tables().await.unwrap();

    IcebergStore::open(&StoreConfig::embedded(&original.join("../d"))).await.unwrap();
    std::fs::rename(&original, &moved).unwrap();
    let error = IcebergStore::open(&StoreConfig::embedded(&moved)).await.unwrap_err();
    assert!(error.to_string().contains("was moved, move it back"), "{error}");
}

#[tokio::test]
async fn a_table_that_differs_is_reported_and_left_as_it_is() {
    let home = Home::new().await;
    let table = home.table("bronze", "posts").await;
    let creation = gold::tags(Grain::Minute).definition.creation().unwrap();
    home.catalog.drop_table(table.identifier()).await.unwrap();
    let foreign = iceberg::TableCreation { name: "posts".to_owned(), ..creation };
    home.catalog.create_table(table.identifier().namespace(), foreign).await.unwrap();

    let error = home.store().create_tables().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    for wanted in
        ["bronze", "missing column payload: binary required", "foreign column tag: string required", "partitioned by"]
    {
        assert!(error.to_string().contains(wanted), "{error} should say: {wanted}");
    }
    let left = home.table("bronze", "posts").await;
    assert!(left.metadata().current_schema().field_by_name("tag").is_some());
}

/// The table as a version made it that knew fewer columns.
async fn made_without_last_column(home: &Home) -> iceberg::TableIdent {
    let mut older = silver::posts();
    older.columns.pop().unwrap();
    home.catalog.drop_table(&older.ident()).await.unwrap();
    home.catalog.create_table(&older.namespace_ident(), older.creation().unwrap()).await.unwrap();
    older.ident()
}

#[tokio::test]
async fn a_table_of_an_older_version_gets_the_new_columns_and_keeps_its_rows() {
    let home = Home::new().await;
    let ident = made_without_last_column(&home).await;
    let ids = |table: &iceberg::table::Table| -> Vec<(String, i32)> {
        let schema = table.metadata().current_schema();
        schema.as_struct().fields().iter().map(|field| (field.name.clone(), field.id)).collect()
    };
    let before = home.catalog.load_table(&ident).await.unwrap();
    home.store().create_tables().await.unwrap();
    let after = home.catalog.load_table(&ident).await.unwrap();
    assert_eq!(silver::posts().differences(after.metadata()).unwrap(), Vec::<String>::new());
    let (before, ids) = (ids(&before), ids(&after));
    assert_eq!(ids[..before.len()], before);
    assert_eq!(ids[before.len()].0, "in_domain");
    assert!(after.metadata().current_schema().field_by_name("in_domain").unwrap().doc.is_some());
    let location = after.metadata_location().unwrap().to_owned();
    home.store().create_tables().await.unwrap();
    assert_eq!(home.catalog.load_table(&ident).await.unwrap().metadata_location().unwrap(), location);
}

#[tokio::test]
async fn two_processes_may_add_the_columns_at_once() {
    let home = Home::new().await;
    let ident = made_without_last_column(&home).await;
    let (a, b) = (home.store(), home.store());
    let (first, second) = tokio::join!(a.create_tables(), b.create_tables());
    first.unwrap();
    second.unwrap();
    let table = home.catalog.load_table(&ident).await.unwrap();
    assert_eq!(silver::posts().differences(table.metadata()).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn properties_that_a_person_sets_are_kept() {
    let home = Home::new().await;
    let table = home.table("bronze", "posts").await;
    let transaction = Transaction::new(&table);
    let set = transaction.update_table_properties().set("owner".to_owned(), "ann".to_owned());
    set.apply(transaction).unwrap().commit(home.catalog.as_ref()).await.unwrap();
    home.bronze().write(&epoch(0, 0, 3)).await.unwrap();
    let table = home.table("bronze", "posts").await;
    assert_eq!(table.metadata().properties().get("owner").map(String::as_str), Some("ann"));
}
