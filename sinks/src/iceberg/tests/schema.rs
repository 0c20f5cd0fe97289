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
