//! How Python's `datasets` describes columns: in `dataset_info.json`, and in the metadata of Arrow and parquet schemas.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::batch::{Column, ColumnKind};

/// `{"column": {"dtype": "string", "_type": "Value"}, …}`.
pub(super) fn features(columns: &[Column]) -> Value {
    let feature = |column: &Column| {
        let value = |dtype: &str| json!({"dtype": dtype, "_type": "Value"});
        // Releases before and after 4.0 read this spelling of a list.
        let list = |dtype: &str| json!({"feature": value(dtype), "_type": "Sequence"});
        match column.kind {
            ColumnKind::Text => value("string"),
            ColumnKind::Int32List => list("int32"),
            ColumnKind::Int64List => list("int64"),
        }
    };
    let features: Map<String, Value> =
        columns.iter().map(|column| (column.name.clone(), feature(column))).collect();
    Value::Object(features)
}

/// The schema's metadata.
pub(super) fn metadata(columns: &[Column]) -> HashMap<String, String> {
    let info = json!({"info": {"features": features(columns)}});
    HashMap::from([("huggingface".to_owned(), info.to_string())])
}

/// The content of `dataset_info.json`.
pub(super) fn dataset_info(columns: &[Column]) -> Value {
    json!({"citation": "", "description": "", "features": features(columns), "homepage": "", "license": ""})
}
