//! Arrow record batches to instances, for the arrow and the parquet reader.

use std::path::Path;

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
use super::rows::Rows;
use crate::error::{Error, Result};

/// Visits the rows of `batch`, whose columns are the wanted ones, out of the file at `path`.
pub(super) fn visit_batch(
    batch: &RecordBatch,
    path: &Path,
    budget: &mut ExpansionBudget,
    rows: &mut Rows<'_>,
) -> Result<()> {
    let unreadable = |error: Error| error.context(format!("cannot read {}", path.display()));
    let schema = batch.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if !names.contains(&INSTANCE_ID) {
        let found: Vec<String> = names.iter().map(ToString::to_string).collect();
        return Err(unreadable(missing_column(INSTANCE_ID, &found)));
    }
    for row in 0..batch.num_rows() {
        let instance = instance_at(batch, &names, row, rows.len() + 1, budget).map_err(unreadable)?;
        // What the visitor has to say is not about the file.
        rows.push(instance)?;
    }
    Ok(())
}

/// The instance in `row`, which is the dataset's row of this `number`.
fn instance_at(
    batch: &RecordBatch,
    names: &[&str],
    row: usize,
    number: usize,
    budget: &mut ExpansionBudget,
) -> Result<Instance> {
    let mut instance = Instance::default();
    let mut id = None;
    for (&name, column) in names.iter().zip(batch.columns()) {
        let in_place = |error: Error| error.context(format!("row {number} of column `{name}`"));
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
    instance.instance_id =
        id.ok_or_else(|| Error::invalid_data(format!("row {number} has no `instance_id`")))?.to_owned();
    budget.charge(
        (size_of::<Instance>()
            + instance.instance_id.len()
            + instance.text.as_ref().map_or(0, String::len)
            + instance.input_ids.as_ref().map_or(0, |ids| size_of_val(ids.as_slice()))) as u64,
    )?;
    Ok(instance)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::builder::{FixedSizeListBuilder, Int32Builder};
    use arrow_array::{
        BooleanArray, DictionaryArray, Float64Array, Int8Array, Int32Array, Int64Array, LargeListArray,
        LargeStringArray, ListArray, NullArray, StringArray, StringViewArray, StructArray,
        TimestampMillisecondArray, UInt32Array, UInt64Array,
    };
    use arrow_schema::Field;
    use serde_json::json;

    use super::*;
    use crate::dataset::test_files::{batch, strings};

    fn rows(columns: &[(&str, ArrayRef)]) -> Result<Vec<Instance>> {
        let mut instances = Vec::new();
        let mut keep = |instance| {
            instances.push(instance);
            Ok(())
        };
        let budget = &mut ExpansionBudget::for_file(1 << 20);
        visit_batch(&batch(columns), Path::new("f"), budget, &mut Rows::new("d", &mut keep))?;
        Ok(instances)
    }

    #[test]
    fn every_encoding_of_strings_is_read() {
        let dictionary: DictionaryArray<Int8Type> = vec!["a", "b"].into_iter().collect();
        let encodings: [ArrayRef; 4] = [
            strings(&["a", "b"]),
            Arc::new(LargeStringArray::from(vec!["a", "b"])),
            Arc::new(StringViewArray::from(vec!["a", "b"])),
            Arc::new(dictionary),
        ];
        for column in encodings {
            let found =
                rows(&[("instance_id", column.clone()), ("text", column.clone()), ("repo", column)]).unwrap();
            assert_eq!(found[1].instance_id, "b");
            assert_eq!(found[1].text.as_deref(), Some("b"));
            assert_eq!(found[1].fields["repo"], "b");
        }
    }

    #[test]
    fn every_type_of_token_ids_is_read() {
        fn check(column: ArrayRef, expected: &[u32]) {
            let found = rows(&[("instance_id", strings(&["a"])), ("input_ids", column)]).unwrap();
            assert_eq!(found[0].input_ids.as_deref(), Some(expected));
        }
        let list = |values: ArrayRef| -> ArrayRef {
            let field = Arc::new(Field::new("item", values.data_type().clone(), true));
            let offsets = arrow_buffer::OffsetBuffer::from_lengths([values.len()]);
            Arc::new(ListArray::new(field, offsets, values, None))
        };
        check(list(Arc::new(Int32Array::from(vec![1, 2]))), &[1, 2]);
        check(list(Arc::new(Int64Array::from(vec![1, i64::from(u32::MAX)]))), &[1, u32::MAX]);
        check(list(Arc::new(UInt32Array::from(vec![7]))), &[7]);
        check(list(Arc::new(NullArray::new(0))), &[]);
        let large = LargeListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(3), Some(4)])]);
        check(Arc::new(large), &[3, 4]);
        let mut fixed = FixedSizeListBuilder::new(Int32Builder::new(), 2);
        fixed.values().append_slice(&[5, 6]);
        fixed.append(true);
        check(Arc::new(fixed.finish()), &[5, 6]);
    }

    #[test]
    fn token_ids_that_are_none_are_refused() {
        let check = |column: ArrayRef, expected: &str| {
            let error = rows(&[("instance_id", strings(&["a"])), ("input_ids", column)]).unwrap_err();
            assert!(
                error.to_line().starts_with("cannot read f: row 1 of column `input_ids`: "),
                "{}",
                error.to_line()
            );
            assert!(error.to_line().contains(expected), "{}", error.to_line());
        };
        let ids = |id: Option<i64>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), id])]))
        };
        check(ids(Some(-1)), "expected 0 to 4294967295, got -1");
        check(ids(Some(1 << 32)), "expected 0 to 4294967295, got 4294967296");
        check(ids(None), "a token id is null");
        check(strings(&["1 2"]), "expected lists of integers, got Utf8");
    }

    #[test]
    fn nulls_are_absent_but_not_for_ids() {
        let nothing: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
        let found = rows(&[
            ("instance_id", strings(&["a"])),
            ("text", nothing.clone()),
            ("input_ids", Arc::new(NullArray::new(1))),
            ("repo", nothing.clone()),
        ])
        .unwrap();
        assert_eq!((&found[0].text, &found[0].input_ids), (&None, &None));
        assert_eq!(found[0].fields["repo"], Value::Null);
        let nameless = rows(&[("instance_id", nothing)]).unwrap_err();
        assert_eq!(nameless.to_line(), "cannot read f: row 1 has no `instance_id`");
    }

    #[test]
    fn other_columns_become_json() {
        let point = StructArray::from(vec![(
            Arc::new(Field::new("x", DataType::Int8, true)),
            Arc::new(Int8Array::from(vec![-3])) as ArrayRef,
        )]);
        let columns: [(&str, ArrayRef, Value); 6] = [
            ("integer", Arc::new(UInt64Array::from(vec![u64::MAX])), json!(u64::MAX)),
            ("float", Arc::new(Float64Array::from(vec![0.5])), json!(0.5)),
            ("nan", Arc::new(Float64Array::from(vec![f64::NAN])), json!(null)),
            ("flag", Arc::new(BooleanArray::from(vec![true])), json!(true)),
            (
                "time",
                Arc::new(TimestampMillisecondArray::from(vec![1_500])),
                json!("1970-01-01 00:00:01.500"),
            ),
            ("point", Arc::new(point), json!({"x": -3})),
        ];
        for (name, column, expected) in columns {
            let found = rows(&[("instance_id", strings(&["a"])), (name, column)]).unwrap();
            assert_eq!(found[0].fields[name], expected);
        }
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None])]);
        let found = rows(&[("instance_id", strings(&["a"])), ("list", Arc::new(list))]).unwrap();
        assert_eq!(found[0].fields["list"], json!([1, null]));
    }

    #[test]
    fn a_dictionary_of_one_long_string_cannot_fill_the_memory() {
        let long = "x".repeat(1 << 20);
        let keys = Int32Array::from(vec![0; 300]);
        let column: ArrayRef =
            Arc::new(DictionaryArray::<Int32Type>::try_new(keys, strings(&[&long])).unwrap());
        let ids: Vec<String> = (0..300).map(|row| row.to_string()).collect();
        let ids = strings(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        let error = rows(&[("instance_id", ids), ("text", column)]).unwrap_err();
        assert!(error.to_line().contains("expands to more than"), "{}", error.to_line());
    }
}
