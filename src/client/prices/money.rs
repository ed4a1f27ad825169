//! Dollars as an integer, so that sums over a run are exact.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Picodollars in a dollar: a price of a cent for a million tokens is 10,000 of them a token.
const PICODOLLARS: f64 = 1e12;

/// An amount of money that is never negative, in picodollars up to 18 million dollars.
///
/// Sums saturate, which keeps every comparison with a cap right. In JSON it is a number of dollars, which keeps amounts
/// below 500 dollars to the picodollar and larger ones to 16 digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// This many dollars to the nearest picodollar; `None` for a negative, infinite or absurdly large number.
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        let picodollars = (dollars * PICODOLLARS).round();
        (picodollars >= 0.0 && picodollars < u64::MAX as f64).then_some(Self(picodollars as u64))
    }

    /// The nearest number of dollars.
    pub fn dollars(self) -> f64 {
        self.0 as f64 / PICODOLLARS
    }

    /// `count` times this amount.
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(count))
    }

    /// Half, rounded up.
    pub fn half(self) -> Self {
        Self(self.0.div_ceil(2))
    }

    /// What is left after paying `other`; nothing when that is more.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::add)
    }
}

impl fmt::Display for Money {
    /// `$12.34`; amounts below ten cents keep four significant digits' worth of places: `$0.0123`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dollars = self.dollars();
        let places = match dollars {
            0.0 | 0.1.. => 2,
            0.001..0.1 => 4,
            _ => 6,
        };
        write!(f, "${dollars:.places$}")
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.dollars())
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let dollars = f64::deserialize(deserializer)?;
        Self::from_dollars(dollars)
            .ok_or_else(|| de::Error::custom(format!("{dollars} is not an amount of dollars")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dollars(dollars: f64) -> Money {
        Money::from_dollars(dollars).unwrap()
    }

    #[test]
    fn a_million_small_prices_are_exact() {
        assert_eq!(dollars(1e-8).times(1_000_000), dollars(0.01));
        let sum: Money = std::iter::repeat_n(dollars(0.1), 10).sum();
        assert_eq!(sum, dollars(1.0));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for wrong in [-1e-9, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert_eq!(Money::from_dollars(wrong), None, "{wrong}");
        }
        assert!(serde_json::from_str::<Money>("-1").is_err());
    }

    #[test]
    fn sums_and_products_saturate() {
        let most = Money(u64::MAX);
        assert_eq!(most + dollars(1.0), most);
        assert_eq!(dollars(1.0).times(u64::MAX), most);
        assert_eq!(dollars(1.0).saturating_sub(dollars(2.0)), Money::ZERO);
    }

    #[test]
    fn it_prints_as_dollars() {
        for (amount, text) in [
            (0.0, "$0.00"),
            (12.345, "$12.35"),
            (0.0123, "$0.0123"),
            (0.000_012, "$0.000012"),
            (0.1, "$0.10"),
        ] {
            assert_eq!(dollars(amount).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn json_keeps_amounts_below_500_dollars(picodollars in 0_u64..500_000_000_000_000) {
            let amount = Money(picodollars);
            let text = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<Money>(&text).unwrap(), amount);
        }
    }
}
