//! Counts by size. Pure.

use serde::{Deserialize, Serialize};

/// How many values fell between which bounds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Distribution {
    /// One count a bound, each without the counts before it, and one more for what lies above all.
    counts: Vec<u64>,
    sum: f64,
}

impl Distribution {
    /// Counts a value. Counts by other bounds, of another version of this program, are begun anew.
    pub fn observe(&mut self, bounds: &[f64], value: f64) {
        if self.counts.len() != bounds.len() + 1 {
            *self = Self { counts: vec![0; bounds.len() + 1], sum: 0.0 };
        }
        let at = bounds.iter().take_while(|bound| value > **bound).count();
        self.counts[at] += 1;
        self.sum += value;
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All values together.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// The counts, each with its upper bound (the last with infinity), without the counts before it.
    #[must_use]
    pub fn buckets(&self, bounds: &[f64]) -> Vec<(f64, u64)> {
        let counts = self.counts.iter().copied().chain(std::iter::repeat(0));
        bounds.iter().copied().chain([f64::INFINITY]).zip(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_counted_under_the_first_bound_that_holds_it() {
        let bounds = [1.0, 2.0];
        let mut some = Distribution::default();
        assert_eq!(some.buckets(&bounds), [(1.0, 0), (2.0, 0), (f64::INFINITY, 0)]);
        for value in [0.0, 1.0, 1.5, 3.0] {
            some.observe(&bounds, value);
        }
        assert_eq!(some.buckets(&bounds), [(1.0, 2), (2.0, 1), (f64::INFINITY, 1)]);
        assert!((some.sum() - 5.5).abs() < f64::EPSILON);
        some.observe(&[9.0], 1.0);
        assert_eq!((some.count(), some.buckets(&[9.0])), (1, vec![(9.0, 1), (f64::INFINITY, 0)]));
    }
}
