//! Arrow record batches to instances, for the arrow and the parquet reader.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use serde_json::{Map, Number, Value};

use super::budget::ExpansionBudget;
use super::columns::{INPUT_IDS, INSTANCE_ID, TEXT, missing_column};
use super::instance::Instance;
use crate::error::{Error, Result};

/// Appends the rows of `batch`, whose columns are the wanted ones, to `instances`.
pub(super) fn append_batch(
    batch: &RecordBatch,
    budget: &mut ExpansionBudget,
    instances: &mut Vec<Instance>,
) -> Result<()> {
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if !names.contains(&INSTANCE_ID) {
        let found: Vec<String> = names.iter().map(ToString::to_string).collect();
        return Err(missing_column(INSTANCE_ID, &found));
    }
    for row in 0..batch.num_rows() {
        let mut instance = Instance::default();
        let mut id = None;
        for (&name, column) in names.iter().zip(batch.columns()) {
            let in_place =
                |error: Error| error.context(format!("row {} of column `{name}`", instances.len() + 1));
            match name {
                INSTANCE_ID => id = string_at(column, row).map_err(in_place)?,
                TEXT => instance.text = string_at(column, row).map_err(in_place)?.map(str::to_owned),
                INPUT_IDS => instance.input_ids = token_ids_at(column, row).map_err(in_place)?,
                _ => {
                    let value = value_at(column, row, budget).map_err(in_place)?;
                    instance.fields.insert(name.to_owned(), value);
                }
            }
        }
        instance.instance_id = id
            .ok_or_else(|| Error::invalid_data(format!("row {} has no `instance_id`", instances.len() + 1)))?
            .to_owned();
        budget.charge(
            (size_of::<Instance>()
                + instance.instance_id.len()
                + instance.text.as_ref().map_or(0, String::len)
                + instance.input_ids.as_ref().map_or(0, |ids| size_of_val(ids.as_slice())))
                as u64,
        )?;
        instances.push(instance);
    }
    Ok(())
}

/// The string in `row`, `None` for a null; plain, large, view and dictionary encodings.
fn string_at(column: &dyn Array, row: usize) -> Result<Option<&str>> {
    if column.is_null(row) {
        return Ok(None);
    }
    Ok(match column.data_type() {
        DataType::Utf8 => Some(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(column.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(column.as_string_view().value(row)),
        DataType::Dictionary(_, _) => {
            let (values, key) = dictionary_entry(column, row)?;
            string_at(values, key)?
        }
        DataType::Null => None,
        other => {
            return Err(Error::invalid_data("the column has the wrong type").with_expected("strings", other));
        }
    })
}

/// The dictionary behind `column`, and the position in it that `row` refers to.
fn dictionary_entry(column: &dyn Array, row: usize) -> Result<(&dyn Array, usize)> {
    let dictionary = column
        .as_any_dictionary_opt()
        .ok_or_else(|| Error::internal(format!("{} is not a dictionary", column.data_type())))?;
    let values = dictionary.values();
    let key = integer_at(dictionary.keys(), row).and_then(|key| usize::try_from(key).ok());
    match key.filter(|&key| key < values.len()) {
        Some(key) => Ok((values.as_ref(), key)),
        None => Err(Error::invalid_data("a dictionary key is out of range")),
    }
}

/// The integer in `row`, `None` when the column does not hold integers.
fn integer_at(column: &dyn Array, row: usize) -> Option<i128> {
    Some(match column.data_type() {
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        _ => return None,
    })
}

/// The elements of the list in `row`, `None` when the column does not hold lists.
fn list_at(column: &dyn Array, row: usize) -> Option<ArrayRef> {
    Some(match column.data_type() {
        DataType::List(_) => column.as_list::<i32>().value(row),
        DataType::LargeList(_) => column.as_list::<i64>().value(row),
        DataType::FixedSizeList(_, _) => column.as_fixed_size_list().value(row),
        _ => return None,
    })
}

/// The token ids in `row`, `None` for a null.
fn token_ids_at(column: &dyn Array, row: usize) -> Result<Option<Vec<u32>>> {
    if column.is_null(row) || column.data_type() == &DataType::Null {
        return Ok(None);
    }
    let ids = list_at(column, row).ok_or_else(|| wrong_ids_type(column))?;
    if ids.null_count() > 0 {
        return Err(Error::invalid_data("a token id is null"));
    }
    match ids.data_type() {
        DataType::Int32 => to_token_ids(ids.as_primitive::<Int32Type>().values()),
        DataType::Int64 => to_token_ids(ids.as_primitive::<Int64Type>().values()),
        DataType::UInt32 => to_token_ids(ids.as_primitive::<UInt32Type>().values()),
        DataType::UInt64 => to_token_ids(ids.as_primitive::<UInt64Type>().values()),
        DataType::Int16 => to_token_ids(ids.as_primitive::<Int16Type>().values()),
        DataType::UInt16 => to_token_ids(ids.as_primitive::<UInt16Type>().values()),
        DataType::Null if ids.is_empty() => Ok(Vec::new()),
        _ => Err(wrong_ids_type(column)),
    }
    .map(Some)
}

fn wrong_ids_type(column: &dyn Array) -> Error {
    Error::invalid_data("the column has the wrong type")
        .with_expected("lists of integers", column.data_type())
}

fn to_token_ids<T: Copy + TryInto<u32> + std::fmt::Display>(ids: &[T]) -> Result<Vec<u32>> {
    ids.iter()
        .map(|&id| {
            id.try_into().map_err(|_| {
                Error::invalid_data("a token id is out of range")
                    .with_expected(format_args!("0 to {}", u32::MAX), id)
            })
        })
        .collect()
}

/// Any column's value in `row` as JSON; timestamps become `2023-08-01 12:00:00`.
fn value_at(column: &dyn Array, row: usize, budget: &mut ExpansionBudget) -> Result<Value> {
    budget.charge(size_of::<Value>() as u64)?;
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    if let Some(integer) = integer_at(column, row) {
        return Ok(Number::from_i128(integer).map_or(Value::Null, Value::Number));
    }
    if let Some(elements) = list_at(column, row) {
        return (0..elements.len())
            .map(|element| value_at(&elements, element, budget))
            .collect::<Result<Vec<_>>>()
            .map(Value::Array);
    }
    Ok(match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(column.as_boolean().value(row)),
        DataType::Float32 => float(column.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(unit, _) => timestamp(column, row, *unit),
        DataType::Struct(fields) => {
            let mut object = Map::new();
            for (field, child) in fields.iter().zip(column.as_struct().columns()) {
                object.insert(field.name().clone(), value_at(child, row, budget)?);
            }
            Value::Object(object)
        }
        DataType::Dictionary(_, _) => {
            let (values, key) = dictionary_entry(column, row)?;
            value_at(values, key, budget)?
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => match string_at(column, row)? {
            Some(text) => {
                budget.charge(text.len() as u64)?;
                Value::String(text.to_owned())
            }
            None => Value::Null,
        },
        other => return Err(Error::unsupported(format!("columns of type {other} cannot be read"))),
    })
}

/// JSON has no NaN and no infinity: both become null, as pandas writes them.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn timestamp(column: &dyn Array, row: usize, unit: TimeUnit) -> Value {
    let time = match unit {
        TimeUnit::Second => column.as_primitive::<TimestampSecondType>().value_as_datetime(row),
        TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().value_as_datetime(row),
        TimeUnit::Microsecond => column.as_primitive::<TimestampMicrosecondType>().value_as_datetime(row),
        TimeUnit::Nanosecond => column.as_primitive::<TimestampNanosecondType>().value_as_datetime(row),
    };
    time.map_or(Value::Null, |time| Value::String(time.to_string()))
}
