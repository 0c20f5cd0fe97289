//! Tables as they are meant to be, made where they are absent and compared where they are not.
//!
//! A table of an older version gets the optional columns that were added since; its rows have null there. Nothing else
//! of an existing table is altered: one that differs is reported with every difference, since a person has to decide
//! what becomes of its rows. Field ids are the table's own; we name columns.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::Write;

use iceberg::spec::{
    ListType, MapType, NestedField, NullOrder, PrimitiveType, Schema, SortDirection, SortField, SortOrder, StructType,
    TableMetadata, Transform, Type, UnboundPartitionSpec,
};
use iceberg::transaction::AddColumn;
use iceberg::{NamespaceIdent, TableCreation, TableIdent};
use undertone_error::{Error, ErrorKind, Result};

use super::columns::Fill;
use super::failure::Doing;

/// Java's, PyIceberg's and our own property: remove metadata files that have left the metadata log.
pub(super) const DELETE_OLD_METADATA: &str = "write.metadata.delete-after-commit.enabled";

/// What a new table is told about its files. Commits come every half minute, so old metadata must go at once; a file of
/// 128 MiB is what readers like, and few epochs reach it.
const PROPERTIES: [(&str, &str); 9] = [
    ("write.format.default", "parquet"),
    ("write.parquet.compression-codec", "zstd"),
    ("write.target-file-size-bytes", "134217728"),
    (DELETE_OLD_METADATA, "true"),
    ("write.metadata.previous-versions-max", "20"),
    ("commit.retry.num-retries", "10"),
    ("commit.retry.min-wait-ms", "20"),
    ("commit.retry.max-wait-ms", "1000"),
    ("commit.retry.total-timeout-ms", "30000"),
];

/// A table whose rows are made from values of type `R`.
#[derive(Debug)]
pub(super) struct TableDefinition<R> {
    /// "silver"
    pub(super) namespace: &'static str,
    /// "posts"
    pub(super) name: &'static str,
    /// What a row is.
    pub(super) comment: &'static str,
    /// New columns go to the end, and are optional.
    pub(super) columns: Vec<Column<R>>,
    /// (partition field, source column, transform)
    pub(super) partitioned_by: Vec<(&'static str, &'static str, Transform)>,
    /// The columns by which rows are sorted inside files, ascending.
    pub(super) sorted_by: &'static [&'static str],
    /// The same order on the values.
    pub(super) order: fn(&R, &R) -> Ordering,
}

/// A column, and what fills it.
#[derive(Debug)]
pub(super) struct Column<R> {
    pub(super) name: &'static str,
    pub(super) fill: Fill<R>,
    required: bool,
    doc: &'static str,
}

/// The type of a column. Elements and values are never null.
pub(super) enum Kind {
    One(PrimitiveType),
    List(PrimitiveType),
    /// A list of structs: name, type, and whether it is never null.
    Records(Vec<(&'static str, PrimitiveType, bool)>),
    /// From strings.
    Map(Box<Kind>),
}

/// A column that every row has.
pub(super) fn required<R>(name: &'static str, fill: Fill<R>, doc: &'static str) -> Column<R> {
    Column { name, fill, required: true, doc }
}

/// A column that may be null.
pub(super) fn optional<R>(name: &'static str, fill: Fill<R>, doc: &'static str) -> Column<R> {
    Column { name, fill, required: false, doc }
}

impl<R> TableDefinition<R> {
    pub(super) fn ident(&self) -> TableIdent {
        TableIdent::new(self.namespace_ident(), self.name.to_owned())
    }

    pub(super) fn namespace_ident(&self) -> NamespaceIdent {
        NamespaceIdent::new(self.namespace.to_owned())
    }

    /// What a catalog needs to make the table.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] wrapping what `iceberg` says, if the definition contradicts itself.
    pub(super) fn creation(&self) -> Result<TableCreation> {
        let schema = self.schema()?;
        let id = |column: &str| {
            let missing =
                || Error::new(ErrorKind::Internal, "table definition names no such column").with("column", column);
            schema.field_id_by_name(column).ok_or_else(missing)
        };
        // Apache's REST server takes no specification without an id.
        let mut partition = UnboundPartitionSpec::builder().with_spec_id(0);
        for &(field, column, transform) in &self.partitioned_by {
            partition =
                partition.add_partition_field(id(column)?, field, transform).doing("cannot define partitions")?;
        }
        let mut order = SortOrder::builder();
        for column in self.sorted_by {
            order.with_sort_field(SortField {
                source_id: id(column)?,
                transform: Transform::Identity,
                direction: SortDirection::Ascending,
                null_order: NullOrder::First,
            });
        }
        let order = order.build(&schema).doing("cannot define a sort order")?;
        let properties = PROPERTIES.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
        Ok(TableCreation::builder()
            .name(self.name.to_owned())
            .schema(schema)
            .partition_spec(partition.build())
            .sort_order(order)
            .properties(properties.chain([("comment".to_owned(), self.comment.to_owned())]).collect::<HashMap<_, _>>())
            .build())
    }

    /// Ids are given as catalogs give them to a new table: columns first, then what is inside them.
    fn schema(&self) -> Result<Schema> {
        let mut inner = (1..).skip(self.columns.len());
        let fields = (1..).zip(&self.columns).map(|(id, column)| {
            NestedField::new(id, column.name, column.fill.kind().to_type(&mut inner), column.required)
                .with_doc(column.doc)
                .into()
        });
        Schema::builder().with_fields(fields.collect::<Vec<_>>()).build().doing("cannot define a schema")
    }

    /// The columns that a table of an older version lacks: optional ones at the end. None if it differs in other ways.
    pub(super) fn additions(&self, metadata: &TableMetadata) -> Result<Vec<AddColumn>> {
        let (wanted, found) = (self.schema()?, metadata.current_schema());
        let (wanted, found) = (wanted.as_struct().fields(), found.as_struct().fields());
        let alike = wanted.iter().zip(found).all(|(wanted, found)| describe(wanted) == describe(found));
        let new = wanted.get(found.len()..).unwrap_or_default();
        if !alike || new.iter().any(|column| column.required) {
            return Ok(Vec::new());
        }
        let column = AddColumn::builder;
        let add = |new: &NestedField| {
            column()
                .name(&new.name)
                .field_type((*new.field_type).clone())
                .doc(new.doc.clone().unwrap_or_default())
                .build()
        };
        Ok(new.iter().map(|new| add(new)).collect())
    }

    /// How the table differs from this definition, a line each; none if it is what it should be.
    pub(super) fn differences(&self, metadata: &TableMetadata) -> Result<Vec<String>> {
        let wanted: Vec<String> = self.schema()?.as_struct().fields().iter().map(|field| describe(field)).collect();
        let found: Vec<String> =
            metadata.current_schema().as_struct().fields().iter().map(|field| describe(field)).collect();
        let missing =
            wanted.iter().filter(|column| !found.contains(column)).map(|column| format!("missing column {column}"));
        let foreign =
            found.iter().filter(|column| !wanted.contains(column)).map(|column| format!("foreign column {column}"));
        let mut differences: Vec<String> = missing.chain(foreign).collect();
        if differences.is_empty() && wanted != found {
            differences.push("columns stand in another order".to_owned());
        }

        let schema = metadata.current_schema();
        let fields = metadata.default_partition_spec().fields().iter();
        let found: Vec<String> = fields
            .map(|field| {
                partition_text(&field.name, schema.name_by_field_id(field.source_id).unwrap_or("?"), field.transform)
            })
            .collect();
        let wanted: Vec<String> =
            self.partitioned_by.iter().map(|&(field, column, by)| partition_text(field, column, by)).collect();
        if wanted != found {
            differences.push(format!("partitioned by [{}] instead of [{}]", found.join(", "), wanted.join(", ")));
        }
        Ok(differences)
    }
}

impl Kind {
    fn to_type(&self, ids: &mut impl Iterator<Item = i32>) -> Type {
        // The iterator has no end.
        let mut next = || ids.next().unwrap_or(i32::MAX);
        match self {
            Self::One(primitive) => Type::Primitive(primitive.clone()),
            Self::List(element) => {
                let element = NestedField::list_element(next(), Type::Primitive(element.clone()), true);
                Type::List(ListType::new(element.into()))
            }
            Self::Records(fields) => {
                let id = next();
                let field = |(name, of, required): &(&str, PrimitiveType, bool)| {
                    NestedField::new(next(), *name, Type::Primitive(of.clone()), *required).into()
                };
                let fields = StructType::new(fields.iter().map(field).collect());
                let element = NestedField::list_element(id, Type::Struct(fields), true);
                Type::List(ListType::new(element.into()))
            }
            Self::Map(value) => {
                let (key_id, value_id) = (next(), next());
                let key = NestedField::map_key_element(key_id, Type::Primitive(PrimitiveType::String));
                let value = NestedField::map_value_element(value_id, value.to_type(ids), true);
                Type::Map(MapType::new(key.into(), value.into()))
            }
        }
    }
}

fn partition_text(field: &str, column: &str, transform: Transform) -> String {
    format!("{field} = {transform}({column})")
}

/// A column without its ids: two tables are alike if these texts are.
fn describe(field: &NestedField) -> String {
    let mut text = format!("{}: ", field.name);
    describe_type(&field.field_type, &mut text);
    text.push_str(if field.required { " required" } else { " optional" });
    text
}

fn describe_type(of: &Type, text: &mut String) {
    match of {
        Type::Primitive(primitive) => {
            // Writing to a string cannot fail.
            let _ = write!(text, "{primitive}");
        }
        Type::Struct(fields) => {
            let fields: Vec<String> = fields.fields().iter().map(|field| describe(field)).collect();
            let _ = write!(text, "struct<{}>", fields.join(", "));
        }
        Type::List(list) => {
            text.push_str("list<");
            describe_type(&list.element_field.field_type, text);
            text.push('>');
        }
        Type::Map(map) => {
            text.push_str("map<");
            describe_type(&map.key_field.field_type, text);
            text.push_str(", ");
            describe_type(&map.value_field.field_type, text);
            text.push('>');
        }
    }
}
