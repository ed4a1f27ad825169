//! Checks of what a launch is given; every failure names the kernel, the argument, what it should be and what it is.

use std::fmt;

use super::buffer::{Element, Matrix, Vector};
use super::geometry::Kernel;
use crate::error::{Error, Result};

/// Bytes that vectorised accesses move at once: addresses and rows are multiples of it.
const ACCESS_BYTES: u64 = 16;

/// Checks the arguments of one kernel, or of another operation by its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check<N = Kernel>(pub(super) N);

impl<N: fmt::Display + Copy> Check<N> {
    /// `condition`, or an error that says what was expected of `argument` and what it is.
    pub(super) fn that(
        self,
        condition: bool,
        argument: &str,
        expected: impl fmt::Display,
        got: impl fmt::Display,
    ) -> Result<()> {
        if condition {
            return Ok(());
        }
        Err(Error::invalid_argument(format!("{}: {argument}", self.0)).with_expected(expected, got))
    }

    /// At least `rows` rows of exactly `cols` elements, each row aligned for vector accesses.
    pub(super) fn matrix(
        self,
        argument: &str,
        matrix: &Matrix<'_>,
        element: Element,
        rows: usize,
        cols: usize,
    ) -> Result<()> {
        self.element(argument, matrix.element, element)?;
        self.that(
            matrix.rows >= rows && matrix.cols == cols,
            argument,
            format_args!("[{rows}, {cols}] or more rows"),
            format_args!("[{}, {}]", matrix.rows, matrix.cols),
        )?;
        self.aligned(argument, matrix.address)?;
        let row_bytes = (matrix.row_stride * element.size()) as u64;
        self.that(
            rows <= 1 || row_bytes.is_multiple_of(ACCESS_BYTES),
            argument,
            format_args!("rows a multiple of {ACCESS_BYTES} bytes apart"),
            format_args!("{row_bytes} bytes"),
        )
    }

    /// At least `len` elements, aligned for vector accesses.
    pub(super) fn vector(
        self,
        argument: &str,
        vector: &Vector<'_>,
        element: Element,
        len: usize,
    ) -> Result<()> {
        self.element(argument, vector.element, element)?;
        self.that(vector.len >= len, argument, format_args!("{len} elements or more"), vector.len)?;
        self.aligned(argument, vector.address)
    }

    /// A number in `1..=most`, as the kernels' 32-bit fields hold it.
    pub(super) fn count(self, argument: &str, value: usize, most: usize) -> Result<i32> {
        let number = i32::try_from(value).ok().filter(|_| (1..=most).contains(&value));
        let error = || Error::invalid_argument(format!("{}: {argument}", self.0));
        number.ok_or_else(|| error().with_expected(format_args!("1 to {most}"), value))
    }

    /// A multiple of the elements of one vector access.
    pub(super) fn whole_vectors(self, argument: &str, value: usize, element: Element) -> Result<()> {
        let per_access = ACCESS_BYTES as usize / element.size();
        self.that(
            value.is_multiple_of(per_access),
            argument,
            format_args!("a multiple of {per_access}"),
            value,
        )
    }

    fn element(self, argument: &str, got: Element, expected: Element) -> Result<()> {
        self.that(got == expected, argument, format_args!("elements of {expected}"), got)
    }

    fn aligned(self, argument: &str, address: u64) -> Result<()> {
        self.that(
            address != 0 && address.is_multiple_of(ACCESS_BYTES),
            argument,
            format_args!("an address that is a multiple of {ACCESS_BYTES}"),
            format_args!("{address:#x}"),
        )
    }
}
