//! A product whose result is known, computed in both ways when a device is opened: a library or a driver that computes wrongly is found before a model
//! answers nonsense.

use std::sync::Arc;

use half::{bf16, f16};

use super::buffer::{Buffer, Stored};
use super::launch::{LinearSkinny, MAX_SKINNY_ROWS, SkinnyWorkspace, linear_skinny};
use super::launcher::Launcher;
use super::matmul::matmul;
use crate::backend::DType;
use crate::error::{Error, ErrorKind, Result};

/// All different, so that no exchange of dimensions goes unnoticed.
const ROWS: usize = 2 * MAX_SKINNY_ROWS;
const OUT_FEATURES: usize = 48;
const IN_FEATURES: usize = 64;

/// Computes products on `launcher` in `dtype` and compares them with the host's.
///
/// # Errors
/// `Device` for a wrong result, and the launcher's.
pub(super) fn check_products(launcher: &Arc<dyn Launcher>, dtype: DType) -> Result<()> {
    match dtype {
        DType::BF16 => check(launcher, bf16::from_f32, bf16::to_f32),
        DType::F16 => check(launcher, f16::from_f32, f16::to_f32),
        DType::F32 => Ok(()),
    }
}

fn check<T: Stored>(launcher: &Arc<dyn Launcher>, narrow: fn(f32) -> T, widen: fn(T) -> f32) -> Result<()> {
    // Sums of at most IN_FEATURES ones are exact in either type.
    let value = |index: usize| (index * index % 7 % 3) as f32 - 1.0;
    let matrix = |rows: usize, salt: usize| -> Vec<f32> {
        (0..rows * IN_FEATURES).map(|index| value(index + salt + index / IN_FEATURES)).collect()
    };
    let (input, weight) = (matrix(ROWS, 1), matrix(OUT_FEATURES, 4));
    let store = |values: &[f32]| {
        Buffer::from_slice(launcher, &values.iter().map(|&value| narrow(value)).collect::<Vec<_>>())
    };
    let (device_input, device_weight) = (store(&input)?, store(&weight)?);
    let device_input = device_input.matrix(0, ROWS, IN_FEATURES, IN_FEATURES)?;
    let device_weight = device_weight.matrix(0, OUT_FEATURES, IN_FEATURES, IN_FEATURES)?;
    let mut workspace = SkinnyWorkspace::new(launcher)?;
    for (operation, rows) in
        [("the product of matrices", ROWS), ("the product for few rows", MAX_SKINNY_ROWS)]
    {
        let out = Buffer::zeroed(launcher, T::ELEMENT, ROWS * OUT_FEATURES)?;
        let device_out = out.matrix(0, ROWS, OUT_FEATURES, OUT_FEATURES)?;
        if rows == ROWS {
            matmul(launcher.as_ref(), rows, &device_input, &device_weight, &device_out)?;
        } else {
            let (input, weight, out) = (device_input, device_weight, device_out);
            let arguments = LinearSkinny { input, weight, bias: None, out, rows };
            linear_skinny(launcher.as_ref(), &arguments, &mut workspace)?;
        }
        for (index, got) in out.to_vec::<T>()?[..rows * OUT_FEATURES].iter().enumerate() {
            let (row, feature) = (index / OUT_FEATURES, index % OUT_FEATURES);
            let [row_of_input, row_of_weight] = [(&input, row), (&weight, feature)]
                .map(|(values, row)| &values[row * IN_FEATURES..][..IN_FEATURES]);
            let expected: f32 = row_of_input.iter().zip(row_of_weight).map(|(a, b)| a * b).sum();
            if widen(*got) != expected {
                return Err(Error::new(
                    ErrorKind::Device,
                    format!("{operation} is wrong on {}", launcher.name()),
                )
                .with_expected(format_args!("{expected} in row {row}, column {feature}"), widen(*got))
                .with_hint("check that driver and cuBLASLt fit the device, or use --device cpu"));
            }
        }
    }
    Ok(())
}
